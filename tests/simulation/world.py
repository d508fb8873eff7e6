"""World: N workers, a Redis, an issuer and a seed; one seed is one history.

Everything that decides is the code of `keycache` itself; what is modelled is the network, the
servers and the clocks. `World.play` draws a history of requests and faults from the seed, checks
the invariants at every step, and raises `BrokenError` with the seed and the step when one does not
hold.

A third of the histories are *calm*: Redis is never harmed in them, and the invariants are strict.

Invariants
  forged       no forged token is ever accepted
  removed      no token is accepted under a key that was removed longer ago than a key set may live;
               in a calm history, than a poll interval after somebody fetched the set without it
  budget       the issuer is not asked more often than the budgets allow
  one-fetch    nobody asks the issuer while there is an answer that they have not looked at; in a
               calm history never two workers ask at once
  never-waits  a token whose key is in this worker's memory is decided without awaiting
  versions     the version in a worker's memory never falls, and none in Redis is overwritten by
               an older one
  never-401    a good token of a published key is accepted or 503, never 401, unless this worker was
               asked about its kid before it was published, and has seen no other set since
  spread       the workers do not all want to refresh at the same moment
  converged    when the faults are over, every worker holds the newest version within the poll
               interval, and every published key is accepted within the longest pause
  no-bug       the refresher never ends, and never meets an error that it does not know
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from keycache.adapters.memory_store import MemoryBackend
from keycache.authenticator import Authenticator, Trusted
from keycache.cache import KeyCache
from keycache.core.budget import Limits
from keycache.core.decision import Age
from keycache.core.freshness import Lifetimes
from keycache.core.keys import KeySet
from keycache.errors import FetchCode, Reason, TokenError, UnavailableError
from keycache.events import Cause, Event, Refreshed, RefreshFailed, Result
from keycache.refresher import Policy, Refresher
from keycache.token_cache import TokenCache
from tests.simulation.issuer import EPOCH, FETCH_TIMEOUT, GARBAGE, ISSUER, SimIssuer, token_of
from tests.simulation.redis import DEADLINE, SimRedis

LIFETIMES = Lifetimes()
LIMITS = Limits()
LEASE = 10.0
POLL = 5.0
WAIT = 1.5
NEGATIVE_TTL = 30.0
MAX_CLOCK_ERROR = 20.0
"""Seconds by which a host's clock may be wrong in a history: less than MAX_SKEW."""


class BrokenError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, seed: int, at: float, details: str) -> None:
        super().__init__(f"{invariant}: {details} (seed {seed}, at {at:.3f} s)")
        self.invariant = invariant


class HostClock:
    """The clock of one host."""

    def __init__(self, now: Callable[[], float], offset: float) -> None:
        self._now = now
        self.offset = offset

    def now(self) -> float:
        return self._now() + self.offset


