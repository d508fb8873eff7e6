"""Two services of four workers while their Redis fails in every way we know: nobody notices.

Each fault is played once, by the fixture `seen`, which notes what came; each test then judges one
promise for each fault.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from redis import Redis
from redis.exceptions import RedisError

from app.demo.issuer import DemoIssuer
from tests.system.fleet.conftest import QUICK
from tests.system.fleet.fleet import Asked, Fleet, say
from tests.system.fleet.servers import Proxy, RedisServer
from tests.system.service import eventually

WORKERS = 8
AT_ONCE = 0.5  # seconds; REDIS_CONNECT + REDIS_TIMEOUT are more, so nobody has waited for Redis
WAIT = 1.5  # seconds that a request waits for a rotated key at most
HEALED_WITHIN = 10.0  # seconds; the longest pause before a Redis that failed is tried again is 4

pytestmark = pytest.mark.timeout(60)


class World(NamedTuple):
    """A fleet, and all that stands between it and its Redis."""

    fleet: Fleet
    redis: RedisServer
    proxies: list[Proxy]


@pytest.fixture(scope="module")
def world(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        RedisServer(folder / "redis") as redis,
        Proxy(redis.port) as one,
        Proxy(redis.port) as two,
    ):
        urls = [f"redis://127.0.0.1:{proxy.port}" for proxy in (one, two)]
        with Fleet(folder, [issuer], urls, QUICK) as fleet:
            fleet.settle(issuer)
            yield World(fleet, redis, [one, two])


# -- faults --------------------------------------------------------------------------------------


@contextmanager
def stopped(world: World) -> Iterator[None]:
    """Redis hangs: it accepts, and never answers."""
    world.redis.signal(signal.SIGSTOP)
    yield
    world.redis.signal(signal.SIGCONT)


@contextmanager
def killed(world: World) -> Iterator[None]:
    """Redis dies, and comes back empty."""
    world.redis.kill()
    yield
    world.redis.start()


@contextmanager
def cut(world: World) -> Iterator[None]:
    """The network is cut: connections end, and no new one is made."""
    for proxy in world.proxies:
        proxy.cut = True
    yield
    for proxy in world.proxies:
        proxy.heal()


@contextmanager
def one_cut(world: World) -> Iterator[None]:
    """The network is cut between Redis and one of the services."""
    world.proxies[0].cut = True
    yield
    world.proxies[0].heal()


@contextmanager
def hole(world: World) -> Iterator[None]:
    """The network swallows everything."""
    for proxy in world.proxies:
        proxy.hole = True
    yield
    for proxy in world.proxies:
        proxy.heal()


@contextmanager
def late(world: World) -> Iterator[None]:
    """Every answer comes after the deadline."""
    for proxy in world.proxies:
        proxy.delay = 1.0
    yield
    for proxy in world.proxies:
        proxy.heal()


@contextmanager
def dripping(world: World) -> Iterator[None]:
    """Every answer comes byte by byte."""
    for proxy in world.proxies:
        proxy.drip = 0.3
    yield
    for proxy in world.proxies:
        proxy.heal()


@contextmanager
def garbage(world: World) -> Iterator[None]:
    """Something else than Redis answers."""
    for proxy in world.proxies:
        proxy.garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n$536870912\r\n*9999999\r\n"
        proxy.drop()
    yield
    for proxy in world.proxies:
        proxy.heal()
        proxy.drop()


@contextmanager
def locked(world: World) -> Iterator[None]:
    """The password was changed."""
    world.redis.run("CONFIG", "SET", "requirepass", "another")
    world.redis.run_as("another", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield
    world.redis.run_as("another", "CONFIG", "SET", "requirepass", "")


@contextmanager
def crowded(world: World) -> Iterator[None]:
    """Others have taken every connection that Redis allows."""
    with Redis(host="127.0.0.1", port=world.redis.port) as other:
        other.execute_command("CONFIG", "SET", "maxclients", 1)
        other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        other.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        yield
        other.execute_command("CONFIG", "SET", "maxclients", 10000)


@contextmanager
def busy(world: World) -> Iterator[None]:
    """Somebody's script never ends."""

    def run() -> None:
        with suppress(RedisError), Redis(host="127.0.0.1", port=world.redis.port) as other:
            other.eval("while true do end", 0)

    world.redis.run("CONFIG", "SET", "busy-reply-threshold", 50)
    script = threading.Thread(target=run)
    script.start()
    yield
    world.redis.run("SCRIPT", "KILL")
    script.join()


