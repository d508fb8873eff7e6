"""Revocations: which tokens are refused before they expire, and their list ↔ sealed bytes.

Layout (`core.seal`):  KR1 | flag (1) | version (8) | … | content: JSON, an array for each

A list names tokens by the digest of their `jti`, or of their `sub` together with the moment until
which they were issued; it holds no identifier. A revocation is never taken back, only over at its
end. So lists are merged, and it does not matter which host has read which list, nor in which order.
"""

import struct
from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

import msgspec

from keycache.core.seal import flagged, opened, sealed
from keycache.errors import RecordCode, RecordError
from keycache.issuer import KeySource

_HEAD = struct.Struct(">4sQ")
_MAGIC = b"KR1"


class Kind(StrEnum):
    """The claim by which tokens are revoked (RFC 7519 sections 4.1.7 and 4.1.2)."""

    JTI = "jti"
    SUB = "sub"


class Tokens(NamedTuple):
    """Which tokens: those whose claim of this kind has this digest (`digest_of`)."""

    kind: Kind
    digest: str


class Revocation(NamedTuple):
    """These tokens are refused.

    before: those issued until that moment (`iat`); None: all of them. revoked_at: when it was said,
    last. until: when this may be forgotten, because the tokens have expired. All of them in seconds
    since the epoch.
    """

    kind: Kind
    digest: str
    before: float | None
    revoked_at: float
    until: float

    @property
    def tokens(self) -> Tokens:
        """What it is about, and known by."""
        return Tokens(self.kind, self.digest)


Revoked = Mapping[Tokens, Revocation]
Index = Mapping[Kind, Mapping[str, float | None]]
"""By kind and digest: until when the tokens were issued. As a verification wants to have it."""


def digest_of(kind: Kind, identifier: str) -> str:
    """32 hexadecimal digits that stand for an identifier (SHA-256)."""
    return sha256(_BEFORE[kind] + identifier.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_BEFORE = {kind: f"{kind}:".encode() for kind in Kind}


def index_of(revoked: Iterable[Revocation]) -> Index:
    """The index of these revocations; it has no entry for a kind by which nothing is revoked."""
    index: dict[Kind, dict[str, float | None]] = {}
    for each in revoked:
        index.setdefault(each.kind, {})[each.digest] = each.before
    return index


def is_revoked(index: Index, claims: Mapping[str, object]) -> bool:
    """Whether one of these revocations is about the token with these claims, already checked.

    A token without `iat` does not say when it was issued, and so may have been before.
    """
    for kind, revoked in index.items():
        identifier = claims.get(kind)
        if not isinstance(identifier, str):
            continue
        digest = digest_of(kind, identifier)
        if digest in revoked:
            before, issued = revoked[digest], claims.get("iat")
            if before is None or not isinstance(issued, int | float) or issued <= before:
                return True
    return False


def merged(revocations: Iterable[Revocation], now: float) -> dict[Tokens, Revocation]:
    """One revocation for the same tokens each, without those that are over at `now`."""
    found: dict[Tokens, Revocation] = {}
    for each in revocations:
        if now < each.until:
            held = found.get(each.tokens)
            found[each.tokens] = each if held is None else _both(held, each)
    return found


def _both(one: Revocation, other: Revocation) -> Revocation:
    """What refuses whatever one of the two refuses."""
    whole = one.before is None or other.before is None
    return Revocation(
        one.kind,
        one.digest,
        before=None if whole else max(one.before or 0.0, other.before or 0.0),
        revoked_at=max(one.revoked_at, other.revoked_at),
        until=max(one.until, other.until),
    )


def seal(
    revoked: Revoked, version: int, source: KeySource, keys: tuple[bytes, ...], nonce: bytes
) -> bytes:
    """The bytes of a list. keys, nonce: see `core.seal.sealed`."""
    head = _HEAD.pack(flagged(_MAGIC, keys), version)
    return sealed(head, msgspec.json.encode(list(revoked.values())), source, keys, nonce)


def unseal(
    data: bytes, version: int, source: KeySource, keys: tuple[bytes, ...]
) -> dict[Tokens, Revocation]:
    """The list in these bytes, which were kept under this version. Raises RecordError: those of
    `core.seal.opened`, `version` and `content`.
    """
    head, body = opened(data, _MAGIC, _HEAD.size, source, keys)
    if _HEAD.unpack(head)[1] != version:
        raise RecordError(RecordCode.VERSION, "its version is not the one it is kept under")
    try:
        content = msgspec.json.decode(body, type=list[Revocation])
    except msgspec.MsgspecError:
        raise RecordError(RecordCode.CONTENT, "its content cannot be read") from None
    return {each.tokens: each for each in content}
