"""Record ↔ bytes in the shared cache: versioned, sealed, and bound to its issuer. No pickle.

Layout (`core.seal`):  KC1 | flag (1) | version (8) | fetched_at in ms (8) | … | content: JSON

Whoever can write to the cache can delete a record, or put an older one back for as long as that is
not stale, but cannot make one, change one, or pass one issuer's keys off as another's.
"""

import json
import struct
from math import isfinite
from typing import NamedTuple

from keycache.core.seal import flagged, opened, sealed
from keycache.errors import RecordCode, RecordError
from keycache.issuer import KeySource

_HEAD = struct.Struct(">4sQQ")
_MAGIC = b"KC1"


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
    head = _HEAD.pack(flagged(_MAGIC, keys), record.version, round(record.fetched_at * 1000))
    return sealed(head, content, source, keys, nonce)


def unseal(data: bytes, source: KeySource, keys: tuple[bytes, ...]) -> Record:
    """The record in these bytes, opened with the current or the previous key.

    Without keys only unsealed records are accepted, and with keys only sealed ones. Raises
    RecordError: `too_large`, `foreign` (not this format), `unsealed`, `no_key`, `seal` (made with
    another key, for another source, or changed), `content`.
    """
    head, body = opened(data, _MAGIC, _HEAD.size, source, keys)
    _, version, fetched_at_ms = _HEAD.unpack(head)
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
