"""A model of Redis: the same atomic steps, over a network that delays, loses and parts.

The steps themselves are those of `MemoryBackend`, which one contract suite holds equal to the Lua
steps on real servers (tests/keycache/adapters). What this file adds is everything that can go wrong
between a worker and them.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from keycache.adapters.memory_store import MemoryBackend
from keycache.core.budget import Limits
from keycache.errors import StoreError
from keycache.events import Cause
from keycache.interfaces import Grant, Loaded, Refusal
from keycache.issuer import KeySource

T = TypeVar("T")
DEADLINE = 0.75  # what RedisClient allows a call: connect and answer


class ServerClock:
    """The clock of the Redis server, which need not agree with anybody's."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.offset = 0.0

    def now(self) -> float:
        return self._now() + self.offset


class SimRedis:
    """One server, as all workers see it. down, latency, lossy: its faults, settable at any time."""

    def __init__(self, now: Callable[[], float], limits: Limits, lease: float, rng: Random) -> None:
        self.clock = ServerClock(now)
        self.backend = MemoryBackend(self.clock, limits, lease, rng.random)
        self.down = False
        self.latency = 0.001
        self.lossy = 0.0
        self.cut_off: set[str] = set()
        self.overwritten = False  # whether an older record ever replaced a newer one
        self.overlooked = False  # whether a lease was given to somebody who had not looked
        self.saved_at = 0.0  # when a worker saved a record that it had fetched, by the true clock
        self._subscribers: dict[str, tuple[Callable[[], None], asyncio.Event]] = {}
        self._now = now
        self._rng = rng
        self._snapshot = copy.deepcopy(self.backend._sources)

    def now(self) -> float:
        return self._now()

    def reachable(self, worker: str) -> bool:
        return not self.down and worker not in self.cut_off

    def go_down(self) -> None:
        self.down = True
        for worker in list(self._subscribers):
            self.unsubscribe(worker)

    def subscribe(self, worker: str, hear: Callable[[], None]) -> asyncio.Event:
        """Call `hear` at every message; the event is set when the connection is lost."""
        lost = asyncio.Event()
        self._subscribers[worker] = (hear, lost)
        return lost

    def unsubscribe(self, worker: str) -> None:
        if worker in self._subscribers:
            self._subscribers.pop(worker)[1].set()

    def replicate(self) -> None:
        """The replica catches up now."""
        self._snapshot = copy.deepcopy(self.backend._sources)

    def fail_over(self) -> None:
        """The replica takes over: what it had not received is lost."""
        self.backend._sources = copy.deepcopy(self._snapshot)

    def flush(self) -> None:
        self.backend._sources.clear()
        self.replicate()

    def announce(self) -> None:
        """Publish: each subscriber that is reached hears of it a moment later."""
        loop = asyncio.get_running_loop()
        for hear, _ in self._subscribers.values():
            if self._rng.random() >= self.lossy:
                loop.call_later(self.latency, hear)

    def client(self, worker: str) -> "SimClient":
        return SimClient(self, worker)


class SimClient:
    """Implements Store and Lease for one worker, through the network."""

    def __init__(self, redis: SimRedis, worker: str) -> None:
        self._redis = redis
        self._worker = worker

    async def _call(self, step: Callable[[], Awaitable[T]]) -> T:
        redis = self._redis
        await self._travel()
        answer = await step()
        await self._travel()  # the answer may be lost after the step was done
        if not redis.reachable(self._worker):
            raise StoreError("connection lost")
        return answer

    async def _travel(self) -> None:
        if not self._redis.reachable(self._worker):
            await asyncio.sleep(0.01)
            raise StoreError("connection refused")
        if 2 * self._redis.latency > DEADLINE:
            await asyncio.sleep(DEADLINE)
            raise StoreError("time-out")
        await asyncio.sleep(self._redis.latency)

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        return await self._call(lambda: self._redis.backend.load(source, known_version))

    async def save(
        self, source: KeySource, record: bytes, version: int, keep_seconds: float, holder: str
    ) -> bool:
        return await self._call(lambda: self._save(source, record, version, keep_seconds, holder))

    async def _save(
        self, source: KeySource, record: bytes, version: int, keep_seconds: float, holder: str
    ) -> bool:
        backend = self._redis.backend
        before = (await backend.load(source, 0)).version
        kept = await backend.save(source, record, version, keep_seconds, holder)
        if kept:
            self._redis.overwritten |= version < before
            self._redis.saved_at = self._redis.now()
            self._redis.announce()
        return kept

    async def discard(self, source: KeySource, version: int) -> None:
        await self._call(lambda: self._redis.backend.discard(source, version))

    async def acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        return await self._call(lambda: self._acquire(source, cause, floor, seen))

    async def _acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        backend = self._redis.backend
        kept = (await backend.load(source, 0)).version
        grant = await backend.acquire(source, cause, floor, seen)
        self._redis.overlooked |= isinstance(grant, Grant) and kept > seen
        return grant

    async def fail(self, source: KeySource, grant: Grant) -> float:
        return await self._call(lambda: self._redis.backend.fail(source, grant))
