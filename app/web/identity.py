"""Who a token speaks for, in header fields that a proxy copies into the request that it lets by.

All of them are always there, with nothing in them if need be, so that a proxy which copies them
overwrites what a client may have sent under these names.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import assert_never
from urllib.parse import quote

from app.settings.headers import Identity, IdentityHeader
from keycache.predicates import ClaimPath, look_up

_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


Says = Callable[[Mapping[str, object], Collection[str]], str]
"""(claims, scopes that they grant) → the value of a header field."""


def identity(
    headers: Iterable[IdentityHeader],
) -> Callable[[Mapping[str, object], Collection[str]], dict[str, str]]:
    """What makes these header fields for a token of such claims, which grant such scopes."""
    fields = [(header.name, _said(header.says)) for header in headers]

    def made(claims: Mapping[str, object], scopes: Collection[str]) -> dict[str, str]:
        return {name: said(claims, scopes) for name, said in fields}

    return made


def _said(says: Identity | ClaimPath) -> Says:
    match says:
        case Identity.SUBJECT:
            return lambda claims, _: header_safe(claims.get("sub"))
        case Identity.ISSUER:
            return lambda claims, _: header_safe(claims.get("iss"))
        case Identity.SCOPES:
            return _scopes
        case Identity.PAYLOAD:
            return _payload
        case tuple():
            return lambda claims, _: header_safe(look_up(claims, says))
        case _:
            assert_never(says)


def _scopes(_: Mapping[str, object], scopes: Collection[str]) -> str:
    text = " ".join(sorted(scopes))
    # Most often none of them needs any care, which is seen at once.
    plain = text.isascii() and text.isprintable() and "%" not in text
    if plain and text.count(" ") == len(scopes) - 1:
        return text
    return " ".join(sorted(map(header_safe, scopes)))


def _payload(claims: Mapping[str, object], _: Collection[str]) -> str:
    return urlsafe_b64encode(_json(claims).encode()).rstrip(b"=").decode() if claims else ""


def header_safe(value: object) -> str:
    """A claim as a header field can carry it: anything but visible ASCII is percent-encoded
    (UTF-8), and so is `%`, hence two texts never look alike.

    The items of a list of texts are separated by spaces; anything else but a text is its JSON; what
    is absent is nothing.
    """
    match value:
        case str():
            if value.isascii() and value.isprintable() and "%" not in value and " " not in value:
                return value
            return quote(value, safe=_SAFE, errors="replace")
        case None:
            return ""
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return " ".join(map(header_safe, value))
        case _:
            return header_safe(_json(value))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
