"""The write path: who asks the issuer, when, and what a failure anywhere leaves as it was."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from keycache.core.budget import Bucket
from keycache.core.decision import Age
from keycache.core.freshness import Lifetimes
from keycache.core.record import Record, seal
from keycache.errors import FetchCode, JWKSError, RecordCode, StoreError
from keycache.events import (
    Cause,
    KeySetInstalled,
    LeaseAsked,
    LeaseOutcome,
    RecordRefused,
    Refreshed,
    RefreshFailed,
    Result,
    Tier,
)
from keycache.interfaces import Answer, Fetcher, Grant, Refusal
from keycache.issuer import Issuer, KeySource
from keycache.refresher import AT_ONCE, WHILE_HELD, Turn
from tests.keycache.parts import (
    LEASE,
    POLL,
    SEAL_KEY,
    WAIT,
    Fleet,
    Road,
    Worker,
    key_set_record,
    virtual,
)
from tests.simulation.issuer import EPOCH, GARBAGE, ISSUER, document_of

SOURCE = ISSUER.source


async def loaded(fleet: Fleet, name: str = "worker") -> Worker:
    """A worker that holds the issuer's keys."""
    worker = fleet.worker(name)
    await worker.turn()
    return worker


def results(worker: Worker) -> list[tuple[Cause, Result]]:
    return [(event.cause, event.result) for event in worker.of(Refreshed)]


def failures(worker: Worker) -> list[tuple[Cause, FetchCode]]:
    return [(event.cause, event.code) for event in worker.of(RefreshFailed)]


class Sayings:
    """Implements Fetcher: says one thing after the other. asked: with which validators."""

    def __init__(self, *sayings: Answer) -> None:
        self._sayings = list(sayings)
        self.asked: list[tuple[str | None, str | None]] = []

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        self.asked.append((etag, last_modified))
        return self._sayings.pop(0)


def answer(
    document: bytes | None, etag: str | None = None, last_modified: str | None = None
) -> Answer:
    return Answer(document, None, None, etag, last_modified, None)


# -- one fetch for all -----------------------------------------------------------------------------


@virtual
async def test_first_worker_fetches_and_the_second_finds_the_work_done() -> None:
    fleet = Fleet()
    first, second = fleet.worker("first"), fleet.worker("second")
    turns = [await first.turn(), await second.turn()]
    assert [Result.FETCHED, Result.SHARED] == [turn.result for turn in turns]
    assert ["first"] == fleet.fetches
    assert (first.kids, first.cache.version) == (second.kids, second.cache.version)
    assert [Tier.ISSUER, Tier.REDIS] == [first.held.tier, second.held.tier]


@virtual
async def test_what_was_fetched_is_reported_with_its_moments() -> None:
    fleet = Fleet()
    fleet.issuer.max_age = 600
    worker = await loaded(fleet)
    (installed,) = worker.of(KeySetInstalled)
    at = installed.fetched_at
    moments = (at, at + 600, at + 600 + 3600)
    expected = KeySetInstalled("sim", fleet.shared_version, 1, (), *moments, added=1, removed=0)
    assert expected == installed
    assert [(Cause.COLD, Result.FETCHED)] == results(worker)


@virtual
async def test_fresh_set_is_left_alone() -> None:
    worker = await loaded(Fleet())
    assert Turn(None, POLL) == await worker.turn()
    assert ["worker"] == worker.fleet.fetches


@virtual
async def test_next_turn_comes_when_the_set_is_due() -> None:
    worker = await loaded(Fleet())
    await worker.fleet.until(worker.moments.refresh_from - 2.0)
    assert 2.0 == pytest.approx((await worker.turn()).seconds, abs=0.1)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.72), (0.5, 0.8), (1.0, 0.88)])
@virtual
async def test_chance_spreads_the_refresh_of_the_workers(chance: float, share: float) -> None:
    worker = Fleet().worker(chance=chance)
    await worker.turn()
    assert share * 300 == pytest.approx(worker.moments.refresh_from - worker.moments.fetched_at)


@virtual
async def test_due_set_is_refreshed_once_for_the_fleet_while_it_is_served() -> None:
    fleet = Fleet()
    workers = [await loaded(fleet, name) for name in ("a", "b", "c")]
    for worker in workers:
        worker.start()
    await fleet.until(workers[0].moments.refresh_from)
    assert ["accepted"] * 3 == [await worker.ask("key-0") for worker in workers]
    await asyncio.sleep(POLL)
    assert 2 == len(fleet.fetches)
    assert {Age.FRESH} == {worker.cache.age(fleet.now()) for worker in workers}
    assert 1 == len({worker.cache.version for worker in workers})


