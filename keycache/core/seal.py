"""Content ↔ sealed bytes: what Redis holds can be read and changed only with the seal key.

Layout:  head | nonce (12) | sealed content
         the head begins with a magic of 3 bytes, which names the kind of content, and the flag:
         1 sealed, 0 unsealed (nonce left out)

AES-256-GCM (NIST SP 800-38D); the associated data is the head, and the issuer and JWKS URL *that
the reader expects*. So whoever can write there can delete what is sealed, or put back what stood
there before, but cannot make it, change it, or pass one kind or one issuer's off as another's.
"""

import json

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keycache.errors import RecordCode, RecordError
from keycache.issuer import KeySource

MAX_BYTES = 4 * 1024 * 1024

_NONCE = 12
_SEALED, _UNSEALED = 1, 0


def flagged(magic: bytes, keys: tuple[bytes, ...]) -> bytes:
    """The magic and the flag with which the head of something sealed with `keys` begins."""
    return magic + bytes([_SEALED if keys else _UNSEALED])


def sealed(
    head: bytes, content: bytes, source: KeySource, keys: tuple[bytes, ...], nonce: bytes
) -> bytes:
    """Head and content, sealed with the first of `keys`; unsealed when there is none.

    `nonce`: 12 random bytes, never used twice with one key (SP 800-38D section 8.2.2).
    """
    if not keys:
        return head + content
    return head + nonce + AESGCM(keys[0]).encrypt(nonce, content, _associated(head, source))


def opened(
    data: bytes, magic: bytes, size: int, source: KeySource, keys: tuple[bytes, ...]
) -> tuple[bytes, bytes]:
    """The head, of `size` bytes, and the content, opened with the current or the previous key.

    Without keys only what is unsealed is accepted, and with keys only what is sealed. Raises
    RecordError: `too_large`, `foreign` (not of this kind), `unsealed`, `no_key`, `seal` (made with
    another key, for another source, or changed).
    """
    if len(data) > MAX_BYTES:
        raise RecordError(RecordCode.TOO_LARGE, f"longer than {MAX_BYTES} bytes")
    head, body = data[:size], data[size:]
    if len(body) < 2 or not head.startswith(magic) or head[len(magic)] not in (_SEALED, _UNSEALED):
        raise RecordError(RecordCode.FOREIGN, "not a record of this version of sanic-keycache")
    if head[len(magic)] == _UNSEALED:
        if keys:
            raise RecordError(RecordCode.UNSEALED, "not sealed, and a seal key is set here")
        return head, body
    if not keys:
        raise RecordError(RecordCode.NO_KEY, "sealed, and no seal key is set here")
    associated = _associated(head, source)
    for key in keys:
        try:
            return head, AESGCM(key).decrypt(body[:_NONCE], body[_NONCE:], associated)
        except (InvalidTag, ValueError):
            continue
    raise RecordError(
        RecordCode.SEAL, "sealed with another key, for another issuer, or changed since"
    )


def _associated(head: bytes, source: KeySource) -> bytes:
    location = source.jwks_url or ""
    return head + json.dumps([source.issuer, location]).encode()
