"""MemoryBackend, MemoryRevocations: what Redis would hold, for a process that shares with nobody.

Used where no Redis is named, and as the local budget while Redis does not answer. The same rules as
the Lua steps beside this file; one suite of tests runs over both.
"""

from collections.abc import Callable

from keycache.core.budget import Bucket, Limits, pause, take
from keycache.events import Cause, Result
from keycache.interfaces import Clock, Grant, Loaded, Refusal
from keycache.issuer import KeySource


class MemoryBackend:
    """Implements `Store` and `Lease` in this process. lease: seconds; random: uniform in 0 … 1."""

    def __init__(
        self, clock: Clock, limits: Limits, lease: float, random: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._lease = lease
        self._random = random
        self._sources: dict[str, _State] = {}

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """See `Store.load`."""
        state = self._state(source)
        now = self._clock.now()
        if now >= state.record_ends:
            state.version, state.record = 0, None
        same = state.version in (0, known_version)
        return Loaded(state.version, None if same else state.record, _ms(now))

    async def save(
        self, source: KeySource, record: bytes, version: int, keep_seconds: float, holder: str
    ) -> bool:
        """See `Store.save`."""
        state = self._state(source)
        if version < state.fence or version <= state.version:
            return False
        state.version, state.record = version, record
        state.record_ends = self._clock.now() + keep_seconds
        if holder and holder == state.holder:
            state.holder = ""
            state.failures, state.backoff_ends = 0, 0.0
        return True

    async def discard(self, source: KeySource, version: int) -> None:
        """See `Store.discard`."""
        state = self._state(source)
        if state.version == version:
            state.version, state.record = 0, None

    async def acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        """See `Lease.acquire`."""
        state = self._state(source)
        now = self._clock.now()
        if state.version > seen:
            return Refusal(Result.SHARED, 0.0)
        if state.holder and now < state.lease_ends:
            return Refusal(Result.HELD, state.lease_ends - now)
        left = None
        if cause is not Cause.OPERATOR:
            if now < state.backoff_ends:
                return Refusal(Result.BACKING_OFF, state.backoff_ends - now)
            forced = cause is Cause.UNKNOWN_KID
            state.buckets[forced], wait = take(state.buckets.get(forced), now, self._limits)
            left = state.buckets[forced].left
            if wait:
                return Refusal(Result.EXHAUSTED, wait, left)
        state.fence = max(state.fence + 1, floor + 1, _ms(now))
        state.holder, state.lease_ends = str(state.fence), now + self._lease
        return Grant(state.fence, state.holder, left)

    async def fail(self, source: KeySource, grant: Grant) -> float:
        """See `Lease.fail`."""
        state = self._state(source)
        if state.holder == grant.holder:
            state.holder = ""
        state.failures += 1
        seconds = pause(state.failures, self._random(), self._limits)
        state.backoff_ends = self._clock.now() + seconds
        return seconds

    def _state(self, source: KeySource) -> "_State":
        return self._sources.setdefault(source.id, _State())


class MemoryRevocations:
    """Implements `RevocationStore` in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lists: dict[str, tuple[int, bytes, float]] = {}  # version, sealed, until when

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """See `RevocationStore.load`."""
        now = self._clock.now()
        version, sealed, ends = self._lists.get(source.id, (0, b"", 0.0))
        if now >= ends:
            version = 0
        return Loaded(version, None if version in (0, known_version) else sealed, _ms(now))

    async def save(
        self, source: KeySource, sealed: bytes, version: int, keep_seconds: float, seen: int
    ) -> bool:
        """See `RevocationStore.save`."""
        held = await self.load(source, seen)
        if held.version != seen:
            return False
        self._lists[source.id] = (version, sealed, self._clock.now() + keep_seconds)
        return True


class _State:
    """What Redis would hold of one source."""

    def __init__(self) -> None:
        self.version = 0
        self.record: bytes | None = None
        self.record_ends = 0.0
        self.fence = 0
        self.holder = ""
        self.lease_ends = 0.0
        self.failures = 0
        self.backoff_ends = 0.0
        self.buckets: dict[bool, Bucket] = {}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