@virtual
async def test_set_that_has_not_changed_is_only_confirmed() -> None:
    worker = await loaded(Fleet())
    before = worker.held
    await worker.fleet.until(worker.moments.refresh_from)
    assert Result.NOT_MODIFIED is (await worker.turn()).result
    assert before.key_set is worker.held.key_set
    assert worker.cache.version > before.record.version
    assert worker.moments.fresh_until > before.freshness.fresh_until + 200


@virtual
async def test_validators_are_kept_as_long_as_the_issuer_names_no_others() -> None:
    document, date = document_of(("key-0",)), "Thu, 01 Jan 1970 00:00:00 GMT"
    sayings = Sayings(
        answer(document, '"1"', date),
        answer(None),
        answer(None, '"2"'),
        answer(document),
        answer(document),
    )
    worker = Fleet().worker(fetcher=sayings)
    for _ in range(5):
        await worker.turn(force=True)
    assert [
        (None, None),
        ('"1"', date),
        ('"1"', date),
        ('"2"', date),
        (None, None),
    ] == sayings.asked


@virtual
async def test_expired_set_is_refreshed_for_that_reason() -> None:
    worker = await loaded(Fleet())
    await worker.fleet.until(worker.moments.fresh_until)
    await worker.turn()
    assert (Cause.EXPIRED, Result.NOT_MODIFIED) == results(worker)[-1]


class Late:
    """Implements Lease: another worker does its whole turn just before it answers."""

    def __init__(self, other: Worker) -> None:
        self._other = other
        self._lease = other.fleet.redis.client("late")

    async def acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        await self._other.turn()
        return await self._lease.acquire(source, cause, floor, seen)

    async def fail(self, source: KeySource, grant: Grant) -> float:
        return await self._lease.fail(source, grant)


@virtual
async def test_nobody_fetches_what_was_saved_since_they_looked() -> None:
    fleet = Fleet()
    first = fleet.worker("first")
    second = fleet.worker("second", lease=Late(first))
    assert Turn(None, AT_ONCE) == await second.turn()
    assert Result.SHARED is (await second.turn()).result
    assert ["first"] == fleet.fetches


@virtual
async def test_worker_looks_again_soon_while_another_one_fetches() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 1.0
    first, second = fleet.worker("first"), fleet.worker("second")
    fetching = asyncio.create_task(first.turn())
    await asyncio.sleep(0.5)
    assert Turn(Result.HELD, WHILE_HELD) == await second.turn()
    await fetching
    assert Result.SHARED is (await second.turn()).result


@virtual
async def test_worker_that_nobody_waits_for_leaves_the_one_that_fetches_in_peace() -> None:
    fleet = Fleet()
    first, second = await loaded(fleet, "first"), await loaded(fleet, "second")
    fleet.issuer.latency = 1.0
    await fleet.until(first.moments.refresh_from)
    fetching = asyncio.create_task(first.turn())
    await asyncio.sleep(0.5)
    assert Turn(Result.HELD, POLL) == await second.turn()
    await fetching


# -- a kid nobody knows ----------------------------------------------------------------------------


@virtual
async def test_rotated_key_is_accepted_on_its_first_request() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    await asyncio.sleep(1.0)
    kid = fleet.issuer.rotate()
    asked_at = fleet.now()
    assert "accepted" == await worker.ask(kid)
    assert fleet.now() - asked_at < 0.1
    assert (Cause.UNKNOWN_KID, Result.FETCHED) == results(worker)[-1]


@virtual
async def test_rotated_key_is_accepted_by_the_whole_fleet_for_one_fetch() -> None:
    fleet = Fleet()
    workers = [await loaded(fleet, name) for name in ("a", "b", "c", "d")]
    for worker in workers:
        worker.start()
    await asyncio.sleep(1.0)
    kid = fleet.issuer.rotate()
    verdicts = await asyncio.gather(*(worker.ask(kid) for worker in workers for _ in range(10)))
    assert ["accepted"] * 40 == verdicts
    assert 2 == len(fleet.fetches)


@virtual
async def test_cold_fleet_asks_the_issuer_once_however_many_wait() -> None:
    fleet = Fleet()
    workers = [fleet.worker(name) for name in ("a", "b", "c", "d")]
    for worker in workers:
        worker.start()
    verdicts = await asyncio.gather(*(worker.ask("key-0") for worker in workers for _ in range(10)))
    assert ["accepted"] * 40 == verdicts
    assert 1 == len(fleet.fetches)


@virtual
async def test_forged_kid_is_refused_once_the_issuer_was_asked_about_it() -> None:
    worker = await loaded(Fleet())
    worker.start()
    assert "unknown_key" == await worker.ask("forged-1")
    assert 2 == len(worker.fleet.fetches)
    assert "unknown_key" == await worker.ask("forged-1")
    assert 2 == len(worker.fleet.fetches)


