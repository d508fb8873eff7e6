"""The read path: what memory answers at once, and who waits, for how long, and for what answer."""

import asyncio
from functools import partial

import pytest

from keycache.cache import Held, KeyCache
from keycache.core.decision import Age, Decision, Known, decide
from keycache.core.keys import KeySet, Miss, SigningKey, SkippedKey, SkipReason
from keycache.errors import UnavailableError
from keycache.events import Event, NegativeKidsChanged, WaitersChanged
from tests.keycache.parts import NEGATIVE_TTL, WAIT, Fleet, at_once, held, virtual
from tests.simulation.issuer import EPOCH

ALG = "EdDSA"
FRESH, DUE, STALE, DEAD = EPOCH, EPOCH + 240, EPOCH + 300, EPOCH + 3900
"""The first moment at which a set fetched at EPOCH is of this age."""


def a_cache(fleet: Fleet, max_waiters: int = 64, negative_size: int = 256) -> KeyCache:
    return fleet.worker(max_waiters=max_waiters, negative_size=negative_size).cache


def kid_of(found: SigningKey | Miss | None) -> str | None:
    assert isinstance(found, SigningKey)
    return found.kid


async def asked(cache: KeyCache, *kids: str) -> "list[asyncio.Task[SigningKey | Miss]]":
    """Requests that now wait for these kids."""
    tasks = [asyncio.create_task(cache.wait(kid, ALG)) for kid in kids]
    await asyncio.sleep(0)
    return tasks


async def refused(cache: KeyCache, *kids: str, version: int = 2) -> None:
    """Let the issuer be asked about these kids, and not have them; it has key-1 alone."""
    tasks = await asked(cache, *kids)
    cache.undated().date(version)
    cache.install(held("key-1", version=version))
    assert [Miss.UNKNOWN] * len(kids) == await asyncio.gather(*tasks)


# -- peek ------------------------------------------------------------------------------------------


@virtual
async def test_nothing_is_known_before_the_first_set() -> None:
    assert a_cache(Fleet()).peek("key-1", ALG, FRESH) is None


@pytest.mark.parametrize("now", [FRESH, DUE, STALE, DEAD - 0.001])
@virtual
async def test_known_key_is_served_until_its_set_is_dead(now: float) -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    assert "key-1" == kid_of(cache.peek("key-1", ALG, now))


@pytest.mark.parametrize("now", [FRESH - 3600, FRESH, DUE, STALE, DEAD - 0.001, DEAD])
@virtual
async def test_key_that_is_there_is_served_when_the_table_says_so(now: float) -> None:
    cache, set_held = a_cache(Fleet()), held("key-1")
    cache.install(set_held)
    decision = decide(set_held.freshness, Known.FOUND, now)
    serves = decision in (Decision.SERVE, Decision.SERVE_AND_REFRESH)
    assert serves == (cache.peek("key-1", ALG, now) is not None)


@virtual
async def test_dead_set_serves_nothing() -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    assert cache.peek("key-1", ALG, DEAD) is None


@pytest.mark.parametrize(("now", "live"), [(FRESH, True), (DEAD - 0.001, True), (DEAD, False)])
@virtual
async def test_keys_are_live_until_their_set_is_dead(now: float, *, live: bool) -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    assert live == cache.is_live(now)


@virtual
async def test_no_key_is_live_before_the_first_set() -> None:
    assert not a_cache(Fleet()).is_live(FRESH)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (FRESH, Age.FRESH),
        (DUE - 0.001, Age.FRESH),
        (DUE, Age.DUE),
        (STALE - 0.001, Age.DUE),
        (STALE, Age.STALE),
        (DEAD, Age.DEAD),
    ],
)
@virtual
async def test_set_passes_through_the_ages(now: float, expected: Age) -> None:
    cache = a_cache(Fleet())
    assert Age.ABSENT == cache.age(now)
    cache.install(held("key-1"))
    assert expected == cache.age(now)


