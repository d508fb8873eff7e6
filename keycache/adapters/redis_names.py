"""Every name that sanic-keycache uses in Redis.

The braces are a hash tag: all keys of one source are in one slot of a Redis Cluster, so that one
Lua step may touch them together.
"""

from typing import NamedTuple

from keycache.issuer import KeySource

PREFIX = "keycache"


class Names(NamedTuple):
    """The keys and the channel of one source."""

    record: str  # hash: v (version), d (sealed bytes)
    fence: str  # string: the newest version granted
    lease: str  # string: who fetches now
    backoff: str  # hash: failures, until (ms since the epoch)
    forced: str  # hash: left, at (ms since the epoch): refreshes that strangers can cause
    scheduled: str  # hash: the same, for those that the clock causes
    revoked: str  # hash: v (version), d (sealed list of revocations)
    changed: str  # channel: the version, of record or revocations, that was saved


def names(source: KeySource) -> Names:
    """The names of this source."""
    return Names(*(f"{PREFIX}:{{{source.id}}}:{part}" for part in Names._fields))
