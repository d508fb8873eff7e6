"""What happened, as immutable facts, and Observer, which is told of them.

keycache reports facts and counts nothing itself: metrics, logs and tests are listeners. Every field
that becomes a label is the configured name of an issuer or a member of a closed list; no fact ever
holds a token, a kid or any other text that a sender wrote. One is made for every token that is
presented: a Struct, which costs a quarter of a tuple with names.
"""

from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from keycache.core.keys import SkipReason
from keycache.errors import FetchCode, Reason, RecordCode, StoreCode


class Path(StrEnum):
    """How far a verification had to go."""

    CACHED = "cached"  # the token itself was known
    MEMORY = "memory"  # the key was known
    WAITED = "waited"  # the refresher was asked


class Tier(StrEnum):
    """Which tier answered a look-up."""

    TOKEN_CACHE = "token_cache"
    MEMORY = "memory"
    REDIS = "redis"
    SNAPSHOT = "snapshot"  # the host's own disk, after a start without Redis and issuer
    ISSUER = "issuer"
    NEGATIVE = "negative"


class Cause(StrEnum):
    """Why a refresh was wanted."""

    COLD = "cold"  # this fleet holds no key set
    UNKNOWN_KID = "unknown_kid"  # a token named a kid that nobody knows
    AHEAD = "ahead"  # the key set is near its soft TTL
    EXPIRED = "expired"  # the soft TTL has passed
    OPERATOR = "operator"  # `keycache warm --force`


class Result(StrEnum):
    """How a refresh ended."""

    FETCHED = "fetched"  # the issuer sent a key set
    NOT_MODIFIED = "not_modified"  # the issuer said 304
    SHARED = "shared"  # another worker had already done it
    FAILED = "failed"  # the issuer, or its answer, failed
    HELD = "held"  # another worker is doing it now
    EXHAUSTED = "exhausted"  # the budget is spent
    BACKING_OFF = "backing_off"  # the last attempt failed a moment ago
    SUPERSEDED = "superseded"  # a newer answer arrived first; ours was thrown away


class LeaseOutcome(StrEnum):
    """What the lease said to a worker that wanted to ask the issuer."""

    GRANTED = "granted"
    SHARED = "shared"  # there is something newer to look at
    HELD = "held"
    EXHAUSTED = "exhausted"
    BACKING_OFF = "backing_off"


class Verified(msgspec.Struct, frozen=True, gc=False):
    """A token was accepted. `seconds` is how long the whole verification took; `tier` had the
    token, or its key.
    """

    issuer: str
    path: Path
    seconds: float
    tier: Tier


class Staged(NamedTuple):
    """Where the time of one verification went, in seconds; only some are measured so closely.

    parse: from the text to a token of the right shape; key: until its key was there, waiting
    included; signature: checking it; claims: judging what the token says.
    """

    parse: float
    key: float
    signature: float
    claims: float


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A presented token was refused. `issuer` is None until a configured issuer was recognised,
    `tier` where no tier had a key to refuse the token with, or knew that there is none.
    """

    issuer: str | None
    reason: Reason
    path: Path
    seconds: float
    tier: Tier | None = None


class Unverifiable(msgspec.Struct, frozen=True, gc=False):
    """A token could not be decided about: the keys, or what is revoked, could not be known (503).
    `tier` is None where no tier had the key.
    """

    issuer: str
    path: Path
    seconds: float
    tier: Tier | None = None


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A request was refused, whatever was wrong: with its token, with what that allows, or with the
    request itself. `reason` is None where nobody could know (503).
    """

    reason: Reason | None


class WaitersChanged(NamedTuple):
    """So many requests of this worker wait for the issuer's keys now."""

    issuer: str
    waiters: int


class NegativeKidsChanged(NamedTuple):
    """This worker now remembers so many kids that the issuer does not have."""

    issuer: str
    kids: int


class LeaseAsked(NamedTuple):
    """The right to fetch was asked for. budget_left: the forced refreshes that all workers together
    have left, None where this was not about one or the shared cache does not answer.
    """

    issuer: str
    outcome: LeaseOutcome
    budget_left: float | None


class Refreshed(NamedTuple):
    """A refresh ended without failure. `seconds` is how long it took, 0 where nobody was asked."""

    issuer: str
    cause: Cause
    result: Result
    seconds: float


class RefreshFailed(NamedTuple):
    """The issuer could not be asked, or its answer was not usable; what was held is still held."""

    issuer: str
    cause: Cause
    code: FetchCode
    details: str
    seconds: float


class Fetched(NamedTuple):
    """One HTTP request to the issuer. `status` is the HTTP status, or 0 when there was none."""

    issuer: str
    status: int
    size: int
    seconds: float


class KeySetInstalled(NamedTuple):
    """This worker's memory now holds this key set. Times are seconds since the epoch."""

    issuer: str
    version: int
    keys: int
    skipped: tuple[SkipReason, ...]  # for each key that cannot be used
    fetched_at: float
    fresh_until: float
    stale_until: float
    added: int  # keys that were not in the set before, and
    removed: int  # keys that were, and no longer are


class RecordRefused(NamedTuple):
    """A record in the shared cache was not accepted."""

    issuer: str
    code: RecordCode


class SnapshotFailed(NamedTuple):
    """The snapshot on this host's disk could not be read or written."""

    issuer: str
    details: str


class RevocationsRead(NamedTuple):
    """This worker has read the list of revoked tokens, at `read_at` (seconds since the epoch).

    revoked: how many revocations it knows now; added: how many it did not know before.
    """

    issuer: str
    revoked: int
    added: int
    read_at: float


class StoreAnswered(NamedTuple):
    """The shared cache answered one call, after so many seconds."""

    seconds: float


class StoreFailed(NamedTuple):
    """The shared cache was asked and did not answer, or not as it should."""

    code: StoreCode
    seconds: float


class StoreChanged(NamedTuple):
    """The shared cache became reachable, or stopped being so."""

    up: bool
    details: str


Event = (
    Verified
    | Staged
    | Rejected
    | Unverifiable
    | Refused
    | WaitersChanged
    | NegativeKidsChanged
    | LeaseAsked
    | Refreshed
    | RefreshFailed
    | Fetched
    | KeySetInstalled
    | RecordRefused
    | SnapshotFailed
    | RevocationsRead
    | StoreAnswered
    | StoreFailed
    | StoreChanged
)


class Observer(Protocol):
    """Told of every fact, in the event loop, at once: it must be quick and must not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of one fact."""
        ...


def ignore(event: Event, /) -> None:
    """The Observer of somebody who does not want to know."""
