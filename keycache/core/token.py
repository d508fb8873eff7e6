"""Compact JWS (RFC 7515 section 3.1) → UnverifiedToken: size, shape and header, before any key.

Nothing here is trusted yet. What is refused here costs a stranger's token next to nothing: no key
is looked up, nothing is fetched, no signature is checked.
"""

from functools import lru_cache

import msgspec
from pybase64 import b64decode

from keycache.core.strict_json import parse_object
from keycache.errors import Reason, TokenError
from keycache.issuer import normal_typ


class Header(msgspec.Struct, frozen=True, gc=False):
    """The members of a JOSE header that we act on; `typ` is normalised, empty when absent."""

    alg: str
    kid: str | None
    typ: str


class UnverifiedToken(msgspec.Struct, frozen=True, gc=False):
    """A token of the right shape. Nothing in it is true until its signature has been checked.

    payload: as `strict_json.parse_object` reads it.

    (A Struct, as are the other values that are made for every token: it costs a fifth of a tuple.)
    """

    header: Header
    payload: dict[str, object]
    signing_input: bytes
    signature: bytes


def parse_token(text: str, max_bytes: int, max_kid_chars: int) -> UnverifiedToken:
    """Take a compact JWS apart. Raises TokenError: too_large, malformed, unsupported_header."""
    if len(text) > max_bytes:
        raise TokenError(Reason.TOO_LARGE, f"The token is longer than {max_bytes} bytes.")
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError:
        raise _malformed("The token holds characters outside ASCII.") from None
    # Never a list of all segments, of which there could be a million (CVE-2025-30204).
    signing_input, _, last = data.rpartition(b".")
    first, dot, middle = signing_input.partition(b".")
    if not dot or _DOT in middle:
        raise _malformed("The token does not have three segments.")
    try:
        header = _parse_header(first)
        payload = parse_object(decode_base64url(middle))
        signature = decode_base64url(last)
    except ValueError:
        raise _malformed("The token is not base64url-encoded JSON.") from None
    if header.kid is not None and not 0 < len(header.kid) <= max_kid_chars:
        raise _malformed(f"The kid is empty or longer than {max_kid_chars} characters.")
    return UnverifiedToken(header, payload, signing_input, signature)


def decode_base64url(segment: bytes) -> bytes:
    """Decode strictly: RFC 4648 section 5 without padding, one spelling for each value.

    Raises ValueError for padding, white space, the other alphabet, an impossible length, and for
    trailing bits that are not zero (RFC 4648 section 3.5), all of which common decoders let pass.
    """
    tail = len(segment) % 4
    if tail and segment[-1] not in _LAST[tail]:
        raise ValueError("not canonical base64url")
    # The decoder takes the alphabet of base64 as well, and padding.
    if _PLUS in segment or _SLASH in segment or _EQUALS in segment:
        raise ValueError("not base64url")
    return b64decode(segment + _PADDING[tail], b"-_", True)  # noqa: FBT003 - validate; by name it costs more


@lru_cache(maxsize=256)
def _parse_header(segment: bytes) -> Header:
    """An issuer writes the same few headers again and again: each is parsed once."""
    members = parse_object(decode_base64url(segment))
    for name in _REFUSED_MEMBERS:
        if name in members:
            raise TokenError(
                Reason.UNSUPPORTED_HEADER, f"The header member {name} is not supported."
            )
    alg, typ = members.get("alg"), members.get("typ", "")
    if type(alg) is not str:
        raise _malformed("The header has no alg, or one that is not a string.")
    if type(typ) is not str:
        raise _malformed("The typ in the header is not a string.")
    kid = _checked_kid(members["kid"]) if "kid" in members else None
    return Header(alg, kid, normal_typ(typ))


def _checked_kid(kid: object) -> str:
    if type(kid) is not str or not kid.isascii() or not kid.isprintable():
        raise _malformed("The kid in the header is not a string of printable ASCII characters.")
    return kid


def _malformed(details: str) -> TokenError:
    return TokenError(Reason.MALFORMED, details)


_REFUSED_MEMBERS = (
    "crit",  # RFC 7515 section 4.1.11: no extension is understood, so any list must be refused
    "b64",  # RFC 7797 section 7: never in a JWT
    "zip",  # RFC 7516 section 4.1.3: for JWE only; nothing is ever decompressed
    "enc",  # RFC 7516: a JWE
    "cty",  # RFC 7519 section 5.2: a nested token
)
"""`jwk`, `jku`, `x5c` and `x5u` are not read at all: a token does not choose its own key."""

# Bytes look for a number at once, and for bytes only after they have failed.
_DOT, _PLUS, _SLASH, _EQUALS = b".+/="

_PADDING = (b"", b"", b"==", b"=")
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