class Worker:
    """One worker process: the real cache, refresher and authenticator."""

    def __init__(self, world: "World", name: str, offset: float) -> None:
        self.world = world
        self.name = name
        self.clock = HostClock(world.now, offset)
        self.cut_off_from_issuer = False
        tokens = TokenCache(100)
        self.cache = KeyCache(
            ISSUER.name,
            self.clock,
            self.note,
            wait=WAIT,
            max_waiters=64,
            negative_ttl=NEGATIVE_TTL,
            negative_size=256,
        )
        self.changed_at = 0.0  # when the set in memory last became another
        self.asked: dict[str, list[float]] = {}  # kid: when this worker was sent a token of it

        def replaced(key_set: KeySet) -> None:
            self.changed_at = world.now()
            tokens.keep_only(self.cache, key_set)

        self.cache.replaced = replaced
        client = world.redis.client(name)
        self.refresher = Refresher(
            ISSUER,
            self.cache,
            store=client,
            lease=client,
            local=MemoryBackend(self.clock, LIMITS, LEASE, world.rng.random),
            fetcher=world.issuer.fetcher(name, lambda: not self.cut_off_from_issuer),
            clock=self.clock,
            observer=self.note,
            policy=Policy(LIFETIMES, (b"k" * 32,), 100, POLL),
            random=world.rng.random,
            nonce=lambda: world.rng.randbytes(12),
        )
        self.authenticator = Authenticator(
            {ISSUER.issuer: Trusted(ISSUER, self.cache)},
            tokens,
            self.clock,
            self.note,
            token_bytes=8192,
            kid_chars=128,
        )
        self.task = asyncio.create_task(self.refresher.run())
        self.listening = asyncio.create_task(self._listen())

    def note(self, event: Event) -> None:
        self.world.noted(self, event)

    async def _listen(self) -> None:
        """The subscription: lost while Redis is out of reach, made anew a second later."""
        redis = self.world.redis
        while True:
            while not redis.reachable(self.name):  # noqa: ASYNC110 - as the adapter retries
                await asyncio.sleep(1.0)
            lost = redis.subscribe(self.name, self.refresher.changed)
            self.refresher.changed()
            await lost.wait()

    def kill(self) -> None:
        """End at once, as kill -9 does: nothing is given back."""
        self.task.cancel()
        self.listening.cancel()
        self.world.redis.unsubscribe(self.name)