@virtual
async def test_forged_kid_that_two_workers_meet_together_costs_one_fetch() -> None:
    fleet = Fleet()
    workers = [await loaded(fleet, name) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    await asyncio.sleep(1.0)
    verdicts = await asyncio.gather(*(worker.ask("forged-1") for worker in workers))
    assert ["unknown_key"] * 2 == verdicts
    assert 1 + 1 == len(fleet.fetches)


@virtual
async def test_who_asks_about_a_kid_while_the_set_is_due_pays_from_the_budget_for_that() -> None:
    worker = await loaded(Fleet())
    await worker.fleet.until(worker.moments.refresh_from)
    waiter = asyncio.create_task(worker.ask("forged-1"))
    await asyncio.sleep(0)
    await worker.turn()
    assert "unknown_key" == await waiter
    assert Cause.UNKNOWN_KID is results(worker)[-1][0]


@virtual
async def test_scheduled_refresh_that_must_wait_keeps_no_rotated_key_out() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    await fleet.until(worker.moments.refresh_from)
    buckets = fleet.redis.backend._state(SOURCE).buckets
    buckets[False] = Bucket(0.0, fleet.now())
    assert Result.EXHAUSTED is (await worker.turn()).result
    kid = fleet.issuer.rotate()
    worker.start()
    assert "accepted" == await worker.ask(kid)


@virtual
async def test_kid_is_not_refused_by_an_answer_that_was_given_before_the_question() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    fleet.issuer.latency = 0.5
    forged = asyncio.create_task(worker.ask("forged-1"))
    await asyncio.sleep(0.2)  # the issuer has written its answer, and it is still on its way
    kid = fleet.issuer.rotate()
    assert "accepted" == await worker.ask(kid)
    assert "unknown_key" == await forged
    assert 3 == len(fleet.fetches)


@virtual
async def test_flood_of_forged_kids_costs_the_issuer_two_requests_and_then_nobody_waits() -> None:
    fleet = Fleet()
    workers = [await loaded(fleet, name) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for n in range(200):
        await workers[n % 2].ask(f"forged-{n}")
    before = fleet.now()
    verdicts = {await worker.ask("forged-last") for worker in workers}
    assert ({"unavailable"}, before) == (verdicts, fleet.now())
    assert 1 + 2 == len(fleet.fetches)


@virtual
async def test_flood_of_forged_kids_leaves_the_scheduled_refresh_its_own_budget() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    await fleet.until(worker.moments.refresh_from - 1.0)
    for n in range(50):
        await worker.ask(f"forged-{n}")
    worker.events.clear()
    due = worker.moments.refresh_from
    await fleet.until(due + POLL)
    assert (Cause.AHEAD, Result.NOT_MODIFIED) in results(worker)


@virtual
async def test_spent_budget_is_said_with_the_time_until_it_is_filled_again() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    for n in range(2):
        waiter = asyncio.create_task(worker.ask(f"forged-{n}"))
        await asyncio.sleep(0)
        await worker.turn()
        assert "unknown_key" == await waiter
    waiter = asyncio.create_task(worker.ask("forged-3"))
    await asyncio.sleep(0)
    assert Turn(Result.EXHAUSTED, POLL) == await worker.turn()
    assert "unavailable" == await waiter
    await asyncio.sleep(30.0)
    waiter = asyncio.create_task(worker.ask("forged-3"))
    await asyncio.sleep(0)
    await worker.turn()
    assert "unknown_key" == await waiter


@virtual
async def test_fetch_outlives_the_request_that_waited_for_it() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 2.0
    worker = fleet.worker()
    worker.start()
    assert "unavailable" == await worker.ask("key-0")
    assert WAIT == pytest.approx(fleet.now() - EPOCH)
    await asyncio.sleep(1.0)
    assert ["key-0"] == worker.kids
    assert 1 == len(fleet.fetches)


@virtual
async def test_fetch_outlives_a_request_that_is_cancelled() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 1.0
    worker = fleet.worker()
    worker.start()
    request = asyncio.create_task(worker.ask("key-0"))
    await asyncio.sleep(0.5)
    request.cancel()
    await asyncio.sleep(1.0)
    assert ["key-0"] == worker.kids
    assert 1 == len(fleet.fetches)


# -- the issuer fails ------------------------------------------------------------------------------

CODES = (
    FetchCode.NOT_JSON,
    FetchCode.NO_USABLE_KEY,
    FetchCode.NO_USABLE_KEY,
    FetchCode.NOT_JSON,
    FetchCode.NOT_JSON,
)


@virtual
async def test_stale_set_is_served_while_the_issuer_fails_and_a_dead_one_is_not() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    fleet.issuer.fault = "down"
    verdicts = []
    for moment in (
        worker.moments.fresh_until,
        worker.moments.stale_until - 1.0,
        worker.moments.stale_until,
    ):
        await fleet.until(moment)
        verdicts.append(await worker.ask("key-0"))
    assert ["accepted", "accepted", "unavailable"] == verdicts


@virtual
async def test_no_stale_set_is_served_where_that_is_turned_off() -> None:
    fleet = Fleet(lifetimes=Lifetimes(stale=0.0))
    worker = await loaded(fleet)
    worker.start()
    fleet.issuer.fault = "down"
    await fleet.until(worker.moments.fresh_until)
    assert "unavailable" == await worker.ask("key-0")


@pytest.mark.parametrize("age", [Age.DUE, Age.STALE, Age.DEAD])
@pytest.mark.parametrize(
    ("fault", "garbage", "code"),
    [
        *(("garbage", garbage, code) for garbage, code in zip(GARBAGE, CODES, strict=True)),
        ("down", b"", FetchCode.UNREACHABLE),
        ("hang", b"", FetchCode.TIMEOUT),
    ],
)
@virtual
async def test_failed_refresh_changes_nothing(
    fault: str, garbage: bytes, code: FetchCode, age: Age
) -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    before, shared = worker.held, fleet.shared_version
    moments = {
        Age.DUE: before.freshness.refresh_from,
        Age.STALE: before.freshness.fresh_until,
        Age.DEAD: before.freshness.stale_until,
    }
    await fleet.until(moments[age])
    fleet.issuer.fault, fleet.issuer.garbage = fault, garbage
    turn = await worker.turn()
    assert Result.FAILED is turn.result
    assert isinstance(turn.failure, JWKSError)
    assert code is turn.failure.code
    assert before is worker.held
    assert fleet.shared_version == (0 if age is Age.DEAD else shared)
    causes = {Age.DUE: Cause.AHEAD, Age.STALE: Cause.EXPIRED, Age.DEAD: Cause.COLD}
    assert [(causes[age], code)] == failures(worker)


@pytest.mark.parametrize(("garbage", "code"), list(zip(GARBAGE, CODES, strict=True)))
@virtual
async def test_cold_worker_takes_no_rubbish_for_keys(garbage: bytes, code: FetchCode) -> None:
    fleet = Fleet()
    fleet.issuer.fault, fleet.issuer.garbage = "garbage", garbage
    worker = fleet.worker()
    await worker.turn()
    assert (None, 0) == (worker.cache.held, fleet.shared_version)
    assert [(Cause.COLD, code)] == failures(worker)


@virtual
async def test_not_modified_to_who_did_not_ask_that_is_a_failure() -> None:
    worker = Fleet().worker(fetcher=Sayings(answer(None)))
    turn = await worker.turn()
    assert turn.failure is not None
    assert (Result.FAILED, FetchCode.HTTP_STATUS) == (turn.result, turn.failure.code)
    assert worker.cache.held is None


@virtual
async def test_key_that_cannot_be_used_does_not_keep_the_others_out() -> None:
    document = document_of(("key-0",)).replace(b"]}", b', {"kty": "oct", "kid": "bad"}]}')
    worker = Fleet().worker(fetcher=Sayings(answer(document)))
    await worker.turn()
    (installed,) = worker.of(KeySetInstalled)
    assert (1, ("unknown_kty",)) == (installed.keys, installed.skipped)


@virtual
async def test_failure_lets_nobody_in_the_fleet_ask_for_a_while() -> None:
    fleet = Fleet()
    fleet.issuer.fault = "down"
    first, second = fleet.worker("first"), fleet.worker("second")
    await first.turn()
    turn = await second.turn()
    assert Result.BACKING_OFF is turn.result
    assert 0 < turn.seconds <= 0.5  # half of the least pause, as chance has it here
    assert ["first"] == fleet.fetches


@virtual
async def test_failure_is_told_to_who_waits_and_to_who_comes_within_the_pause() -> None:
    fleet = Fleet()
    fleet.issuer.fault = "down"
    worker = fleet.worker()
    worker.start()
    assert "unavailable" == await worker.ask("key-0")
    told_at = fleet.now()
    assert told_at - EPOCH < 0.1
    assert "unavailable" == await worker.ask("key-0")
    assert told_at == fleet.now()


@virtual
async def test_issuer_that_is_back_is_found_by_itself() -> None:
    fleet = Fleet()
    fleet.issuer.fault = "down"
    worker = fleet.worker()
    worker.start()
    await asyncio.sleep(120.0)
    assert [] == worker.kids
    fleet.issuer.fault = None
    await asyncio.sleep(60.0)
    assert ["key-0"] == worker.kids


# -- the slower, older answer loses ----------------------------------------------------------------


@virtual
async def test_older_answer_never_replaces_a_newer_one() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 3.0
    slow, quick = fleet.worker("slow"), fleet.worker("quick")
    slow_turn = asyncio.create_task(slow.turn())
    await asyncio.sleep(1.0)
    fleet.redis.fail_over()  # the lease is forgotten
    fleet.issuer.latency = 0.02
    kid = fleet.issuer.rotate()
    await quick.turn()
    newest = fleet.shared_version
    assert Result.SUPERSEDED is (await slow_turn).result
    assert (newest, None) == (fleet.shared_version, slow.cache.held)
    assert Result.SHARED is (await slow.turn()).result
    assert kid in slow.kids


@virtual
async def test_message_brings_a_new_version_at_once() -> None:
    fleet = Fleet()
    first, second = await loaded(fleet, "first"), await loaded(fleet, "second")
    second.start()
    await asyncio.sleep(1.0)
    kid = fleet.issuer.rotate()
    await first.turn(force=True)
    await asyncio.sleep(0.01)
    assert kid in second.kids


@virtual
async def test_lost_message_is_made_good_by_the_poll() -> None:
    fleet = Fleet()
    first, second = await loaded(fleet, "first"), await loaded(fleet, "second")
    second.start()
    await asyncio.sleep(1.0)
    fleet.redis.lossy = 1.0
    kid = fleet.issuer.rotate()
    await first.turn(force=True)
    await asyncio.sleep(0.01)
    assert kid not in second.kids
    await asyncio.sleep(POLL)
    assert kid in second.kids
    assert ["first", "first"] == fleet.fetches


# -- what stands in Redis is not believed as it is -------------------------------------------------


def bad_records(good: Record) -> dict[RecordCode, Sequence[tuple[bytes, int]]]:
    """What may be found in Redis in the place of a good record: bytes, and their version."""
    newer = good._replace(version=good.version + 1)

    def sealed(
        record: Record, key: bytes | None = SEAL_KEY, source: KeySource = SOURCE
    ) -> tuple[bytes, int]:
        return seal(record, source, (key,) if key else (), bytes(12)), record.version

    whole, version = sealed(newer)
    return {
        RecordCode.FOREIGN: [(b"", version), (b"hello", version), (b"KC2" + whole[3:], version)],
        RecordCode.TOO_LARGE: [(bytes(4 * 1024 * 1024 + 1), version)],
        RecordCode.UNSEALED: [sealed(newer, None)],
        RecordCode.SEAL: [
            sealed(newer, b"x" * 32),
            sealed(newer, source=replace(SOURCE, issuer="https://other.example")),
            sealed(newer, source=replace(SOURCE, jwks_url="https://issuer.example/other")),
            (whole[:-1] + bytes([whole[-1] ^ 1]), version),
            (whole[:8] + bytes([whole[8] ^ 1]) + whole[9:], version),
        ],
        RecordCode.CONTENT: [sealed(newer._replace(document=each)) for each in GARBAGE],
        RecordCode.VERSION: [(whole, version + 1)],
        RecordCode.ROLLED_BACK: [sealed(good._replace(version=good.version - 1))],
        RecordCode.FUTURE: [sealed(newer._replace(fetched_at=good.fetched_at + 120))],
    }


BAD = [
    pytest.param(code, n, id=f"{code}-{n}")
    for code, records in bad_records(key_set_record("key-0", version=10)).items()
    for n in range(len(records))
]


@pytest.mark.parametrize(("code", "n"), BAD)
@virtual
async def test_bad_record_is_refused_and_replaced_from_memory(code: RecordCode, n: int) -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    before = worker.held
    fleet.put(*bad_records(before.record)[code][n])
    assert None is (await worker.turn()).result
    assert before is worker.held
    assert [RecordRefused("sim", code)] == worker.of(RecordRefused)
    assert before.record.version == fleet.shared_version
    other = fleet.worker("other")
    assert Result.SHARED is (await other.turn()).result
    assert ["worker"] == fleet.fetches


@pytest.mark.parametrize(
    ("code", "n"),
    # To have been seen or not is what makes a record an older one.
    [param for param in BAD if param.values[0] is not RecordCode.ROLLED_BACK],
)
@virtual
async def test_bad_record_does_not_keep_a_cold_worker_from_the_issuer(
    code: RecordCode, n: int
) -> None:
    fleet = Fleet()
    good = key_set_record("key-0", version=10, fetched_at=fleet.now())
    fleet.put(*bad_records(good)[code][n])
    worker = fleet.worker()
    assert Result.FETCHED is (await worker.turn()).result
    assert [RecordRefused("sim", code)] == worker.of(RecordRefused)
    assert worker.cache.version == fleet.shared_version


@virtual
async def test_older_record_is_refused_by_who_has_only_read_the_newer_one() -> None:
    fleet = Fleet()
    await loaded(fleet, "first")
    second = await loaded(fleet, "second")
    record = second.held.record
    fleet.put_record(record._replace(version=record.version - 1))
    await second.turn()
    assert [RecordRefused("sim", RecordCode.ROLLED_BACK)] == second.of(RecordRefused)


@virtual
async def test_sealed_record_is_refused_where_no_seal_key_is_set() -> None:
    fleet = Fleet()
    await loaded(fleet)
    worker = fleet.worker("other", seal_keys=())
    await worker.turn()
    assert [RecordRefused("sim", RecordCode.NO_KEY)] == worker.of(RecordRefused)


@virtual
async def test_record_sealed_with_the_previous_key_is_read() -> None:
    fleet = Fleet()
    await loaded(fleet)
    worker = fleet.worker("other", seal_keys=(b"n" * 32, SEAL_KEY))
    assert Result.SHARED is (await worker.turn()).result


@virtual
async def test_bad_record_is_replaced_once_a_poll_interval_at_most() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    good = worker.cache.version
    found = []
    for pause in (0.0, 1.0, POLL - 1.0):
        await asyncio.sleep(pause)
        fleet.put(b"hello", good + 1)
        await worker.turn()
        found.append(fleet.shared_version)
    assert [good, good + 1, good] == found
    assert 3 == len(worker.of(RecordRefused))


@virtual
async def test_dead_record_is_not_adopted() -> None:
    fleet = Fleet()
    fleet.issuer.fault = "down"
    fleet.put_record(key_set_record("gone", version=10, fetched_at=EPOCH - 3900))
    worker = fleet.worker()
    assert Result.FAILED is (await worker.turn()).result
    assert worker.cache.held is None


@virtual
async def test_record_lives_no_longer_than_the_reader_allows() -> None:
    fleet = Fleet()
    fleet.put_record(key_set_record("key-0", version=10, ttl=1e12))
    worker = fleet.worker()
    await worker.turn()
    assert EPOCH + 86400 == worker.moments.fresh_until


@virtual
async def test_emptied_redis_is_filled_from_memory_without_a_fetch() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    fleet.redis.flush()
    assert None is (await worker.turn()).result
    assert worker.cache.version == fleet.shared_version
    assert ["worker"] == fleet.fetches


@virtual
async def test_redis_that_forgets_again_and_again_is_filled_once_a_poll_interval_at_most() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    found = []
    for pause in (0.0, 1.0, POLL - 1.0):
        await asyncio.sleep(pause)
        fleet.redis.flush()
        await worker.turn()
        found.append(fleet.shared_version)
    assert [worker.cache.version, 0, worker.cache.version] == found


@virtual
async def test_dead_set_is_not_shared_again() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    await fleet.until(worker.moments.stale_until)
    fleet.redis.flush()
    fleet.issuer.fault = "down"
    await worker.turn()
    assert 0 == fleet.shared_version


# -- Redis fails -----------------------------------------------------------------------------------


async def provisional(fleet: Fleet, name: str = "worker") -> Worker:
    """A worker that has fetched a rotated key while Redis was down."""
    worker = await loaded(fleet, name)
    fleet.redis.down = True
    await asyncio.sleep(1.0)
    kid = fleet.issuer.rotate()
    waiter = asyncio.create_task(worker.ask(kid))
    await asyncio.sleep(0)
    turn = await worker.turn()
    assert isinstance(turn.store_failure, StoreError)
    assert "accepted" == await waiter
    return worker


@virtual
async def test_cold_worker_serves_without_redis() -> None:
    fleet = Fleet()
    fleet.redis.down = True
    worker = fleet.worker()
    worker.start()
    assert "accepted" == await worker.ask("key-0")
    assert worker.held.provisional


@virtual
async def test_one_slow_answer_of_redis_sends_nobody_to_the_issuer() -> None:
    fleet = Fleet()
    fleet.redis.down = True
    worker = fleet.worker()
    turn = await worker.turn()
    assert isinstance(turn.store_failure, StoreError)
    fleet.redis.down = False
    await asyncio.sleep(turn.seconds)
    await worker.turn()
    assert (1, False) == (len(fleet.fetches), worker.held.provisional)


@virtual
async def test_redis_that_fails_twice_sends_the_worker_to_the_issuer() -> None:
    fleet = Fleet()
    fleet.redis.down = True
    worker = fleet.worker()
    for _ in range(2):
        await worker.turn()
    assert (1, True) == (len(fleet.fetches), worker.held.provisional)


@virtual
async def test_answer_fetched_after_the_provisional_one_replaces_it_without_a_fetch() -> None:
    fleet = Fleet()
    alone = await provisional(fleet, "alone")
    fleet.redis.down = False
    other = fleet.worker("other")
    await other.turn(force=True)
    before = len(fleet.fetches)
    await alone.turn()
    assert (before, False) == (len(fleet.fetches), alone.held.provisional)
    assert other.held.record.version == alone.held.record.version


@virtual
async def test_redis_that_hangs_costs_a_waiter_its_deadline_and_not_its_answer() -> None:
    fleet = Fleet()
    fleet.redis.latency = 60.0
    worker = fleet.worker()
    worker.start()
    assert "accepted" == await worker.ask("key-0")


@virtual
async def test_budget_is_this_workers_own_while_redis_is_down() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    fleet.redis.down = True
    for n in range(50):
        await worker.ask(f"forged-{n}")
    assert 1 + 2 == len(fleet.fetches)


@virtual
async def test_forged_kid_is_refused_without_redis_too() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    fleet.redis.down = True
    assert "unknown_key" == await worker.ask("forged-1")


@virtual
async def test_clock_of_a_host_that_is_ahead_never_gets_into_the_versions() -> None:
    fleet = Fleet()
    fleet.redis.down = True
    worker = fleet.worker(clock_offset=50.0)
    await worker.turn()
    fleet.redis.down = False
    await worker.turn()
    assert not worker.held.provisional
    assert fleet.now() == pytest.approx(fleet.shared_version / 1000, abs=1.0)


@virtual
async def test_provisional_set_is_not_undone_by_what_redis_held_before() -> None:
    fleet = Fleet()
    worker = await provisional(fleet)
    other = fleet.worker("other")
    fleet.redis.down = False
    fleet.issuer.fault = "down"
    await worker.turn()
    assert ["key-0", "key-1"] == worker.kids
    assert worker.held.provisional
    await other.turn()
    assert ["key-0"] == other.kids


@virtual
async def test_provisional_set_is_replaced_once_redis_answers_again() -> None:
    fleet = Fleet()
    worker = await provisional(fleet)
    fleet.redis.down = False
    assert Result.NOT_MODIFIED is (await worker.turn()).result
    assert not worker.held.provisional
    assert worker.cache.version == fleet.shared_version
    assert (Cause.AHEAD, Result.NOT_MODIFIED) == results(worker)[-1]


@virtual
async def test_provisional_sets_of_a_fleet_are_replaced_with_one_fetch() -> None:
    fleet = Fleet()
    first = await provisional(fleet, "first")
    fleet.redis.down = False
    second = await provisional(fleet, "second")
    fleet.redis.down = False
    fleet.fetches.clear()
    turns = await asyncio.gather(first.turn(), second.turn())
    assert [Result.FETCHED, Result.HELD] == [turn.result for turn in turns]
    assert Result.SHARED is (await second.turn()).result
    assert ["first"] == fleet.fetches
    assert first.cache.version == second.cache.version


@virtual
async def test_failed_attempt_without_redis_is_followed_by_a_pause() -> None:
    fleet = Fleet()
    fleet.redis.down = True
    fleet.issuer.fault = "down"
    worker = fleet.worker()
    results = [(await worker.turn()).result for _ in range(3)]
    assert [Result.FAILED, Result.BACKING_OFF] == [result for result in results if result][:2]
    assert 1 == len(fleet.fetches)


@virtual
async def test_pause_after_a_failure_is_kept_when_redis_is_lost_meanwhile() -> None:
    fleet = Fleet()
    fleet.issuer.fault, fleet.issuer.latency = "down", 1.0
    worker = fleet.worker()
    turn = asyncio.create_task(worker.turn())
    await asyncio.sleep(0.5)
    fleet.redis.down = True
    assert Result.FAILED is (await turn).result
    await worker.turn()
    assert Result.BACKING_OFF is (await worker.turn()).result
    assert 1 == len(fleet.fetches)


@pytest.mark.parametrize("warm", [False, True])
@virtual
async def test_answer_that_could_not_be_saved_serves_here_and_is_saved_later(*, warm: bool) -> None:
    fleet = Fleet()
    worker = await loaded(fleet) if warm else fleet.worker()
    kid = fleet.issuer.rotate()
    fleet.issuer.latency = 1.0
    turn = asyncio.create_task(worker.turn(force=True))
    await asyncio.sleep(0.5)
    fleet.redis.down = True
    assert isinstance((await turn).store_failure, StoreError)
    assert kid in worker.kids
    assert not worker.held.provisional
    fleet.redis.down = False
    assert None is (await worker.turn()).result
    assert worker.cache.version == fleet.shared_version
    assert 1 + warm == len(fleet.fetches)


# -- an operator -----------------------------------------------------------------------------------


@virtual
async def test_operator_has_a_fresh_set_fetched_again() -> None:
    worker = await loaded(Fleet())
    assert Result.NOT_MODIFIED is (await worker.turn(force=True)).result
    assert (Cause.OPERATOR, Result.NOT_MODIFIED) == results(worker)[-1]


@virtual
async def test_operator_is_stopped_neither_by_the_budget_nor_by_the_pause_after_a_failure() -> None:
    fleet = Fleet()
    worker = fleet.worker()
    fleet.issuer.fault = "down"
    for _ in range(5):
        assert Result.FAILED is (await worker.turn(force=True)).result
    fleet.issuer.fault = None
    assert Result.FETCHED is (await worker.turn(force=True)).result


@virtual
async def test_operator_waits_like_everybody_for_a_fetch_in_progress() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 1.0
    fetching = asyncio.create_task(fleet.worker("first").turn())
    await asyncio.sleep(0.5)
    assert Result.HELD is (await fleet.worker("operator").turn(force=True)).result
    await fetching


# -- run and stop ----------------------------------------------------------------------------------


@virtual
async def test_worker_that_was_woken_goes_back_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await loaded(Fleet())
    turn, turns = worker.refresher.turn, []

    async def counted() -> Turn:
        turns.append(worker.fleet.now())
        return await turn()

    monkeypatch.setattr(worker.refresher, "turn", counted)
    worker.start()
    await asyncio.sleep(1.0)
    worker.refresher.changed()
    await asyncio.sleep(4 * POLL + 1.0)
    assert 1 + 1 + 4 == len(turns)


@virtual
async def test_stopping_lets_the_turn_in_progress_come_to_its_end() -> None:
    fleet = Fleet()
    fleet.issuer.latency = 2.0
    worker = fleet.worker()
    worker.start()
    await asyncio.sleep(1.0)
    worker.refresher.stop()
    await worker.running
    assert 2.0 == pytest.approx(fleet.now() - EPOCH, abs=0.1)
    assert worker.cache.version == fleet.shared_version > 0


@virtual
async def test_stopping_between_two_turns_is_immediate() -> None:
    worker = await loaded(Fleet())
    worker.start()
    await asyncio.sleep(1.0)
    before = worker.fleet.now()
    worker.refresher.stop()
    await worker.running
    assert before == worker.fleet.now()


class Once:
    """Implements Fetcher: fails once in a way that nobody foresaw, then goes the ordinary way."""

    def __init__(self, error: Exception, road: Fetcher) -> None:
        self._error: Exception | None = error
        self._road = road

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return await self._road.fetch(issuer, etag, last_modified)


@virtual
async def test_bug_in_a_turn_is_reported_and_does_not_end_refreshing() -> None:
    fleet = Fleet()
    error = RuntimeError("the moon is full " * 100)
    worker = fleet.worker(fetcher=Once(error, Road(fleet, "worker")))
    worker.start()
    await asyncio.sleep(1.0)
    (failed,) = worker.of(RefreshFailed)
    assert FetchCode.INTERNAL is failed.code
    assert failed.details.startswith("bug: RuntimeError: the moon is full")
    assert 200 == len(failed.details)
    await asyncio.sleep(LEASE + POLL)
    assert ["key-0"] == worker.kids


# -- what is told of it ----------------------------------------------------------------------------


@virtual
async def test_change_of_the_set_says_how_many_keys_came_and_went() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    old = fleet.issuer.newest
    fleet.issuer.rotate()
    fleet.issuer.rotate()
    fleet.issuer.remove(old)
    await worker.turn(force=True)
    changes = [(installed.added, installed.removed) for installed in worker.of(KeySetInstalled)]
    assert [(1, 0), (2, 1)] == changes


@virtual
async def test_lease_is_reported_with_its_answer() -> None:
    fleet = Fleet()
    first, second = fleet.worker("first"), fleet.worker("second")
    await asyncio.gather(first.turn(), second.turn())
    outcomes = [asked.outcome for worker in (first, second) for asked in worker.of(LeaseAsked)]
    assert [LeaseOutcome.GRANTED, LeaseOutcome.HELD] == outcomes


@virtual
async def test_unknown_kid_reports_what_the_fleet_has_left_to_spend() -> None:
    fleet = Fleet()
    worker = await loaded(fleet)
    worker.start()
    for kid in ("forged-1", "forged-2", "forged-3"):
        await worker.ask(kid)
    left = [asked.budget_left for asked in worker.of(LeaseAsked)]
    scheduled, *forced = left
    assert scheduled is None
    assert [1.0, 0.0, 0.0] == [round(each or 0.0, 1) for each in forced[:3]]
