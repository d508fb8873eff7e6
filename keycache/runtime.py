"""Runtime: introduces the parts of one process to each other, opens them and closes them.

The only file that knows the adapters. Everything it makes lives for one event loop, between
`open()` and `close()`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from math import inf
from pathlib import Path
from random import random
from secrets import token_bytes, token_hex
from time import perf_counter
from typing import NamedTuple

from keycache.adapters.clock import SystemClock
from keycache.adapters.file_fetcher import FileFetcher
from keycache.adapters.http_fetcher import HttpFetcher
from keycache.adapters.memory_store import MemoryBackend, MemoryRevocations
from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_events import RedisAnnouncements
from keycache.adapters.redis_lease import RedisLease
from keycache.adapters.redis_revocations import RedisRevocations
from keycache.adapters.redis_store import RedisStore
from keycache.adapters.snapshot_file import SnapshotFiles
from keycache.authenticator import Authenticator, Trusted
from keycache.cache import KeyCache
from keycache.core.budget import Limits
from keycache.core.decision import Age, age
from keycache.core.freshness import Lifetimes, freshness
from keycache.core.jwks import parse_jwks
from keycache.core.keys import SigningKey, SkippedKey
from keycache.core.record import unseal
from keycache.core.revocation import Kind, Revocation
from keycache.errors import ConfigurationError, StoreError, UnavailableError
from keycache.events import Observer, Result, ignore
from keycache.interfaces import Clock, Lease, RevocationStore, Store
from keycache.issuer import Issuer, KeySource
from keycache.refresher import Policy, Refresher
from keycache.revocations import RevocationPolicy, Revocations
from keycache.token_cache import TokenCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this process verifies and shares keys; times in seconds, sizes in bytes.

    redis_url: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. None: the keys
        are shared with nobody (each process fetches its own).
    seal_keys: the 32-byte keys that seal records: the current one first, then the previous.
    allow_unsealed: run with a Redis and no seal key. Who can write there can then mint tokens.
    snapshot: a directory of this host for the last good records, sealed like those in Redis, with
        which a start without Redis and without issuer begins. None: no such directory.
    poll: how often a worker reads the version in Redis, in case a message was lost.
    revocation: refuse tokens that were revoked (`Runtime.revoke`). A token of an issuer whose list
        of them cannot be read is then answered 503, from `lifetimes.stale` after the last reading.
    wait, waiters: how long a request waits for an unknown kid, and how many may wait at once.

    Raises ConfigurationError with every contradiction at once, and its numbers.
    """

    redis_url: str | None = field(default=None, repr=False)  # it may hold a password
    seal_keys: tuple[bytes, ...] = field(default=(), repr=False)
    allow_unsealed: bool = False
    snapshot: Path | None = None
    redis_connect: float = 0.25
    redis_timeout: float = 0.5
    poll: float = 5.0
    lifetimes: Lifetimes = Lifetimes()
    limits: Limits = Limits()
    lease: float = 10.0
    negative_ttl: float = 30.0
    negative_size: int = 256
    wait: float = 1.5
    waiters: int = 64
    fetch_connect: float = 2.0
    fetch_timeout: float = 5.0
    fetch_bytes: int = 524288
    fetch_keys: int = 100
    token_bytes: int = 8192
    kid_chars: int = 128
    token_cache: int = 10000
    revocation: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.lease <= self.fetch_timeout:
            problems.append(
                f"lease: LEASE ({self.lease:g} s) must be longer than FETCH_TIMEOUT"
                f" ({self.fetch_timeout:g} s), or two workers would fetch at once"
            )
        if self.fetch_connect > self.fetch_timeout:
            problems.append(
                f"fetch_connect: FETCH_CONNECT ({self.fetch_connect:g} s) is longer than"
                f" FETCH_TIMEOUT ({self.fetch_timeout:g} s), which holds for the whole request"
            )
        if self.redis_url and not self.seal_keys and not self.allow_unsealed:
            problems.append(
                "seal_keys: a Redis is named and no seal key; whoever can write there could then"
                " mint tokens. Set SEAL_KEYS (`keycache seal-key` prints one), or"
                " ALLOW_UNSEALED=1 if that Redis is as trusted as this process"
            )
        if self.snapshot and not self.seal_keys and not self.allow_unsealed:
            problems.append(
                "snapshot: what is kept on disk is sealed, and no seal key is set; set SEAL_KEYS"
                " (`keycache seal-key` prints one)"
            )
        if any(len(key) != 32 for key in self.seal_keys) or len(self.seal_keys) > 2:
            problems.append("seal_keys: one or two keys (current, previous) of 32 bytes each")
        for least, names in _LEAST.items():
            for name in names:
                value = getattr(self, name)
                if not least <= value < inf:  # not a number lies nowhere
                    problems.append(f"{name}: {value:g} is not a finite number >= {least:g}")
        if problems:
            raise ConfigurationError(problems)