@contextmanager
def full(world: World) -> Iterator[None]:
    """There is no memory for another write."""
    world.redis.run("CONFIG", "SET", "maxmemory", 1)
    yield
    world.redis.run("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """It has become a replica, of a master that is not there."""
    world.redis.run("REPLICAOF", "127.0.0.1", 1)
    yield
    world.redis.run("REPLICAOF", "NO", "ONE")


Fault = Callable[[World], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *(stopped, killed, cut, one_cut, hole, late, dripping, garbage, locked, crowded, busy),
        *(full, read_only),
    )
}


# -- what is seen --------------------------------------------------------------------------------


@dataclass
class Seen:
    """What came during a fault, and after it."""

    known: Asked
    forged: Asked
    rotated: Asked
    fetches: int
    worker_said_down: bool
    ready_status: set[int]
    ready_word: set[str]
    known_later: Asked
    healed_after: float
    rotated_later: Asked
    fetches_later: int


@pytest.fixture(scope="module", params=FAULTS)
def seen(request: pytest.FixtureRequest, world: World, issuer: DemoIssuer) -> Seen:
    fleet, fault = world.fleet, FAULTS[request.param]
    statuses: set[int] = set()
    words: set[str] = set()

    def degraded() -> bool:
        for status, word in fleet.readiness():
            statuses.add(status)
            words.add(word)
        return "degraded" in words

    with fault(world):
        known = fleet.ask(issuer.mint())
        before = issuer.jwks_fetches
        issuer.rotate()
        rotated = fleet.ask(issuer.mint())
        fetches = issuer.jwks_fetches - before
        forged = fleet.ask(issuer.forge())
        with suppress(AssertionError):  # it is a test that judges
            eventually(degraded, 5)
        down = not fleet.redis_up()
        known_later = fleet.ask(issuer.mint())
        provisional = issuer.jwks_fetches
    healed_after = fleet.settle(issuer, HEALED_WITHIN)
    fetches_healing = issuer.jwks_fetches - provisional
    before = issuer.jwks_fetches
    issuer.rotate()
    rotated_later = fleet.ask(issuer.mint())
    say(
        known_ms=1000 * known.seconds,
        rotated_ms=1000 * rotated.seconds,
        fetches=fetches,
        healed_after_seconds=healed_after,
        fetches_healing=fetches_healing,
        rotated_later_ms=1000 * rotated_later.seconds,
        fetches_later=issuer.jwks_fetches - before,
    )
    return Seen(
        known=known,
        forged=forged,
        rotated=rotated,
        fetches=fetches,
        worker_said_down=down,
        ready_status=statuses,
        ready_word=words,
        known_later=known_later,
        healed_after=healed_after,
        rotated_later=rotated_later,
        fetches_later=issuer.jwks_fetches - before,
    )


def test_known_key_is_served_at_once(seen: Seen) -> None:
    assert ([200], [200]) == (seen.known.statuses, seen.known_later.statuses)
    assert max(seen.known.seconds, seen.known_later.seconds) < AT_ONCE


def test_rotation_gets_through_to_every_worker(seen: Seen) -> None:
    assert [200] == seen.rotated.statuses
    assert seen.rotated.seconds < WAIT + AT_ONCE


def test_no_worker_asks_the_issuer_more_than_once_for_a_rotation(seen: Seen) -> None:
    assert 1 <= seen.fetches <= WORKERS


def test_forged_kid_is_never_accepted(seen: Seen) -> None:
    assert {401, 503} >= set(seen.forged.statuses)
    assert {"unknown_key", "temporarily_unavailable"} >= set(seen.forged.reasons)


def test_readiness_says_degraded_and_stays_200(seen: Seen) -> None:
    assert ({200}, True) == (seen.ready_status, "degraded" in seen.ready_word)


def test_metrics_say_that_redis_is_not_up(seen: Seen) -> None:
    assert seen.worker_said_down


def test_everything_heals_by_itself(seen: Seen) -> None:
    assert seen.healed_after < HEALED_WITHIN


def test_rotation_afterwards_is_one_fetch_again(seen: Seen) -> None:
    assert ([200], 1) == (seen.rotated_later.statuses, seen.fetches_later)