@virtual
async def test_kid_that_the_set_has_not_must_be_waited_for() -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    assert cache.peek("key-2", ALG, FRESH) is None


def with_unusable_key() -> Held:
    good = held("key-1", "key-2")
    key_set = KeySet(good.key_set.keys, [SkippedKey("key-3", SkipReason.WEAK_KEY)])
    return good._replace(key_set=key_set)


@pytest.mark.parametrize(
    ("kid", "alg", "miss"),
    [
        ("key-1", "RS256", Miss.MISMATCH),
        ("key-3", ALG, Miss.UNUSABLE),
        (None, ALG, Miss.AMBIGUOUS),
    ],
)
@virtual
async def test_what_the_set_rules_out_is_refused_at_once_while_it_is_fresh(
    kid: str | None, alg: str, miss: Miss
) -> None:
    cache = a_cache(Fleet())
    cache.install(with_unusable_key())
    assert [miss, miss, None] == [cache.peek(kid, alg, now) for now in (FRESH, DUE, STALE)]


# -- wait: bounded in time and in number -----------------------------------------------------------


@virtual
async def test_who_waits_wakes_the_refresher() -> None:
    cache = a_cache(Fleet())
    woken: list[bool] = []
    cache.wanted = lambda: woken.append(cache.waiting)
    await asked(cache, "key-1")
    assert [True] == woken


@virtual
async def test_waiter_is_answered_by_the_set_that_has_its_key() -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    (waiter,) = await asked(cache, "key-2")
    cache.install(held("key-1", "key-2", version=2))
    assert "key-2" == kid_of(await waiter)


@virtual
async def test_waiter_gives_up_after_its_time() -> None:
    fleet = Fleet()
    with pytest.raises(UnavailableError, match="did not arrive in time") as caught:
        await a_cache(fleet).wait("key-1", ALG)
    assert WAIT == pytest.approx(fleet.now() - EPOCH)
    assert 1.0 == caught.value.retry_after


@virtual
async def test_one_waiter_too_many_is_unavailable_at_once() -> None:
    cache = a_cache(Fleet(), max_waiters=2)
    waiters = await asked(cache, "key-1", "key-2")
    with pytest.raises(UnavailableError, match="Too many requests"):
        at_once(cache.wait("key-3", ALG))
    cache.install(held("key-1", "key-2"))
    assert ["key-1", "key-2"] == [kid_of(found) for found in await asyncio.gather(*waiters)]


@virtual
async def test_waiter_that_leaves_makes_room_for_another() -> None:
    cache = a_cache(Fleet(), max_waiters=1)
    (gone,) = await asked(cache, "key-1")
    gone.cancel()
    await asyncio.wait([gone])
    (waiter,) = await asked(cache, "key-2")
    cache.install(held("key-2"))
    assert "key-2" == kid_of(await waiter)


@virtual
async def test_cancelled_waiter_is_no_reason_to_ask_the_issuer() -> None:
    cache = a_cache(Fleet())
    (gone,) = await asked(cache, "key-1")
    assert cache.waiting
    gone.cancel()
    await asyncio.wait([gone])
    assert not cache.waiting


@virtual
async def test_answered_waiter_is_no_reason_to_ask_the_issuer() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-1")
    cache.install(held("key-1"))
    assert not cache.waiting  # though it has not run yet
    await waiter


# -- wait: an unknown kid is refused by an answer that is younger than the question ----------------


@virtual
async def test_answer_older_than_the_question_refuses_nobody() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-2")
    cache.undated().date(10)
    cache.install(held("key-1", version=9))
    await asyncio.sleep(0)
    assert not waiter.done()


@virtual
async def test_answer_as_young_as_the_question_refuses_the_kid() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-2")
    cache.undated().date(10)
    cache.install(held("key-1", version=10))
    assert Miss.UNKNOWN is await waiter


@virtual
async def test_question_that_nobody_has_dated_is_refused_by_no_answer() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-2")
    cache.install(held("key-1", version=10**15))
    await asyncio.sleep(0)
    assert not waiter.done()


