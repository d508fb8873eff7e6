"""Refresher: the only write path of an issuer's keys. Unknown kid, early, warm: all end here.

One task in every worker does a *turn* whenever its timer, a waiting request or a message says so:

    load     what does the shared cache hold? A newer version is adopted: often that was all.
    need     is there still a reason to ask the issuer? (`_need`)
    acquire  the lease lets one worker of the fleet go on, within the budget, after the backoff.
    fetch    one conditional GET, one deadline.
    save     only if nothing newer was saved meanwhile: the slower, older answer loses.
    install  into this worker's memory; the others hear of the new version and load it.

A failure anywhere changes when to try again, and never the keys. When the shared cache does not
answer twice in a row, or while somebody waits, the turn goes on with this process's own lease and
budget. What it fetches then is *provisional*: good keys, but with no version that others could
compare, since no two hosts have the same clock. It is never shared. As soon as the shared cache
answers again, an answer that was fetched later, by whichever worker, takes its place.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from keycache.cache import Held, KeyCache
from keycache.core.decision import MAX_SKEW, Age, age
from keycache.core.freshness import Lifetimes, freshness, soft_ttl
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record, seal, unseal
from keycache.errors import FetchCode, JWKSError, RecordCode, RecordError, StoreError
from keycache.events import (
    Cause,
    KeySetInstalled,
    LeaseAsked,
    LeaseOutcome,
    Observer,
    RecordRefused,
    Refreshed,
    RefreshFailed,
    Result,
    SnapshotFailed,
    Tier,
)
from keycache.interfaces import Answer, Clock, Fetcher, Grant, Lease, Refusal, Snapshot, Store
from keycache.issuer import Issuer

_CANNOT_KNOW = "The issuer's keys cannot be asked for at the moment."

AT_ONCE = 0.01
"""Seconds until the next turn when there is something newer to look at; never none at all."""

PATIENCE = 0.6
"""Seconds until a store that failed once is asked again: a little more than its client's pause."""

WHILE_HELD = 0.1
"""Seconds between looks while another worker fetches what somebody here waits for: the message that
it is done comes sooner; this is for when it is lost.
"""


class Turn(NamedTuple):
    """What a turn did. result: None for nothing to do. seconds: until the next turn is due."""

    result: Result | None
    seconds: float
    failure: JWKSError | None = None
    store_failure: StoreError | None = None


class Policy(NamedTuple):
    """The numbers and secrets of a refresher. poll: seconds between looks at the shared version."""

    lifetimes: Lifetimes
    seal_keys: tuple[bytes, ...]
    max_keys: int
    poll: float


