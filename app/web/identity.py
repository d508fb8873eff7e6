"""Who a token speaks for, in header fields that a proxy copies into the request that it lets by.

All of them are always there, with nothing in them if need be, so that a proxy which copies them
overwrites what a client may have sent under these names.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import assert_never
from urllib.parse import quote

from app.settings.headers import Identity, IdentityHeader
from keycache.predicates import ClaimPath, look_up

_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_IS_SAFE = re.compile(r"[!-$&-~]*").fullmatch


def identity(
    headers: Iterable[IdentityHeader], claims: Mapping[str, object], scopes: Iterable[str]
) -> dict[str, str]:
    """These header fields for a token of these claims, which grant these scopes."""
    return {header.name: _said(header.says, claims, scopes) for header in headers}


def _said(says: Identity | ClaimPath, claims: Mapping[str, object], scopes: Iterable[str]) -> str:
    match says:
        case Identity.SUBJECT:
            return header_safe(claims.get("sub"))
        case Identity.ISSUER:
            return header_safe(claims.get("iss"))
        case Identity.SCOPES:
            return " ".join(sorted(map(header_safe, scopes)))
        case Identity.PAYLOAD:
            return urlsafe_b64encode(_json(claims).encode()).rstrip(b"=").decode() if claims else ""
        case tuple():
            return header_safe(look_up(claims, says))
        case _:
            assert_never(says)


def header_safe(value: object) -> str:
    """A claim as a header field can carry it: anything but visible ASCII is percent-encoded
    (UTF-8), and so is `%`, hence two texts never look alike.

    The items of a list of texts are separated by spaces; anything else but a text is its JSON; what
    is absent is nothing.
    """
    match value:
        case str():
            return value if _IS_SAFE(value) else quote(value, safe=_SAFE, errors="replace")
        case None:
            return ""
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return " ".join(map(header_safe, value))
        case _:
            return header_safe(_json(value))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