@virtual
async def test_question_asked_after_the_clock_was_read_keeps_no_date() -> None:
    cache = a_cache(Fleet())
    await asked(cache, "key-2")
    questions = cache.undated()
    (late,) = await asked(cache, "key-3")
    questions.date(10)
    cache.install(held("key-1", version=10))
    await asyncio.sleep(0)
    assert not late.done()


@virtual
async def test_second_look_makes_no_question_younger() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-2")
    cache.undated().date(10)
    cache.undated().date(20)
    cache.install(held("key-1", version=15))
    assert Miss.UNKNOWN is await waiter


@virtual
async def test_lease_granted_now_is_later_than_every_question_that_waits() -> None:
    cache = a_cache(Fleet())
    (waiter,) = await asked(cache, "key-2")
    cache.undated().date(5)
    cache.unanswered().date(10)
    cache.install(held("key-1", version=9))
    await asyncio.sleep(0)
    assert not waiter.done()


# -- the kids that the issuer does not have --------------------------------------------------------


@virtual
async def test_kid_that_the_issuer_has_not_is_refused_at_once_for_a_while() -> None:
    fleet = Fleet()
    worker = fleet.worker()
    await refused(worker.cache, "forged")
    until = fleet.now() + NEGATIVE_TTL
    answers = [worker.cache.peek("forged", ALG, now) for now in (until - 0.001, until)]
    assert [Miss.UNKNOWN, None] == answers


@virtual
async def test_set_with_other_keys_empties_the_memory_of_unknown_kids() -> None:
    cache = a_cache(Fleet())
    await refused(cache, "forged")
    cache.install(held("key-1", "key-2", version=3))
    assert cache.peek("forged", ALG, FRESH) is None


@virtual
async def test_same_set_again_keeps_the_memory_of_unknown_kids() -> None:
    cache = a_cache(Fleet())
    await refused(cache, "forged")
    cache.install(held("key-1", version=3))
    assert Miss.UNKNOWN is cache.peek("forged", ALG, FRESH)


@virtual
async def test_issuer_is_not_asked_for_a_while_about_a_kid_that_it_has_just_taken_out() -> None:
    fleet = Fleet()
    cache = a_cache(fleet)
    cache.install(held("key-1", "key-2"))
    cache.install(held("key-2", version=2))
    until = fleet.now() + NEGATIVE_TTL
    assert [Miss.UNKNOWN, None] == [cache.peek("key-1", ALG, now) for now in (until - 0.001, until)]


@virtual
async def test_kid_that_was_taken_out_and_is_back_is_served() -> None:
    cache = a_cache(Fleet())
    for version, kids in enumerate((["key-1", "key-2"], ["key-2"], ["key-1"]), 1):
        cache.install(held(*kids, version=version))
    assert "key-1" == kid_of(cache.peek("key-1", ALG, FRESH))


@virtual
async def test_memory_of_unknown_kids_is_bounded_and_the_oldest_leaves() -> None:
    cache = a_cache(Fleet(), negative_size=2)
    await refused(cache, "forged-1", "forged-2", "forged-3")
    answers = [cache.peek(f"forged-{n}", ALG, FRESH) for n in (1, 2, 3)]
    assert [None, Miss.UNKNOWN, Miss.UNKNOWN] == answers


@virtual
async def test_memory_of_unknown_kids_can_be_turned_off() -> None:
    cache = a_cache(Fleet(), negative_size=0)
    await refused(cache, "forged")
    assert cache.peek("forged", ALG, FRESH) is None


# -- give_up ---------------------------------------------------------------------------------------


@virtual
async def test_giving_up_tells_everybody_who_waits_and_for_how_long() -> None:
    fleet = Fleet()
    cache = a_cache(fleet)
    waiters = await asked(cache, "key-1", "key-2")
    cache.give_up("The issuer is down.", 7.0)
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert [("The issuer is down.", 7.0)] * 2 == [
        (error.details, error.retry_after)
        for error in errors
        if isinstance(error, UnavailableError)
    ]
    assert EPOCH == fleet.now()