class World:
    """One history. workers: how many; minutes: how long the faults go on."""

    def __init__(self, seed: int, workers: int = 4, minutes: float = 12.0) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.seconds = minutes * 60
        self._loop = asyncio.get_running_loop()
        self.issuer = SimIssuer(self.now)
        self.redis = SimRedis(self.now, LIMITS, LEASE, self.rng)
        self.redis.clock.offset = self.rng.uniform(-5, 5)
        self.calm = seed % 3 == 0
        self.redis_faults = 0
        self.clock_slack = 10.0  # seconds by which two hosts differ at the start
        self.failure: BrokenError | None = None
        self.spent = {True: 0, False: 0}  # fetches: forced, scheduled
        self.versions: dict[str, int] = {}
        self.workers = [self._start(f"worker-{n}") for n in range(workers)]
        self._requests: set[asyncio.Task[None]] = set()

    # -- the world -------------------------------------------------------------------------------

    def now(self) -> float:
        return EPOCH + self._loop.time()

    def _start(self, name: str) -> Worker:
        self.versions[name] = 0
        return Worker(self, name, self.rng.uniform(-5, 5))

    def broken(self, invariant: str, details: str) -> BrokenError:
        return BrokenError(invariant, self.seed, self._loop.time(), details)

    def noted(self, worker: Worker, event: Event) -> None:
        """Look at every fact as it is reported."""
        if isinstance(event, RefreshFailed):
            self.spent[event.cause is Cause.UNKNOWN_KID] += 1
            if event.code is FetchCode.INTERNAL:
                self.failure = self.broken("no-bug", f"{worker.name}: {event.details}")
        elif isinstance(event, Refreshed) and event.result in (
            Result.FETCHED,
            Result.NOT_MODIFIED,
            Result.SUPERSEDED,
        ):
            self.spent[event.cause is Cause.UNKNOWN_KID] += 1

    # -- one step --------------------------------------------------------------------------------

    def check(self) -> None:
        """The invariants that can be seen at any moment."""
        if self.failure is not None:
            raise self.failure
        for worker in self.workers:
            if worker.cache.version < self.versions[worker.name]:
                raise self.broken("versions", f"{worker.name} went back")
            self.versions[worker.name] = worker.cache.version
            if worker.task.done():
                raise self.broken("no-bug", f"{worker.name}: {worker.task}")
        if self.redis.overwritten:
            raise self.broken("versions", "an older record replaced a newer one in Redis")
        if self.redis.overlooked:
            raise self.broken("one-fetch", "a fetch was granted although its answer was there")
        if self.calm and self.issuer.most_in_flight > 1:
            raise self.broken("one-fetch", f"{self.issuer.most_in_flight} at once")
        moments = [worker.cache.held.freshness for worker in self.workers if worker.cache.held]
        same_set = len({moment.fresh_until for moment in moments}) == 1 and len(moments) > 2
        if same_set and len({moment.refresh_from for moment in moments}) == 1:
            raise self.broken("spread", "all would refresh at once")
        self._check_budget()

    def ask(self, worker: Worker, kid: str) -> None:
        """Send a good token of this kid to this worker."""
        worker.asked.setdefault(kid, []).append(self.now())
        held = worker.cache.held
        known = (
            worker.cache.age(worker.clock.now()) not in (Age.ABSENT, Age.DEAD)
            and held is not None
            and any(key.kid == kid for key in held.key_set.keys)
        )
        request = worker.authenticator.authenticate(token_of(kid))
        if known:
            try:
                request.send(None)
            except StopIteration:
                self._accepted(worker, kid)
                return
            raise self.broken("never-waits", f"{worker.name} waits for {kid}, which it holds")
        task = asyncio.create_task(self._ask(worker, kid, request))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _ask(self, worker: Worker, kid: str, request: Coroutine[Any, Any, object]) -> None:
        sent = self.now()
        try:
            await request
            self._accepted(worker, kid)
        except UnavailableError:
            return
        except TokenError as error:
            self._refused(worker, kid, error.reason, sent)
        except BrokenError as error:
            self.failure = error

    def _accepted(self, worker: Worker, kid: str) -> None:
        if kid in self.issuer.published:
            return
        removed = self.issuer.removed.get(kid)
        if removed is None:
            raise self.broken("forged", f"{worker.name} accepted {kid}")
        assert worker.cache.held is not None
        bound = worker.cache.held.record.ttl + LIFETIMES.stale + FETCH_TIMEOUT + self.clock_slack
        if self.now() - removed > bound:
            raise self.broken("removed", f"{kid} was removed {self.now() - removed:.0f} s ago")
        saved = self.redis.saved_at
        if self.calm and saved - removed > FETCH_TIMEOUT and self.now() - saved > POLL + 1:
            raise self.broken("removed", f"{worker.name} did not hear that {kid} was removed")

    def _refused(self, worker: Worker, kid: str, reason: Reason, sent: float) -> None:
        if kid not in self.issuer.published:
            return
        if reason is not Reason.UNKNOWN_KEY:
            self.failure = self.broken("never-401", f"{kid}: {reason}")
        published = self.issuer.published[kid]
        early = [
            asked
            for asked in worker.asked[kid]
            if worker.changed_at - WAIT <= asked < published
            and sent - asked <= NEGATIVE_TTL + WAIT + self.clock_slack
        ]
        if published < sent and not early and self.issuer.fault != "garbage":
            self.failure = self.broken("never-401", f"{worker.name} refused {kid}")

    # -- a history -------------------------------------------------------------------------------

    async def play(self) -> None:
        """Draw requests and faults until the time is over; then let everything heal, and look."""
        actions = {
            act: weight for act, weight in ACTIONS.items() if not (self.calm and act in HARM)
        }
        while self._loop.time() < self.seconds:
            long = self.rng.random() < 0.003  # long enough to become due, stale or dead
            pause = self.rng.uniform(60, 4500) if long else self.rng.expovariate(1 / 2.0)
            self.seconds += pause if long else 0.0
            await asyncio.sleep(pause)
            self.rng.choices(list(actions), weights=list(actions.values()))[0](self)
            self.check()
        if self.rng.random() < 0.05:
            await self._outlast_the_keys()
        await self._heal()

    async def _outlast_the_keys(self) -> None:
        """The issuer is gone for longer than any key may be served, and took one key with it."""
        self.issuer.fault, self.issuer.max_age = None, None
        self.issuer.rotate()
        gone = self.issuer.rotate()
        for worker in self.workers:
            self.ask(worker, gone)
        await asyncio.sleep(WAIT)
        self.issuer.remove(gone)
        self.issuer.fault = "down"
        for _ in range(6):
            await asyncio.sleep((LIFETIMES.ttl + LIFETIMES.stale) / 5)
            for worker in self.workers:
                self.ask(worker, gone)
            self.check()

    async def _heal(self) -> None:
        self.issuer.fault, self.issuer.latency = None, 0.02
        self.redis.down, self.redis.latency = False, 0.001
        self.redis.lossy = 1.0  # no message at all: the poll alone must do
        self.redis.cut_off.clear()
        for worker in self.workers:
            worker.cut_off_from_issuer = False
        # The longest pause of the breaker's, the backoff's and the refill's kind, and a lease.
        await asyncio.sleep(10)  # what was begun ends
        for _ in range(2):
            self.issuer.rotate()
        kid = self.issuer.rotate()  # nobody has asked about this one early
        deadline = self._loop.time() + LIMITS.backoff_max + LIMITS.refill + LEASE + 3 * POLL
        waiting = set(self.workers)
        while waiting:
            for worker in sorted(waiting, key=lambda worker: worker.name):
                try:
                    await worker.authenticator.authenticate(token_of(kid))
                    waiting.discard(worker)
                except UnavailableError:
                    pass
                except TokenError as error:
                    raise self.broken("converged", f"{worker.name}: {error}") from error
            if self._loop.time() > deadline:
                raise self.broken("converged", f"{len(waiting)} workers refuse the newest key")
            await asyncio.sleep(0.5)
        newest = max(worker.cache.version for worker in self.workers)
        await asyncio.sleep(POLL + 2 * DEADLINE)
        for worker in self.workers:
            if worker.cache.version < newest:
                raise self.broken("converged", f"{worker.name} is behind after a poll interval")
        self.check()

    def _check_budget(self) -> None:
        """Forced and scheduled fetches, each against its own budget."""
        if not self.calm and self.redis_faults:
            # Each fault may have begun a budget anew: the fleet's, or one in every worker.
            budgets = 1 + self.redis_faults * len(self.workers)
        else:
            budgets = 1
        allowed = budgets * LIMITS.budget + self._loop.time() / LIMITS.refill * min(
            budgets, len(self.workers) + 1
        )
        for forced, spent in self.spent.items():
            if spent > allowed:
                kind = "forced" if forced else "scheduled"
                raise self.broken("budget", f"{spent} {kind} fetches, {allowed:.1f} allowed")