class Refresher:
    """Keeps one KeyCache filled.

    store, lease: the fleet's. local: this process's own lease, for when those do not answer.
    snapshot: what this host remembers across restarts, if anything.
    random: uniform in 0 … 1. nonce: 12 random bytes, new ones at each call.
    """

    def __init__(  # noqa: PLR0913 - the composition root names each part once
        self,
        issuer: Issuer,
        cache: KeyCache,
        *,
        store: Store,
        lease: Lease,
        local: Lease,
        fetcher: Fetcher,
        clock: Clock,
        observer: Observer,
        policy: Policy,
        snapshot: Snapshot | None = None,
        random: Callable[[], float],
        nonce: Callable[[], bytes],
    ) -> None:
        self._issuer = issuer
        self._source = issuer.source
        self._cache = cache
        self._store = store
        self._lease = lease
        self._local = local
        self._fetcher = fetcher
        self._clock = clock
        self._observer = observer
        self._policy = policy
        self._snapshot = snapshot
        self._recalled = snapshot is None
        self._random = random
        self._nonce = nonce
        self._wake = asyncio.Event()
        self._stopping = False
        self._restore_from = 0.0
        self._seen = 0  # the version in the store when we looked last
        self._stored = 0  # the newest version that we know to have been in the store
        self._in_touch = False  # whether the store answered when it was asked last
        self._store_failures = 0  # in a row
        self._fetched_alone = 0.0  # when the provisional set was fetched, by the loop's clock
        cache.wanted = self._wake.set

    def changed(self) -> None:
        """The shared cache may hold a newer version: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Take turns until `stop`. A turn begun is finished: the fetch outlives the waiter."""
        while not self._stopping:
            self._wake.clear()
            started = perf_counter()
            try:
                turn = await self.turn()
            except Exception as error:  # noqa: BLE001 - a bug here must not end all refreshing
                details = f"bug: {type(error).__name__}: {error}"[:200]
                self._report_failure(Cause.AHEAD, FetchCode.INTERNAL, details, started)
                turn = Turn(Result.FAILED, self._policy.poll)
            try:
                async with asyncio.timeout(turn.seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Let `run` end after the turn in progress."""
        self._stopping = True
        self._wake.set()

    async def turn(self, *, force: bool = False) -> Turn:
        """One turn; with `force` the issuer is asked even if nothing needs it."""
        adopted = False
        self._cache.forget_expired()
        try:
            adopted = await self._look()
            turn = await self._ask(self._lease, force=force)
        except StoreError as error:
            self._in_touch = False
            self._store_failures += 1
            if self._store_failures == 1 and not self._cache.waiting:
                # One slow answer, on a busy machine or in a fail-over, is no reason for every
                # worker of the fleet to ask the issuer by itself.
                return Turn(None, PATIENCE, store_failure=error)
            turn = await self._ask(self._local, force=force)
            turn = turn._replace(store_failure=error)
        if turn.result is None and adopted:
            return turn._replace(result=Result.SHARED)
        return turn

    # -- look ------------------------------------------------------------------------------------

    async def _look(self) -> bool:
        """Adopt what the store holds, if it is newer; fill it, if it holds less than we do."""
        questions = self._cache.undated()
        loaded = await self._store.load(self._source, self._cache.version)
        questions.date(loaded.now_ms)
        self._in_touch, self._store_failures = True, 0
        self._seen = loaded.version
        if self._provisional:
            # When ours was fetched, by the shared clock: only time that has passed here is counted.
            elapsed = asyncio.get_running_loop().time() - self._fetched_alone
            if loaded.version < loaded.now_ms - 1000 * elapsed:
                return False
        if loaded.record is not None:
            return await self._adopt(loaded.record, loaded.version)
        if loaded.version == 0:
            await self._restore()
        return False

    @property
    def _provisional(self) -> bool:
        return self._cache.held is not None and self._cache.held.provisional

    async def _adopt(self, sealed: bytes, version: int) -> bool:
        try:
            held = self._unsealed(sealed, version)
        except RecordError as error:
            self._observer(RecordRefused(self._issuer.name, error.code))
            if self._clock.now() >= self._restore_from:
                await self._store.discard(self._source, version)
                await self._restore()
            return False
        if version < self._cache.version:  # our own could not be saved when it was fetched
            await self._restore()
            return False
        self._stored = max(self._stored, version)
        if age(held.freshness, self._clock.now()) is Age.DEAD or not self._install(held):
            return False
        await self._keep(held.record)
        return True

    def _unsealed(self, sealed: bytes, version: int) -> Held:
        record = unseal(sealed, self._source, self._policy.seal_keys)
        if record.version != version:
            raise RecordError(RecordCode.VERSION, "its version is not the one it is kept under")
        if record.version < self._stored:
            raise RecordError(RecordCode.ROLLED_BACK, "older than what this worker has seen there")
        return self._believable(record, Tier.REDIS)

    def _believable(self, record: Record, tier: Tier) -> Held:
        if record.fetched_at > self._clock.now() + MAX_SKEW:
            raise RecordError(
                RecordCode.FUTURE, "from a host whose clock is more than a minute ahead"
            )
        try:
            return self._hold(record, tier)
        except JWKSError as error:
            raise RecordError(RecordCode.CONTENT, str(error)) from error

    async def _restore(self) -> None:
        """Fill an empty or cleaned store from memory, without asking the issuer.

        At most once per poll: two hosts with different seal keys would otherwise replace each
        other's records for ever.
        """
        now = self._clock.now()
        held = self._cache.held
        if held is None or now < self._restore_from or age(held.freshness, now) is Age.DEAD:
            return
        self._restore_from = now + self._policy.poll
        await self._save(held.record, holder="")

    # -- ask -------------------------------------------------------------------------------------

    async def _ask(self, lease: Lease, *, force: bool) -> Turn:
        """Ask the issuer, if there is a reason to and the lease allows it."""
        cause = self._need(force=force)
        if cause is Cause.COLD and not self._recalled:
            await self._recall()
            cause = self._need(force=force)
        if cause is None:
            return Turn(None, self._until_due())
        questions = self._cache.unanswered()
        grant = await lease.acquire(self._source, cause, self._cache.version, self._seen)
        self._report_lease(cause, grant, shared=lease is self._lease)
        if isinstance(grant, Refusal):
            return self._refused(cause, grant)
        if lease is not self._lease:
            grant = grant._replace(version=self._cache.version + 1)
            self._fetched_alone = asyncio.get_running_loop().time()
        questions.date(grant.version)
        return await self._fetch(lease, cause, grant)

    def _need(self, *, force: bool) -> Cause | None:
        """Why the issuer should be asked now, if it should."""
        if force:
            return Cause.OPERATOR
        match self._cache.age(self._clock.now()):
            case Age.ABSENT | Age.DEAD:
                return Cause.COLD
            case Age.STALE:
                return Cause.EXPIRED
            case Age.DUE:
                return Cause.AHEAD if not self._cache.waiting else Cause.UNKNOWN_KID
            case Age.FRESH if self._cache.waiting:
                return Cause.UNKNOWN_KID
            case Age.FRESH:
                return Cause.AHEAD if self._provisional and self._in_touch else None

    def _until_due(self) -> float:
        """Seconds until the next look: the poll, or sooner when the keys become due."""
        if self._cache.held is None:
            return self._policy.poll
        due = self._cache.held.freshness.refresh_from - self._clock.now()
        return min(max(due, WHILE_HELD), self._policy.poll)

    def _refused(self, cause: Cause, refusal: Refusal) -> Turn:
        result = refusal.why
        if result is Result.SHARED:
            return Turn(None, AT_ONCE)
        self._observer(Refreshed(self._issuer.name, cause, result, 0.0))
        if result is Result.HELD:
            urgent = self._cache.waiting or cause is Cause.COLD
            seconds = WHILE_HELD if urgent else min(self._policy.poll, refusal.seconds)
            return Turn(result, seconds)
        if cause is not Cause.AHEAD or result is Result.BACKING_OFF:
            self._cache.give_up(_CANNOT_KNOW, refusal.seconds)
        return Turn(result, min(self._policy.poll, refusal.seconds))

    async def _fetch(self, lease: Lease, cause: Cause, grant: Grant) -> Turn:
        started = perf_counter()
        fetched_at = self._clock.now()
        held = self._cache.held.record if self._cache.held else None
        try:
            answer = await self._fetcher.fetch(
                self._issuer, held.etag if held else None, held.last_modified if held else None
            )
            record = self._record(answer, held, grant, fetched_at)
            fresh = self._hold(record, Tier.ISSUER)._replace(provisional=lease is not self._lease)
        except JWKSError as error:
            self._report_failure(cause, error.code, error.details, started)
            return await self._failed(lease, grant, error)
        kept, store_failure = True, None
        if not fresh.provisional:
            try:
                kept = await self._save(record, holder=grant.holder)
            except StoreError as error:
                store_failure = error  # ours is still the newest that we know of
        if not kept:
            self._report(cause, Result.SUPERSEDED, started)
            return Turn(Result.SUPERSEDED, AT_ONCE)
        self._install(fresh)
        await self._keep(record)
        result = Result.NOT_MODIFIED if answer.document is None else Result.FETCHED
        self._report(cause, result, started)
        return Turn(result, self._until_due(), store_failure=store_failure)

    def _report_lease(self, cause: Cause, grant: Grant | Refusal, *, shared: bool) -> None:
        outcome = LeaseOutcome(grant.why if isinstance(grant, Refusal) else "granted")
        forced = cause is Cause.UNKNOWN_KID and shared
        left = grant.left if forced else None
        self._observer(LeaseAsked(self._issuer.name, outcome, left))

    def _report(self, cause: Cause, result: Result, started: float) -> None:
        seconds = perf_counter() - started
        self._observer(Refreshed(self._issuer.name, cause, result, seconds))

    def _report_failure(self, cause: Cause, code: FetchCode, details: str, started: float) -> None:
        seconds = perf_counter() - started
        self._observer(RefreshFailed(self._issuer.name, cause, code, details, seconds))

    async def _failed(self, lease: Lease, grant: Grant, error: JWKSError) -> Turn:
        try:
            pause = await lease.fail(self._source, grant)
        except StoreError:
            pause = await self._local.fail(self._source, grant)
        self._cache.give_up(_CANNOT_KNOW, pause)
        seconds = min(max(pause, WHILE_HELD), self._policy.poll)
        return Turn(Result.FAILED, seconds, failure=error)

    def _record(
        self, answer: Answer, held: Record | None, grant: Grant, fetched_at: float
    ) -> Record:
        if answer.document is not None:
            document, etag, last_modified = answer.document, answer.etag, answer.last_modified
        elif held is not None:
            document = held.document
            etag, last_modified = answer.etag or held.etag, held.last_modified
        else:
            raise JWKSError(FetchCode.HTTP_STATUS, "304 Not Modified to an unconditional request")
        return Record(
            version=grant.version,
            fetched_at=fetched_at,
            ttl=soft_ttl(answer.cache_control, answer.age, self._policy.lifetimes),
            document=document,
            etag=etag,
            last_modified=last_modified,
        )

    async def _save(self, record: Record, *, holder: str) -> bool:
        sealed = seal(record, self._source, self._policy.seal_keys, self._nonce())
        ends = record.fetched_at + record.ttl + self._policy.lifetimes.stale
        keep = max(1.0, ends - self._clock.now())
        kept = await self._store.save(self._source, sealed, record.version, keep, holder)
        if kept:
            self._stored = max(self._stored, record.version)
        return kept

    async def _recall(self) -> None:
        """After a cold start that found nothing shared: begin with what this host knew last."""
        assert self._snapshot is not None  # noqa: S101 - see `_recalled`
        self._recalled = True
        try:
            sealed = await self._snapshot.load(self._source)
            if sealed is None:
                return
            record = unseal(sealed, self._source, self._policy.seal_keys)
            held = self._believable(record, Tier.SNAPSHOT)
        except RecordError as error:
            self._observer(RecordRefused(self._issuer.name, error.code))
        except OSError as error:
            self._observer(SnapshotFailed(self._issuer.name, str(error)))
        else:
            if age(held.freshness, self._clock.now()) is not Age.DEAD:
                self._install(held)

    async def _keep(self, record: Record) -> None:
        """Let the next start of this host begin with this record."""
        if self._snapshot is None:
            return
        sealed = seal(record, self._source, self._policy.seal_keys, self._nonce())
        try:
            await self._snapshot.save(self._source, sealed)
        except OSError as error:
            self._observer(SnapshotFailed(self._issuer.name, str(error)))

    def _hold(self, record: Record, tier: Tier) -> Held:
        lifetimes = self._policy.lifetimes
        ttl = min(max(record.ttl, lifetimes.ttl_min), lifetimes.ttl_max)
        return Held(
            key_set=parse_jwks(record.document, self._policy.max_keys),
            record=record,
            freshness=freshness(record.fetched_at, ttl, lifetimes, 2 * self._random() - 1),
            tier=tier,
        )

    def _install(self, held: Held) -> bool:
        if held.record.version <= self._cache.version:
            return False
        before = set(self._cache.held.key_set.keys) if self._cache.held else set()
        self._cache.install(held)
        after = set(held.key_set.keys)
        self._observer(
            KeySetInstalled(
                issuer=self._issuer.name,
                version=held.record.version,
                keys=len(held.key_set.keys),
                skipped=tuple(key.reason for key in held.key_set.skipped),
                fetched_at=held.freshness.fetched_at,
                fresh_until=held.freshness.fresh_until,
                stale_until=held.freshness.stale_until,
                added=len(after - before),
                removed=len(before - after),
            )
        )
        return True
