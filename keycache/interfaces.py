"""What keycache needs from the outside: Protocols of one to three methods, and their values.

A *version* is the number of a key set in the shared cache. It is the time of the lease grant in
milliseconds by the clock of the shared cache, and always larger than every version before it; so it
orders answers (the older one loses) and dates them (an answer with a version later than a question
was fetched after that question was asked), without trusting the clock of any host.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from keycache.events import Cause, Result
from keycache.issuer import Issuer, KeySource


class Loaded(NamedTuple):
    """What the shared cache holds. `record` is None when the caller knows `version`, or it is 0."""

    version: int
    record: bytes | None
    now_ms: int


class Store(Protocol):
    """Keeps sealed records; the newest version wins. Raises StoreError when it cannot answer."""

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """The record of this source, left out when its version is `known_version`."""
        ...

    async def save(
        self, source: KeySource, record: bytes, version: int, keep_seconds: float, holder: str
    ) -> bool:
        """Keep this record unless a newer version or lease exists; say whether it was kept.

        A kept record ends `holder`'s lease and the failure count, and wakes every worker.
        """
        ...

    async def discard(self, source: KeySource, version: int) -> None:
        """Remove the record of exactly this version: it was refused."""
        ...


class RevocationStore(Protocol):
    """Keeps the sealed list of revoked tokens. Raises StoreError when it cannot answer."""

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """The list of this source, left out when its version is `known_version`; 0: none."""
        ...

    async def save(
        self, source: KeySource, sealed: bytes, version: int, keep_seconds: float, seen: int
    ) -> bool:
        """Keep this list instead of the one of version `seen`; say whether that was still there.

        A kept list wakes every worker.
        """
        ...


class Snapshot(Protocol):
    """Keeps the last good record of a source across restarts of this host. Raises OSError."""

    async def load(self, source: KeySource) -> bytes | None:
        """The sealed record that was kept last, None when there is none."""
        ...

    async def save(self, source: KeySource, record: bytes) -> None:
        """Keep this record instead of the one before."""
        ...


class Grant(NamedTuple):
    """This worker may fetch. `version` is the fence: what it saves must carry it. `left`: what is
    left of the budget that was asked, None when nothing was to be paid.
    """

    version: int
    holder: str
    left: float | None = None


class Refusal(NamedTuple):
    """Not now. `why` is SHARED, HELD, EXHAUSTED or BACKING_OFF; `seconds` until it may be tried.
    `left`: what is left of a budget that is exhausted, less than 1.
    """

    why: Result
    seconds: float
    left: float | None = None


class Lease(Protocol):
    """Lets one worker of the fleet fetch. Raises StoreError when it cannot answer."""

    async def acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        """Ask to fetch; a forced refresh is paid for here, before the attempt.

        The grant's version is larger than `floor`, and than every version granted before. Where a
        newer version is kept than `seen`, which the caller saw when it looked, the answer is a
        refusal with SHARED: look again, there is nothing to fetch or to pay for.
        """
        ...

    async def fail(self, source: KeySource, grant: Grant) -> float:
        """Give the lease back after a failure; returns the seconds nobody should try for."""
        ...


class Announcements(Protocol):
    """Tells this worker, soon and without a promise, that a source has a new version."""

    async def listen(
        self, sources: tuple[KeySource, ...], changed: Callable[[KeySource], None]
    ) -> None:
        """Run until cancelled; after every (re)connection every source is reported as changed."""
        ...


class Answer(NamedTuple):
    """The issuer's answer, its header fields as they came. `document` is None for 304."""

    document: bytes | None
    cache_control: str | None
    age: str | None
    etag: str | None
    last_modified: str | None
    date: str | None


class Fetcher(Protocol):
    """Asks the issuer for its key set, once. Raises JWKSError."""

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        """One conditional GET within one deadline (RFC 9110 section 13)."""
        ...


class Clock(Protocol):
    """The time of day."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...
