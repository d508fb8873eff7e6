"""The API of ops/bench/scale_flat.py: JWTAuth for many issuers, whose keys are in files."""

import os
from pathlib import Path

from sanic import HTTPResponse, Request, Sanic, json

from keycache import Issuer
from keycache.core.freshness import Lifetimes
from keycache.runtime import Options
from keycache.sanic import JWTAuth

FOLDER = Path(os.environ["BENCH_FOLDER"])

app = Sanic("bench")
JWTAuth(
    app,
    issuer=[
        Issuer(
            issuer=f"https://{number}.id.example.com/",
            name=f"issuer-{number}",
            audiences=("bench",),
            algorithms=("ES256",),
            jwks_file=str(FOLDER / f"{number}.json"),
        )
        for number in range(int(os.environ["BENCH_ISSUERS"]))
    ],
    # Nothing shall happen in the background while requests are counted.
    options=Options(
        token_cache=int(os.environ["BENCH_KEPT"]),
        poll=3600,
        lifetimes=Lifetimes(ttl=7200),
    ),
    protect="/api",
)


@app.get("/api/answer")
async def answer(_: Request) -> HTTPResponse:
    """What is protected."""
    return json({"message": "Access granted"})
