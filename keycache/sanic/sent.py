"""A Sanic request as the guard reads it: method, path, header fields, cookies, and nothing more."""

from collections.abc import Sequence

import msgspec
from sanic import Request
from sanic.cookies.request import parse_cookie

from keycache.errors import Reason, TokenError
from keycache.guard import read_token
from keycache.rules import AUTHORIZATION

_NONE: list[str] = []


class SanicRequest(msgspec.Struct, gc=False):  # made for every request, in a tenth of a microsecond
    """See `keycache.guard.Sent`."""

    request: Request

    @property
    def method(self) -> str:
        """As it was sent."""
        return self.request.method

    @property
    def path(self) -> str:
        """As it was sent. Raises TokenError where Sanic can read none, as in `GET http://host`."""
        try:
            return self.request.path
        except (AttributeError, UnicodeDecodeError):
            raise TokenError(
                Reason.AMBIGUOUS_PATH, "The path of the request cannot be read."
            ) from None

    def header(self, name: str) -> Sequence[str]:
        """The values of all fields of this name. Sanic's own `request.token` also accepts
        `Token t`, `XBearer t` and a bare token, and joins several headers; a verifier must not.
        """
        values: list[str] = self.request.headers.getall(name, _NONE)
        return values

    def cookie(self, name: str) -> Sequence[str]:
        """The values of all cookies of exactly this name; Sanic's `request.cookies` would also take
        `__Host-` and `__Secure-` ones for it.
        """
        return parse_cookie(";".join(self.request.headers.getall("cookie", _NONE))).get(name, ())


def bearer_token(request: Request) -> str:
    """The one token of the Authorization header (RFC 6750 section 2.1). Raises TokenError."""
    token = read_token(AUTHORIZATION, SanicRequest(request))
    if token is None:
        raise TokenError(Reason.NO_TOKEN, "No token was sent.")
    return token
