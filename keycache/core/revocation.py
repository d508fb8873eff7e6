"""Revocations: which tokens are refused before they expire, and their list ↔ sealed bytes.

Layout (`core.seal`):  KR1 | flag (1) | version (8) | … | content: JSON, an array for each

A list names tokens by the digest of their `jti`, or of their `sub` together with the moment until
which they were issued; it holds no identifier. Lists are merged entry by entry, and of two that
name the same tokens the later revocation holds; so it does not matter which host has heard of which
list, nor in which order.
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

    before: those issued at that second or earlier (`iat`); None: all of them. revoked_at: when, in
    milliseconds by the clock of the shared cache. until: when this may be forgotten, because the
    tokens have expired. Both moments are seconds since the epoch.
    """

    kind: Kind
    digest: str
    before: float | None
    revoked_at: int
    until: float

    @property
    def tokens(self) -> Tokens:
        """What it is known by: the same tokens revoked again replace it."""
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
    """The later revocation of the same tokens each, without those that are over at `now`."""
    latest: dict[Tokens, Revocation] = {}
    for each in revocations:
        held = latest.get(each.tokens)
        if held is None or (held.revoked_at, held.until) < (each.revoked_at, each.until):
            latest[each.tokens] = each
    return {tokens: each for tokens, each in latest.items() if now < each.until}


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
