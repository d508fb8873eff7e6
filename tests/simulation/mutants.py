"""Mutants: bugs planted by hand, each of which the simulation must catch.

A mutant patches the code of `keycache` for as long as its context lasts. `caught_by` names the
invariants of which one must break; a mutant that lives shows that the simulation is blind there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from keycache.adapters.memory_store import MemoryBackend
from keycache.cache import Held, KeyCache, Questions
from keycache.core import decision
from keycache.core.budget import Bucket
from keycache.core.decision import Age, Decision, Known
from keycache.core.freshness import freshness
from keycache.core.keys import KeySet
from keycache.interfaces import Grant, Refusal
from keycache.refresher import Refresher
from keycache.token_cache import TokenCache


class Mutant(NamedTuple):
    """A bug. what: one sentence. plant: a context manager that plants it."""

    name: str
    what: str
    caught_by: set[str]
    plant: Callable[[], Any]


MUTANTS: list[Mutant] = []


def mutant(what: str, *caught_by: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    def register(plant: Callable[[], Iterator[None]]) -> None:
        MUTANTS.append(
            Mutant(plant.__name__.strip("_"), what, set(caught_by), contextmanager(plant))
        )

    return register


@mutant("the lease is given to everybody who asks", "one-fetch", "budget")
def _lease_for_all() -> Iterator[None]:
    acquire = MemoryBackend.acquire

    async def generous(self: MemoryBackend, *args: Any) -> Grant | Refusal:
        self._state(args[0]).holder = ""
        return await acquire(self, *args)

    with patch.object(MemoryBackend, "acquire", generous):
        yield


@mutant("the lease is given to somebody who has not seen the newest answer", "one-fetch")
def _look_is_not_repeated() -> Iterator[None]:
    acquire = MemoryBackend.acquire

    async def blind(self: MemoryBackend, source: Any, cause: Any, floor: int, seen: int) -> Any:
        return await acquire(self, source, cause, floor, seen + 10**15)

    with patch.object(MemoryBackend, "acquire", blind):
        yield


@mutant("a save is kept whatever its version and fence are", "versions")
def _no_compare_and_set() -> Iterator[None]:
    save = MemoryBackend.save

    async def careless(self: MemoryBackend, source: Any, record: bytes, *args: Any) -> bool:
        state = self._state(source)
        state.fence, state.version = 0, 0
        return await save(self, source, record, *args)

    with patch.object(MemoryBackend, "save", careless):
        yield


@mutant("the budget is never spent", "budget")
def _no_budget() -> Iterator[None]:
    with patch("keycache.adapters.memory_store.take", lambda *_: (Bucket(2.0, 0.0), 0.0)):
        yield


@mutant("a failed fetch is not followed by a pause, and gives its attempt back", "budget")
def _failures_are_free() -> Iterator[None]:
    fail = MemoryBackend.fail

    async def forgiving(self: MemoryBackend, source: Any, grant: Grant) -> float:
        await fail(self, source, grant)
        state = self._state(source)
        state.backoff_ends = 0.0
        state.buckets.clear()
        return 0.0

    with patch.object(MemoryBackend, "fail", forgiving):
        yield


@mutant("all workers refresh at the same moment", "spread")
def _no_jitter() -> Iterator[None]:
    with patch(
        "keycache.refresher.freshness",
        lambda fetched_at, ttl, lifetimes, jitter: freshness(fetched_at, ttl, lifetimes, 0.0),
    ):
        yield


@mutant("negative kids are not forgotten when other keys arrive", "never-401")
def _negatives_stay() -> Iterator[None]:
    install = KeyCache.install

    def forgetful(self: KeyCache, held: Held) -> None:
        negative = dict(self._negative)
        install(self, held)
        self._negative.update(negative)

    with patch.object(KeyCache, "install", forgetful):
        yield


@mutant("any newer set answers the question, also one fetched before it was asked", "never-401")
def _old_answers_count() -> Iterator[None]:
    with patch.object(Questions, "date", lambda self, asked_ms: _date(self, 0)):
        yield


def _date(questions: Questions, asked_ms: int) -> None:
    for waiter in questions._waiters:
        waiter.asked_ms = asked_ms


@mutant("verified tokens outlive their key", "removed")
def _tokens_outlive_keys() -> Iterator[None]:
    with patch.object(TokenCache, "keep_only", lambda self, cache, key_set: None):
        yield


@mutant("keys are appended to those that are held, never removed", "removed")
def _keys_are_appended() -> Iterator[None]:
    def succeeding(self: KeySet, previous: KeySet | None) -> KeySet:
        kept = previous.keys if previous else ()
        return KeySet({key.kid: key for key in (*kept, *self.keys)}.values())

    with patch.object(KeySet, "succeeding", succeeding):
        yield


@mutant("keys are served however old they are", "removed")
def _dead_is_served() -> Iterator[None]:
    table = {**decision.TABLE, Age.DEAD: decision.TABLE[Age.STALE]}
    with (
        patch.object(decision, "TABLE", table),
        patch.object(KeyCache, "is_live", lambda self, now: self.held is not None),
    ):
        yield


@mutant("a known key waits while the set is due", "never-waits")
def _due_waits() -> Iterator[None]:
    row = {**decision.TABLE[Age.DUE], Known.FOUND: Decision.WAIT}
    with patch.object(decision, "TABLE", {**decision.TABLE, Age.DUE: row}):
        yield


@mutant("a failed refresh empties the memory", "never-waits", "never-401", "versions")
def _failure_wipes() -> Iterator[None]:
    failed = Refresher._failed

    async def wiping(self: Refresher, *args: Any) -> Any:
        self._cache.held = None
        return await failed(self, *args)

    with patch.object(Refresher, "_failed", wiping):
        yield


@mutant("an unknown kid is refused without asking", "never-401")
def _unknown_is_refused() -> Iterator[None]:
    row = {**decision.TABLE[Age.FRESH], Known.UNKNOWN: Decision.REFUSE}
    with patch.object(decision, "TABLE", {**decision.TABLE, Age.FRESH: row}):
        yield


@mutant("the version is polled only when there is no key set", "converged", "removed")
def _no_poll() -> Iterator[None]:
    look = Refresher._look

    async def lazy(self: Refresher) -> bool:
        if self._cache.held is None or self._cache.waiting:
            return await look(self)
        self._seen = 2**53
        return False

    with patch.object(Refresher, "_look", lazy):
        yield


@mutant("a record that was rolled back is believed", "never-401", "removed", "converged")
def _rollback_is_believed() -> Iterator[None]:
    unsealed = Refresher._unsealed

    def trusting(self: Refresher, sealed: bytes, version: int) -> Held:
        self._stored = 0
        held = unsealed(self, sealed, version)
        return held._replace(record=held.record._replace(version=self._cache.version + 1))

    with patch.object(Refresher, "_unsealed", trusting):
        yield


@mutant("versions count from 1 again after Redis was emptied", "converged", "versions", "never-401")
def _versions_restart() -> Iterator[None]:
    acquire = MemoryBackend.acquire

    async def counting(self: MemoryBackend, source: Any, cause: Any, floor: int, seen: int) -> Any:
        state = self._state(source)
        fence = state.fence
        grant = await acquire(self, source, cause, 0, seen)
        if isinstance(grant, Refusal):
            return grant
        state.fence = fence + 1
        return Grant(state.fence, grant.holder)

    with patch.object(MemoryBackend, "acquire", counting):
        yield


@mutant("the lease of a worker that died never ends", "converged")
def _lease_never_expires() -> Iterator[None]:
    acquire = MemoryBackend.acquire

    async def for_ever(self: MemoryBackend, *args: Any) -> Any:
        state = self._state(args[0])
        if state.holder:
            state.lease_ends = self._clock.now() + 1000
        return await acquire(self, *args)

    with patch.object(MemoryBackend, "acquire", for_ever):
        yield
