"""Record ↔ bytes in the shared cache: versioned, sealed, and bound to its issuer. No pickle.

Layout:  KC1 | flags (1) | version (8) | fetched_at in ms (8) | nonce (12) | sealed content
         flags: 1 sealed, 0 unsealed (nonce left out)

The content is JSON. It is sealed with AES-256-GCM (NIST SP 800-38D); the associated data is
everything before the nonce, and the issuer and JWKS URL *that the reader expects*. So whoever can
write to the cache can delete a record, or put an older one back for as long as that is not stale,
but cannot make one, change one, or pass one issuer's keys off as another's.
"""

import json
import struct
from math import isfinite
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keycache.errors import RecordCode, RecordError
from keycache.issuer import KeySource

MAX_BYTES = 4 * 1024 * 1024

_HEAD = struct.Struct(">3sBQQ")
_MAGIC = b"KC1"
_NONCE = 12
_SEALED, _UNSEALED = 1, 0


class Record(NamedTuple):
    """A key set as all workers share it.

    version: see `keycache.interfaces`. fetched_at: seconds since the epoch, to the millisecond.
    ttl: its soft TTL in seconds. document: the JWKS as the issuer sent it. etag, last_modified:
    for revalidation by any host (RFC 9110 section 13.1).
    """

    version: int
    fetched_at: float
    ttl: float
    document: bytes
    etag: str | None
    last_modified: str | None


def seal(record: Record, source: KeySource, keys: tuple[bytes, ...], nonce: bytes) -> bytes:
    """The bytes of a record, sealed with the first of `keys`; unsealed when there is none.

    `nonce`: 12 random bytes, never used twice with one key (SP 800-38D section 8.2.2).
    """
    content = json.dumps(
        {
            "ttl": record.ttl,
            "document": record.document.decode("utf-8"),
            "etag": record.etag,
            "last_modified": record.last_modified,
        }
    ).encode()
    flags = _SEALED if keys else _UNSEALED
    head = _HEAD.pack(_MAGIC, flags, record.version, round(record.fetched_at * 1000))
    if not keys:
        return head + content
    return head + nonce + AESGCM(keys[0]).encrypt(nonce, content, _associated(head, source))


def unseal(data: bytes, source: KeySource, keys: tuple[bytes, ...]) -> Record:
    """The record in these bytes, opened with the current or the previous key.

    Without keys only unsealed records are accepted, and with keys only sealed ones. Raises
    RecordError: `too_large`, `foreign` (not this format), `unsealed`, `no_key`, `seal` (made with
    another key, for another source, or changed), `content`.
    """
    if len(data) > MAX_BYTES:
        raise RecordError(RecordCode.TOO_LARGE, f"longer than {MAX_BYTES} bytes")
    if len(data) < _HEAD.size + 2 or not data.startswith(_MAGIC):
        raise RecordError(RecordCode.FOREIGN, "not a record of this version of sanic-keycache")
    head, body = data[: _HEAD.size], data[_HEAD.size :]
    _, flags, version, fetched_at_ms = _HEAD.unpack(head)
    if flags == _SEALED:
        if not keys:
            raise RecordError(RecordCode.NO_KEY, "sealed, and no seal key is set here")
        body = _open(body, _associated(head, source), keys)
    elif flags == _UNSEALED:
        if keys:
            raise RecordError(RecordCode.UNSEALED, "not sealed, and a seal key is set here")
    else:
        raise RecordError(RecordCode.FOREIGN, "not a record of this version of sanic-keycache")
    try:
        content = json.loads(body)
        ttl, document = float(content["ttl"]), content["document"].encode("utf-8")
        etag, last_modified = content["etag"], content["last_modified"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise RecordError(RecordCode.CONTENT, "its content cannot be read") from None
    # A TTL that is not a number would make the record fresh for ever.
    validators = (etag, last_modified)
    if not isfinite(ttl) or not all(isinstance(value, str | None) for value in validators):
        raise RecordError(RecordCode.CONTENT, "its content is of the wrong types")
    return Record(version, fetched_at_ms / 1000, ttl, document, etag, last_modified)


def _open(body: bytes, associated: bytes, keys: tuple[bytes, ...]) -> bytes:
    for key in keys:
        try:
            return AESGCM(key).decrypt(body[:_NONCE], body[_NONCE:], associated)
        except (InvalidTag, ValueError):
            continue
    raise RecordError(
        RecordCode.SEAL, "sealed with another key, for another issuer, or changed since"
    )


def _associated(head: bytes, source: KeySource) -> bytes:
    location = source.jwks_url or ""
    return head + json.dumps([source.issuer, location]).encode()
