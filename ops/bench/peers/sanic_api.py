"""The Sanic contenders of ops/bench/peers.py: one API of one answer, protected in several ways.

    sanic sanic_api:app --workers 2, with BENCH_KIND, BENCH_ISSUER and BENCH_AUDIENCE

`published` and `cached` are what tutorials print: PyJWT's PyJWKClient, made for every request, or
made once.
"""

import os

import jwt
from sanic import HTTPResponse, Request, Sanic, json

from keycache.sanic import JWTAuth

KIND = os.environ["BENCH_KIND"]
ISSUER = os.environ["BENCH_ISSUER"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]
JWKS_URL = f"{ISSUER}/.well-known/jwks.json"
ALGORITHMS = ["RS256", "ES256"]

app = Sanic("bench")


@app.get("/api/answer")
async def answer(_: Request) -> HTTPResponse:
    """What every contender protects."""
    return json({"message": "Access granted"})


def _claims(request: Request, client: jwt.PyJWKClient) -> dict[str, object]:
    token = request.token or ""
    key = client.get_signing_key_from_jwt(token).key
    found: dict[str, object] = jwt.decode(
        token, key, algorithms=ALGORITHMS, audience=AUDIENCE, issuer=ISSUER
    )
    return found


if KIND == "keycache":
    JWTAuth(app, issuer=ISSUER, audience=AUDIENCE, jwks_url=JWKS_URL, protect="/api")
elif KIND in ("published", "cached"):
    once = jwt.PyJWKClient(JWKS_URL)

    @app.on_request
    async def check_token(request: Request) -> HTTPResponse | None:
        """Refuse a request without a good token."""
        try:
            client = once if KIND == "cached" else jwt.PyJWKClient(JWKS_URL)
            request.ctx.user = _claims(request, client)
        except jwt.PyJWTError:
            return json({"error": "Invalid token"}, status=401)
        return None
