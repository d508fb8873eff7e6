"""A host that starts while both Redis and the issuer are down begins with what it knew last."""

import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from app.demo.issuer import DemoIssuer
from keycache.core.freshness import Lifetimes
from keycache.errors import ConfigurationError, RecordCode, UnavailableError
from keycache.events import Event, RecordRefused, SnapshotFailed, Tier, Verified
from keycache.issuer import Issuer
from keycache.runtime import Options, Runtime

SEAL_KEY, OTHER_KEY = b"s" * 32, b"o" * 32
NO_REDIS = "unix:///nowhere/redis.sock"

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def start(tmp_path: Path, events: list[Event]) -> AsyncIterator[Start]:
    """Starts a runtime of this host, which has a snapshot directory and no Redis that answers."""
    started = []

    async def start(
        demo: DemoIssuer, key: bytes = SEAL_KEY, lifetimes: Lifetimes | None = None
    ) -> Runtime:
        issuer = Issuer(issuer=demo.url, audiences=(demo.audience,))
        options = Options(
            redis_url=NO_REDIS,
            seal_keys=(key,),
            snapshot=tmp_path / "keys",
            lifetimes=lifetimes or Lifetimes(),
        )
        runtime = Runtime([issuer], options, events.append)
        started.append(runtime)
        await runtime.open()
        return runtime

    yield start
    for runtime in started:
        await runtime.close()


async def known_before(demo: DemoIssuer, start: Start) -> str:
    """A token that this host verified in its last life; the issuer is down since."""
    token = demo.mint()
    runtime = await start(demo)
    await runtime.authenticator.authenticate(token)
    await runtime.close()
    demo.fail(503)
    return token


async def test_known_keys_are_served_after_a_start_without_redis_and_issuer(
    start: Start, events: list[Event]
) -> None:
    with DemoIssuer() as demo:
        token = await known_before(demo, start)
        runtime = await start(demo)
        assert demo.url == (await runtime.authenticator.authenticate(token))["iss"]
        assert Tier.SNAPSHOT == [e.tier for e in events if isinstance(e, Verified)][-1]


async def test_snapshot_older_than_its_stale_limit_is_not_served(start: Start) -> None:
    with DemoIssuer(max_age=0) as demo:
        token = await known_before(demo, start)
        short = Lifetimes(ttl=0.001, ttl_min=0.001, ttl_max=0.001, stale=0)
        runtime = await start(demo, lifetimes=short)
        with pytest.raises(UnavailableError):
            await runtime.authenticator.authenticate(token)


async def test_snapshot_sealed_with_another_key_is_refused(
    start: Start, events: list[Event]
) -> None:
    with DemoIssuer() as demo:
        token = await known_before(demo, start)
        runtime = await start(demo, OTHER_KEY)
        with pytest.raises(UnavailableError):
            await runtime.authenticator.authenticate(token)
        assert RecordRefused(runtime.issuers[0].name, RecordCode.SEAL) in events


async def test_snapshot_of_one_issuer_is_no_other_ones(
    start: Start, events: list[Event], tmp_path: Path
) -> None:
    with DemoIssuer() as demo, DemoIssuer() as other:
        await known_before(demo, start)
        [file] = (tmp_path / "keys").iterdir()
        theirs = Issuer(issuer=other.url, audiences=("api",)).source
        file.rename(file.with_name(f"{theirs.id}.record"))
        other.fail(503)
        runtime = await start(other)
        with pytest.raises(UnavailableError):
            await runtime.authenticator.authenticate(other.mint())
        assert RecordRefused(runtime.issuers[0].name, RecordCode.SEAL) in events


async def test_directory_that_cannot_be_written_is_said_and_stops_nothing(
    start: Start, events: list[Event], tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("a file where the directory should be")
    with DemoIssuer() as demo:
        runtime = await start(demo)
        assert await runtime.authenticator.authenticate(demo.mint())
    assert any(isinstance(event, SnapshotFailed) for event in events)


async def test_snapshot_is_for_this_user_alone_and_holds_no_key_in_the_clear(
    start: Start, tmp_path: Path
) -> None:
    with DemoIssuer() as demo:
        await known_before(demo, start)
        directory = tmp_path / "keys"
        [file] = directory.iterdir()
        assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)
        assert not any(kid.encode() in file.read_bytes() for kid in demo.kids())


def test_snapshot_without_a_seal_key_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SEAL_KEYS"):
        Options(snapshot=tmp_path)