# -- what can happen -----------------------------------------------------------------------------


def _good_request(world: World) -> None:
    kid = world.rng.choice(list(world.issuer.published))
    for worker in world.workers:
        if world.rng.random() < 0.7:
            world.ask(worker, kid)


def _newest_everywhere(world: World) -> None:
    for worker in world.workers:
        world.ask(worker, world.issuer.newest)


def _forged(world: World) -> None:
    for _ in range(world.rng.choice([1, 1, 5, 80])):
        kid = f"forged-{world.rng.randrange(10**9)}"
        world.ask(world.rng.choice(world.workers), kid)


def _early_request(world: World) -> None:
    """A token whose key is not published yet: some issuers sign before they publish."""
    world.ask(world.rng.choice(world.workers), world.issuer.kid_after(0))


def _hasty_issuer(world: World) -> None:
    """Two rotations in a few seconds; tokens of the second come before both."""
    loop = asyncio.get_running_loop()
    issuer, worker = world.issuer, world.rng.choice(world.workers)
    world.ask(worker, issuer.kid_after(1))
    loop.call_later(2.0, issuer.rotate)
    loop.call_later(3.0, _newest_everywhere, world)
    loop.call_later(6.0, issuer.rotate)
    loop.call_later(7.0, _newest_everywhere, world)


def _removed_request(world: World) -> None:
    if world.issuer.removed:
        kid = world.rng.choice(list(world.issuer.removed))
        world.ask(world.rng.choice(world.workers), kid)