@virtual
async def test_door_is_closed_for_as_long_as_was_said_and_not_longer() -> None:
    fleet = Fleet()
    cache = a_cache(fleet)
    woken: list[None] = []
    cache.wanted = partial(woken.append, None)
    cache.give_up("The issuer is down.", 7.0)
    await asyncio.sleep(5.0)
    with pytest.raises(UnavailableError, match="The issuer is down") as caught:
        at_once(cache.wait("key-1", ALG))
    assert 2.0 == pytest.approx(caught.value.retry_after)
    assert not woken
    await fleet.until(EPOCH + 7.0)
    await asked(cache, "key-1")
    assert [None] == woken


@virtual
async def test_new_set_opens_the_door() -> None:
    cache = a_cache(Fleet())
    cache.give_up("The issuer is down.", 7.0)
    cache.install(held("key-1"))
    (waiter,) = await asked(cache, "key-2")
    assert not waiter.done()


# -- install ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@virtual
async def test_version_that_is_not_newer_changes_nothing(version: int) -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1", version=5))
    before = cache.held
    cache.install(held("key-2", version=version))
    assert before is cache.held


@virtual
async def test_same_keys_again_are_the_same_objects() -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1"))
    before = cache.peek("key-1", ALG, FRESH)
    cache.install(held("key-1", "key-2", version=2))
    assert before is cache.peek("key-1", ALG, FRESH)


@virtual
async def test_only_a_set_with_other_keys_is_reported_as_another() -> None:
    cache = a_cache(Fleet())
    replaced: list[list[str | None]] = []
    cache.replaced = lambda key_set: replaced.append([key.kid for key in key_set.keys])
    cache.install(held("key-1", version=1))
    cache.install(held("key-1", version=2))
    cache.install(held("key-2", version=3))
    assert [["key-1"], ["key-2"]] == replaced


@virtual
async def test_removed_key_is_gone_with_the_set_that_had_it() -> None:
    cache = a_cache(Fleet())
    cache.install(held("key-1", "key-2"))
    cache.install(held("key-2", version=2))
    assert Miss.UNKNOWN is cache.peek("key-1", ALG, FRESH)


@virtual
async def test_what_is_found_in_memory_is_no_event_of_the_cache() -> None:
    worker = Fleet().worker()
    worker.cache.install(held("key-1"))
    worker.cache.peek("key-1", ALG, FRESH)
    no_events: list[Event] = []
    assert no_events == worker.events


# -- what is told of it ----------------------------------------------------------------------------


@virtual
async def test_number_of_waiters_is_reported_as_they_come_and_go() -> None:
    worker = Fleet().worker()
    requests = await asked(worker.cache, "key-1", "key-1")
    worker.cache.install(held("key-1"))
    await asyncio.gather(*requests)
    assert [1, 2, 1, 0] == [each.waiters for each in worker.of(WaitersChanged)]


@virtual
async def test_number_of_negative_kids_is_reported_until_they_are_forgotten() -> None:
    fleet = Fleet()
    worker = fleet.worker()
    await refused(worker.cache, "forged-1", "forged-2")
    await asyncio.sleep(NEGATIVE_TTL)
    worker.cache.forget_expired()
    assert [2, 0] == [each.kids for each in worker.of(NegativeKidsChanged)]


@virtual
async def test_kid_that_is_refused_again_is_forgotten_later() -> None:
    worker = Fleet().worker()
    await refused(worker.cache, "forged-1", "forged-2")
    await asyncio.sleep(NEGATIVE_TTL - 1)
    worker.cache._remember_unknown("forged-1", worker.clock.now())
    await asyncio.sleep(2)
    worker.cache.forget_expired()
    assert ["forged-1"] == list(worker.cache._negative)
