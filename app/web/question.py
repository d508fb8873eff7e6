"""Question: a request for `/verify`, read from Sanic's request or from the bytes of a whole one.

Both readings are the same: `parse` takes a head apart exactly as Sanic 25.12 does
(`Http.http1_request_header`), and gives up where Sanic would do more than route the request.
"""

import re
from collections.abc import Callable, Sequence

from sanic import Request
from sanic.cookies.request import parse_cookie

from app.web.original import PREFIX

METHODS = ("GET", "HEAD")
"""Of `/verify` itself; below it, a proxy asks with the method of the request that it asks about."""

METHODS_BELOW = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_WITH_BODY = frozenset({*METHODS_BELOW}) - {"HEAD"}
"""Methods whose answer has a body."""

_MORE_THAN_A_HEAD = frozenset({"transfer-encoding", "expect", "upgrade"})
_TARGET = re.compile(rf"({PREFIX}(?:/[!-\"$->@-~]*)?)(?:\?[!-\"$-~]*)?")
"""Path, and query: visible ASCII without a fragment."""


class Question:
    """A request for `/verify`, as far as it is judged.

    method, path: as they were sent, without the query. values: gives the values of a header field,
    or else its second argument. trusted: whether the peer is a trusted proxy.
    """

    __slots__ = ("method", "path", "trusted", "values")

    def __init__(
        self,
        method: str,
        path: str,
        values: Callable[[str, Sequence[str]], Sequence[str]],
        *,
        trusted: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.trusted = trusted
        self.values = values

    def header(self, name: str) -> Sequence[str]:
        """The values of all header fields of this name (in lower case), in their order."""
        return self.values(name, ())

    def cookie(self, name: str) -> Sequence[str]:
        """The values of all cookies of this name; those of several fields are as if in one."""
        return parse_cookie("; ".join(self.header("cookie"))).get(name, ())


def of_sanic(request: Request, *, trusted: bool) -> Question:
    """What Sanic has read."""
    target = request.raw_url.decode("ascii")  # Sanic refuses others
    path = target.partition("?")[0] if target.startswith("/") else request.path
    return Question(request.method, path, request.headers.getall, trusted=trusted)


def parse(data: bytes, longest: int, *, trusted: bool) -> Question | None:
    """What `data` asks, when it is one whole request for `/verify` without a body, on a connection
    that stays open, whose answer has a body; else None.

    longest: bytes of a head that Sanic accepts, with the empty line behind it.
    """
    if len(data) > longest or not data.isascii():
        return None
    request_line, *lines = data.decode("ascii").split("\r\n")
    if lines[-2:] != _END:
        return None
    asked = _PLAINEST if request_line == _PLAINEST_LINE else _asked(request_line)
    fields = _fields(lines[:-2]) if asked else None
    if asked is None or fields is None:
        return None
    return Question(*asked, fields.get, trusted=trusted)


_END = ["", ""]  # of a head: an empty line, and nothing behind it
_PLAINEST, _PLAINEST_LINE = ("GET", PREFIX), f"GET {PREFIX} HTTP/1.1"


def _asked(request_line: str) -> tuple[str, str] | None:
    """Method and path, if the question is one that this method may ask."""
    words = request_line.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        return None
    match = _TARGET.fullmatch(words[1])
    method, path = words[0], match[1] if match else ""
    if path and (method == "GET" or (method in _WITH_BODY and path != PREFIX)):
        return method, path
    return None


def _fields(lines: Sequence[str]) -> dict[str, list[str]] | None:
    """The header fields, if they are no more than a head."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        fields.setdefault(name.lower(), []).append(value.lstrip())
    if _SPECIAL.isdisjoint(fields):
        return fields
    plain = (
        _MORE_THAN_A_HEAD.isdisjoint(fields)
        and fields.get("content-length", _NO_BODY) == _NO_BODY
        and all(value.lower() == "keep-alive" for value in fields.get("connection", ()))
    )
    return fields if plain else None


_SPECIAL = _MORE_THAN_A_HEAD | {"content-length", "connection"}
_NO_BODY = ["0"]  # as Envoy has it