CANCEL_AGAIN = 1.0
"""Seconds after which a task that was cancelled, and goes on, is cancelled again."""

_LEAST = {
    0: ("token_cache", "negative_size", "negative_ttl"),
    0.001: (
        *("redis_connect", "redis_timeout", "poll", "wait"),
        *("fetch_connect", "fetch_timeout", "lease"),
    ),
    1: ("fetch_bytes", "fetch_keys", "token_bytes", "kid_chars", "waiters"),
}


class IssuerHealth(NamedTuple):
    """How this worker stands with one issuer. fetched_at: seconds since the epoch.
    revocations_known: whether it is known which tokens are revoked; True where nobody asks.
    """

    name: str
    age: Age
    keys: int
    version: int
    fetched_at: float | None
    revocations_known: bool = True


class Warmed(NamedTuple):
    """What `Runtime.warm` did. seconds: how long it took."""

    name: str
    result: Result
    keys: int
    version: int
    seconds: float


class Inspection(NamedTuple):
    """What the shared cache holds of one issuer. Times are seconds since the epoch."""

    name: str
    age: Age
    version: int
    fetched_at: float
    fresh_until: float
    stale_until: float
    keys: tuple[SigningKey, ...]
    skipped: tuple[SkippedKey, ...]


class Runtime:
    """All that one process needs to verify tokens of these issuers.

    clock: another one than the host's, for tests. Raises ConfigurationError for two issuers of one
    name or one `iss`, and for a Redis URL and files with certificates that cannot be used.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        options: Options,
        observer: Observer = ignore,
        clock: Clock | None = None,
    ) -> None:
        check_distinct(issuers)
        self._options = options
        self._clock = clock or SystemClock()
        self._redis: RedisClient | None = None
        local = MemoryBackend(self._clock, options.limits, options.lease, random)
        self._store: Store = local
        lease: Lease = local
        if options.redis_url:
            self._redis = RedisClient(
                options.redis_url, options.redis_connect, options.redis_timeout, observer
            )
            self._store = RedisStore(self._redis)
            lease = RedisLease(
                self._redis, options.limits, options.lease, random, lambda: token_hex(16)
            )
        self._fetcher = HttpFetcher(
            options.fetch_connect, options.fetch_timeout, options.fetch_bytes, observer
        )
        self._fetcher.prepare(issuers)
        file_fetcher = FileFetcher(options.fetch_timeout, options.fetch_bytes)
        self._caches: dict[str, KeyCache] = {}
        self._refreshers: dict[str, Refresher] = {}
        self._revocations: dict[str, Revocations] = {}
        tokens = TokenCache(options.token_cache)
        policy = Policy(options.lifetimes, options.seal_keys, options.fetch_keys, options.poll)
        for issuer in issuers:
            cache = self._cache(issuer, observer, tokens)
            self._caches[issuer.name] = cache
            self._refreshers[issuer.name] = Refresher(
                issuer,
                cache,
                store=self._store,
                lease=lease,
                local=local,
                fetcher=file_fetcher if issuer.jwks_file else self._fetcher,
                clock=self._clock,
                observer=observer,
                policy=policy,
                snapshot=SnapshotFiles(options.snapshot) if options.snapshot else None,
                random=random,
                nonce=lambda: token_bytes(12),
            )
            if options.revocation:
                self._revocations[issuer.name] = self._revocations_of(issuer, observer)
                self._revocations[issuer.name].forget = partial(tokens.forget, cache)
        self.issuers = tuple(issuers)
        self.authenticator = Authenticator(
            {
                issuer.issuer: Trusted(
                    issuer, self._caches[issuer.name], self._revocations.get(issuer.name)
                )
                for issuer in issuers
            },
            tokens,
            self._clock,
            observer,
            token_bytes=options.token_bytes,
            kid_chars=options.kid_chars,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start the background tasks. Waits for no keys: the first request may come at once. Waits
        for one answer of Redis, or its time-out, where it must be known what is revoked.
        """
        await asyncio.gather(*(revocations.turn() for revocations in self._revocations.values()))
        for name, refresher in self._refreshers.items():
            self._tasks.append(asyncio.create_task(refresher.run(), name=f"refresh {name}"))
        for name, revocations in self._revocations.items():
            self._tasks.append(asyncio.create_task(revocations.run(), name=f"revocations {name}"))
        if self._redis is not None:
            names = {issuer.source: issuer.name for issuer in self.issuers}
            listening = RedisAnnouncements(self._redis).listen(
                tuple(names), lambda source: self._changed(names[source])
            )
            self._tasks.append(asyncio.create_task(listening, name="announcements"))

    def _changed(self, name: str) -> None:
        """The shared cache holds something new of this issuer."""
        self._refreshers[name].changed()
        if name in self._revocations:
            self._revocations[name].changed()

    async def close(self) -> None:
        """Finish the turns in progress, for as long as a fetch may take; then close everything."""
        for refresher in self._refreshers.values():
            refresher.stop()
        refreshing = self._tasks[: len(self._refreshers)]
        if refreshing:
            await asyncio.wait(refreshing, timeout=self._options.fetch_timeout)
        await end(self._tasks)
        self._tasks.clear()
        await self._fetcher.aclose()
        if self._redis is not None:
            await self._redis.aclose()

    @property
    def store_up(self) -> bool:
        """Whether the shared cache answered when it was asked last; True when there is none."""
        return self._redis is None or self._redis.up

    def health(self) -> list[IssuerHealth]:
        """How this worker stands with each issuer."""
        now = self._clock.now()
        return [
            IssuerHealth(
                name,
                cache.age(now),
                len(cache.held.key_set.keys) if cache.held else 0,
                cache.version,
                cache.held.freshness.fetched_at if cache.held else None,
                name not in self._revocations or self._revocations[name].is_known(now),
            )
            for name, cache in self._caches.items()
        ]

    async def warm(self, issuer: Issuer, *, force: bool = False) -> Warmed:
        """Make sure that the shared cache holds fresh keys of this issuer, as a worker would.

        With `force` the issuer is asked even so. Waits while another worker fetches. For a runtime
        that is not open. Raises JWKSError, StoreError, or UnavailableError when the budget is
        spent; cancel it to bound the time.
        """
        started = perf_counter()
        refresher, cache = self._refreshers[issuer.name], self._caches[issuer.name]
        seen: int | None = None
        while True:
            turn = await refresher.turn(force=force)
            if turn.store_failure is not None:
                raise turn.store_failure
            if turn.failure is not None:
                raise turn.failure
            if seen is None:
                seen = cache.version
            fetched = turn.result in (Result.FETCHED, Result.NOT_MODIFIED)
            if fetched or (cache.version > seen if force else turn.result in (Result.SHARED, None)):
                held = cache.held
                return Warmed(
                    issuer.name,
                    turn.result or Result.SHARED,
                    len(held.key_set.keys) if held else 0,
                    cache.version,
                    perf_counter() - started,
                )
            if turn.result in (Result.EXHAUSTED, Result.BACKING_OFF):
                raise UnavailableError(
                    f"the fleet may not ask this issuer now ({turn.result})",
                    retry_after=turn.seconds,
                )
            await asyncio.sleep(turn.seconds)

    async def inspect(self, issuer: Issuer) -> Inspection | None:
        """What the shared cache holds of this issuer; None for nothing. Raises StoreError,
        RecordError, JWKSError.
        """
        loaded = await self._store.load(issuer.source, 0)
        if loaded.record is None:
            return None
        record = unseal(loaded.record, issuer.source, self._options.seal_keys)
        key_set = parse_jwks(record.document, self._options.fetch_keys)
        moments = freshness(record.fetched_at, record.ttl, self._options.lifetimes, 0.0)
        return Inspection(
            name=issuer.name,
            age=age(moments, self._clock.now()),
            version=record.version,
            fetched_at=moments.fetched_at,
            fresh_until=moments.fresh_until,
            stale_until=moments.stale_until,
            keys=key_set.keys,
            skipped=key_set.skipped,
        )

    async def revoke(
        self,
        issuer: Issuer,
        kind: Kind,
        identifier: str,
        *,
        before: float | None = None,
        seconds: float | None = None,
    ) -> Revocation:
        """Refuse tokens of this issuer, from now on, in every process that shares this Redis.

        By JTI the one token with this `jti`; by SUB all of this `sub` that were issued until
        `before` (seconds since the epoch; None: now). seconds: how long a token lives (None: the
        issuer's `max_lifetime`, or a day); after that the revocation is forgotten. Raises
        ConfigurationError when `Options.revocation` is off; StoreError; RecordError when what Redis
        holds was sealed by somebody else; UnavailableError when too much is revoked already.
        """
        revocations = self._revocations_on(issuer)
        return await revocations.revoke(kind, identifier, before=before, seconds=seconds)

    async def revoked(self, issuer: Issuer) -> list[Revocation]:
        """What is revoked of this issuer, the latest first. Raises as `revoke` does."""
        return await self._revocations_on(issuer).in_force()

    def _revocations_on(self, issuer: Issuer) -> Revocations:
        if issuer.name not in self._revocations:
            raise ConfigurationError(
                ["revocation: it is off, and nobody would look; Options.revocation turns it on"]
            )
        return self._revocations[issuer.name]

    def _revocations_of(self, issuer: Issuer, observer: Observer) -> Revocations:
        options = self._options
        store: RevocationStore = MemoryRevocations(self._clock)
        if self._redis is not None:
            store = RedisRevocations(self._redis)
        return Revocations(
            issuer,
            store=store,
            clock=self._clock,
            observer=observer,
            policy=RevocationPolicy(options.seal_keys, options.poll, options.lifetimes.stale),
            nonce=lambda: token_bytes(12),
        )

    def _cache(self, issuer: Issuer, observer: Observer, tokens: TokenCache) -> KeyCache:
        options = self._options
        cache = KeyCache(
            issuer.name,
            self._clock,
            observer,
            wait=options.wait,
            max_waiters=options.waiters,
            negative_ttl=options.negative_ttl,
            negative_size=options.negative_size,
        )
        cache.replaced = partial(tokens.keep_only, cache)
        return cache


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    One cancellation is not always enough: `asyncio.wait_for`, with which redis-py sends, loses it
    before Python 3.12 when what it waits for ends at the same moment (python/cpython#86296).
    """
    tasks = list(tasks)
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)


class Probe(NamedTuple):
    """What an issuer answered. date_offset: its clock less ours, in seconds.

    jwks_url: where its keys are; the path of a file, if they are in one.
    """

    jwks_url: str
    keys: tuple[SigningKey, ...]
    skipped: tuple[SkippedKey, ...]
    seconds: float
    date_offset: float | None


async def probe(issuer: Issuer, options: Options) -> Probe:
    """Ask the issuer once, outside of every cache and budget. Raises JWKSError."""
    fetcher = HttpFetcher(options.fetch_connect, options.fetch_timeout, options.fetch_bytes, ignore)
    file_fetcher = FileFetcher(options.fetch_timeout, options.fetch_bytes)
    try:
        started = perf_counter()
        answer = await (file_fetcher if issuer.jwks_file else fetcher).fetch(issuer, None, None)
        seconds = perf_counter() - started
        key_set = parse_jwks(answer.document or b"", options.fetch_keys)
        offset = None
        if answer.date:
            with suppress(ValueError, TypeError):
                # A Date has whole seconds: on average it lies half a second back.
                dated = parsedate_to_datetime(answer.date).timestamp() + 0.5
                offset = dated - (SystemClock().now() - seconds / 2)
        url = issuer.jwks_file or await fetcher.jwks_url(issuer)
        return Probe(url, key_set.keys, key_set.skipped, seconds, offset)
    finally:
        await fetcher.aclose()


class StoreProbe(NamedTuple):
    """What the shared cache answered. seconds: one round trip; server: product and version."""

    seconds: float
    server: str
    writable: bool


async def probe_store(options: Options) -> StoreProbe:
    """Ask the Redis of these options once, with a write that vanishes. Raises StoreError."""
    client = RedisClient(
        options.redis_url or "", options.redis_connect, options.redis_timeout, ignore
    )
    try:
        source = KeySource(f"probe {token_hex(8)}", None)
        store = RedisStore(client)
        await store.load(source, 0)
        started = perf_counter()
        await store.load(source, 0)
        seconds = perf_counter() - started
        server = await client.server()
        try:
            writable = await store.save(source, b"probe", 1, 1.0, "")
            await store.discard(source, 1)
        except StoreError:
            writable = False
        return StoreProbe(seconds, server, writable)
    finally:
        await client.aclose()


def check_distinct(issuers: Sequence[Issuer]) -> None:
    """Raise ConfigurationError for no issuer, and for two of one name or one `iss`."""
    problems = [] if issuers else ["issuer: name at least one"]
    for what, values in (
        ("issuer", [issuer.issuer for issuer in issuers]),
        ("name", [issuer.name for issuer in issuers]),
    ):
        twice = sorted(value for value, times in Counter(values).items() if times > 1)
        problems += [f"{what}: {value!r} is configured twice" for value in twice]
    if problems:
        raise ConfigurationError(problems)
