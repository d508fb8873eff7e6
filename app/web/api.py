"""The public application: `GET /protected` for people, `GET /verify` for proxies."""

from collections.abc import Mapping
from urllib.parse import quote

from sanic import HTTPResponse, Request, json, text

from app.settings import Settings
from app.web.answers import NOT_STORED
from app.web.server import Application, application
from keycache.core.claims import scopes
from keycache.sanic import JWTAuth

METHODS = ("GET", "HEAD")

SPARE_SECONDS = 10.0
"""What a handler may take beyond its longest wait for the refresher: far more than it needs."""

_HEADER_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


def make_api(settings: Settings, auth: JWTAuth) -> Application:
    """The application, protected by `auth`, which its listeners open and close."""
    app = application("keycache", response_seconds=settings.wait + SPARE_SECONDS, optimise=True)
    auth.init_app(app)

    @app.route("/protected", methods=METHODS)
    @auth.required
    async def protected(request: Request) -> HTTPResponse:
        return json(
            {"message": "Access granted", "user": request.ctx.user}, headers=dict(NOT_STORED)
        )

    @app.route("/verify", methods=METHODS)
    @auth.required
    async def verify(request: Request) -> HTTPResponse:
        return text("", headers=identity(request.ctx.user) | NOT_STORED)

    return app


def identity(claims: Mapping[str, object]) -> dict[str, str]:
    """Who the token speaks for, as header fields that a proxy copies into the request.

    All of them are always set, to nothing if need be, so that a proxy which copies them overwrites
    what a client may have sent under these names.
    """
    return {
        "X-Auth-Subject": header_safe(claims.get("sub")),
        "X-Auth-Issuer": header_safe(claims.get("iss")),
        "X-Auth-Scope": " ".join(sorted(map(header_safe, scopes(claims)))),
    }


def header_safe(value: object) -> str:
    """A text as a header field can carry it: anything but visible ASCII is percent-encoded (UTF-8).

    So is `%`, hence two texts never look alike. What is no text becomes nothing.
    """
    return quote(value, safe=_HEADER_SAFE, errors="replace") if isinstance(value, str) else ""