def _rotate(world: World) -> None:
    world.issuer.rotate()


def _remove(world: World) -> None:
    if len(world.issuer.published) > 1:
        world.issuer.remove(world.rng.choice(list(world.issuer.published)))


def _issuer_fault(world: World) -> None:
    world.issuer.fault = world.rng.choice(["down", "hang", "garbage"])
    world.issuer.garbage = world.rng.choice(GARBAGE)
    world.issuer.latency = world.rng.choice([0.02, 0.5, 3.0, 8.0])


def _issuer_heals(world: World) -> None:
    world.issuer.fault = None
    world.issuer.latency = world.rng.choice([0.005, 0.02, 0.2, 1.0])
    world.issuer.max_age = world.rng.choice([None, 0, 60, 300, 100000])


def _redis_down(world: World) -> None:
    world.redis.go_down()
    world.redis_faults += 1


def _redis_slow(world: World) -> None:
    world.redis.latency = world.rng.choice([0.05, 0.2, 0.5])
    world.redis_faults += 1


def _redis_heals(world: World) -> None:
    world.redis.down, world.redis.latency = False, 0.001
    world.redis.lossy = world.rng.choice([0.0, 0.0, 0.5, 1.0])
    world.redis.cut_off.clear()


def _redis_flushed(world: World) -> None:
    world.redis.flush()
    world.redis_faults += 1


def _redis_replicates(world: World) -> None:
    world.redis.replicate()


def _redis_fails_over(world: World) -> None:
    world.redis.fail_over()
    world.redis_faults += 1


def _lease_lost(world: World) -> None:
    """A fail-over forgets the lease of a slow fetch; the next fetch overtakes it."""
    loop = asyncio.get_running_loop()
    world.issuer.fault, world.issuer.latency = None, 3.0
    world.redis.replicate()
    world.issuer.rotate()
    world.ask(world.workers[0], world.issuer.newest)
    loop.call_later(1.0, _redis_fails_over, world)
    loop.call_later(1.1, setattr, world.issuer, "latency", 0.02)
    loop.call_later(1.2, world.issuer.rotate)
    loop.call_later(1.3, lambda: world.ask(world.workers[1], world.issuer.newest))


def _worker_cut_off(world: World) -> None:
    worker = world.rng.choice(world.workers)
    if world.rng.random() < 0.5:
        world.redis.cut_off.add(worker.name)
        world.redis.unsubscribe(worker.name)
        world.redis_faults += 1
    else:
        worker.cut_off_from_issuer = not worker.cut_off_from_issuer


def _worker_killed(world: World) -> None:
    place = world.rng.randrange(len(world.workers))
    old = world.workers[place]
    old.kill()
    world.workers[place] = world._start(old.name)


def _clock_steps(world: World) -> None:
    clock = world.rng.choice([worker.clock for worker in world.workers])
    clock.offset = world.rng.uniform(-MAX_CLOCK_ERROR, MAX_CLOCK_ERROR)
    world.clock_slack = 2 * MAX_CLOCK_ERROR


ACTIONS: dict[Callable[[World], None], float] = {
    _good_request: 30,
    _newest_everywhere: 10,
    _forged: 8,
    _early_request: 3,
    _hasty_issuer: 1,
    _removed_request: 4,
    _rotate: 5,
    _remove: 3,
    _issuer_fault: 2,
    _issuer_heals: 4,
    _redis_down: 1.5,
    _redis_slow: 1,
    _redis_heals: 4,
    _redis_flushed: 0.7,
    _redis_replicates: 2,
    _redis_fails_over: 0.7,
    _lease_lost: 0.5,
    _worker_cut_off: 1,
    _worker_killed: 2,
    _clock_steps: 1,
}

HARM = {
    _redis_down,
    _redis_slow,
    _redis_flushed,
    _redis_fails_over,
    _lease_lost,
    _worker_cut_off,
}
"""What never happens in a calm history. (Lost messages do: the poll is there for them.)"""
