"""The parts of a worker, put together in virtual time over the models of the simulation.

Nothing here moves by itself: a test takes the turns it wants (`Worker.turn`) or starts the
background task (`Worker.start`). Chance is always one half, so there is no jitter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from random import Random
from typing import Any, ParamSpec, TypeVar

from keycache.adapters.memory_store import MemoryBackend
from keycache.authenticator import Authenticator, Trusted
from keycache.cache import Held, KeyCache
from keycache.core.budget import Limits
from keycache.core.freshness import Freshness, Lifetimes, freshness
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record, seal
from keycache.errors import TokenError, UnavailableError
from keycache.events import Event, Tier
from keycache.interfaces import Answer, Fetcher, Lease, Snapshot
from keycache.issuer import Issuer
from keycache.refresher import Policy, Refresher, Turn
from keycache.token_cache import TokenCache
from tests.simulation.issuer import EPOCH, ISSUER, SimIssuer, document_of, token_of
from tests.simulation.loop import run
from tests.simulation.redis import ServerClock, SimRedis

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")

LIFETIMES = Lifetimes()
LIMITS = Limits()
LEASE = 10.0
POLL = 5.0
WAIT = 1.5
NEGATIVE_TTL = 30.0
SEAL_KEY = b"k" * 32


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that runs in virtual time."""

    @wraps(test)
    def in_virtual_time(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return in_virtual_time


def at_once(awaitable: Awaitable[T]) -> T:
    """What this awaitable returns, or raises, without waiting for anything."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        answer: T = done.value
        return answer
    raise AssertionError("it waits")


class Middling(Random):
    """Chance that is always one half."""

    def random(self) -> float:
        return 0.5


def key_set_record(
    *kids: str, version: int = 1, fetched_at: float = EPOCH, ttl: float = 300.0
) -> Record:
    """The record of a set of these kids."""
    return Record(version, fetched_at, ttl, document_of(kids), None, None)


def held(*kids: str, version: int = 1, fetched_at: float = EPOCH) -> Held:
    """A set of these kids, fetched at `fetched_at`: due after 240 s, stale after 300, dead after
    3900.
    """
    record = key_set_record(*kids, version=version, fetched_at=fetched_at)
    moments = freshness(fetched_at, record.ttl, LIFETIMES, 0.0)
    return Held(parse_jwks(record.document, 100), record, moments, Tier.ISSUER)


class Fleet:
    """One issuer, one Redis, and any number of workers. fetches: by whom the issuer was asked."""

    def __init__(self, *, lifetimes: Lifetimes = LIFETIMES) -> None:
        self.lifetimes = lifetimes
        self.fetches: list[str] = []
        self._loop = asyncio.get_running_loop()
        self.issuer = SimIssuer(self.now)
        self.redis = SimRedis(self.now, LIMITS, LEASE, Middling())

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self._loop.time()

    async def until(self, moment: float) -> None:
        """Let time pass to just after this moment."""
        await asyncio.sleep(moment - self.now() + 0.001)

    def worker(self, name: str = "worker", **parts: Any) -> "Worker":  # noqa: ANN401 - see Worker
        """One more worker; `parts` replace those of the ordinary one."""
        return Worker(self, name, **parts)

    @property
    def shared_version(self) -> int:
        """The version in Redis, 0 when there is none."""
        return self.redis.backend._state(ISSUER.source).version

    def put(self, sealed: bytes, version: int) -> None:
        """Write into Redis what stands under this version, as whoever may write there can."""
        state = self.redis.backend._state(ISSUER.source)
        state.version, state.record, state.record_ends = version, sealed, self.now() + 86400

    def put_record(self, record: Record) -> None:
        """Write a record into Redis as another worker would have sealed it."""
        self.put(seal(record, ISSUER.source, (SEAL_KEY,), bytes(12)), record.version)


class Road:
    """Implements Fetcher: the ordinary way from a worker to the issuer."""

    def __init__(self, fleet: Fleet, worker: str) -> None:
        self._fleet = fleet
        self._worker = worker

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        self._fleet.fetches.append(self._worker)
        return await self._fleet.issuer.answer(self._worker, etag)


class Worker:
    """Cache, refresher, token cache and authenticator of one process, and what they reported."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        *,
        fetcher: Fetcher | None = None,
        lease: Lease | None = None,
        snapshot: Snapshot | None = None,
        seal_keys: tuple[bytes, ...] = (SEAL_KEY,),
        max_waiters: int = 64,
        negative_size: int = 256,
        tokens: int = 100,
        clock_offset: float = 0.0,
        chance: float = 0.5,
    ) -> None:
        self.name = name
        self.fleet = fleet
        self.events: list[Event] = []
        self.clock = ServerClock(fleet.now)
        self.clock.offset = clock_offset
        self.tokens = TokenCache(tokens)
        self.cache = KeyCache(
            ISSUER.name,
            self.clock,
            self.events.append,
            wait=WAIT,
            max_waiters=max_waiters,
            negative_ttl=NEGATIVE_TTL,
            negative_size=negative_size,
        )
        self.cache.replaced = lambda key_set: self.tokens.keep_only(self.cache, key_set)
        client = fleet.redis.client(name)
        self.refresher = Refresher(
            ISSUER,
            self.cache,
            store=client,
            lease=lease or client,
            local=MemoryBackend(self.clock, LIMITS, LEASE, lambda: chance),
            fetcher=fetcher or Road(fleet, name),
            clock=self.clock,
            observer=self.events.append,
            policy=Policy(fleet.lifetimes, seal_keys, 100, POLL),
            snapshot=snapshot,
            random=lambda: chance,
            nonce=lambda: bytes(12),
        )
        self.authenticator = Authenticator(
            {ISSUER.issuer: Trusted(ISSUER, self.cache)},
            self.tokens,
            self.clock,
            self.events.append,
            token_bytes=8192,
            kid_chars=128,
        )

    def start(self) -> None:
        """Begin to refresh in the background and to listen to Redis."""
        self.fleet.redis.subscribe(self.name, self.refresher.changed)
        self.running = asyncio.create_task(self.refresher.run())

    async def turn(self, *, force: bool = False) -> Turn:
        return await self.refresher.turn(force=force)

    async def ask(self, kid: str) -> str:
        """What becomes of a token of this kid: "accepted", the reason, or "unavailable"."""
        try:
            await self.authenticator.authenticate(token_of(kid))
        except TokenError as error:
            return error.reason
        except UnavailableError:
            return "unavailable"
        return "accepted"

    @property
    def held(self) -> Held:
        """What is in memory, which must be something."""
        assert self.cache.held is not None
        return self.cache.held

    @property
    def moments(self) -> Freshness:
        """The four moments of the set in memory."""
        return self.held.freshness

    @property
    def kids(self) -> list[str | None]:
        """The kids in memory."""
        return [key.kid for key in self.cache.held.key_set.keys] if self.cache.held else []

    def of(self, kind: type[E]) -> list[E]:
        """The facts of this kind."""
        return [event for event in self.events if isinstance(event, kind)]
