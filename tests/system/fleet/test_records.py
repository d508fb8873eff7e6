"""What is planted in the shared cache: refused by every worker, counted, and replaced.

Whoever can write to Redis can make the fleet work a little, and nothing else.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from redis import Redis

from app.demo.issuer import DemoIssuer
from keycache.adapters.redis_names import Names, names
from keycache.core.record import Record, seal, unseal
from keycache.errors import RecordError
from keycache.issuer import KeySource
from tests.system.fleet.conftest import QUICK
from tests.system.fleet.fleet import Fleet, say
from tests.system.fleet.servers import RedisServer
from tests.system.service import eventually

SEAL_KEY = bytes(32)  # what the fleet's seal key decodes to
OTHER_KEY = os.urandom(32)
HEALED_WITHIN = 3.0

pytestmark = pytest.mark.timeout(60)


def read(redis: Redis, name: Names) -> tuple[int, bytes]:
    """The version and the bytes that Redis holds under these names."""
    version, data = redis.hmget(name.record, "v", "d")
    assert isinstance(data, bytes)
    return int(version or 0), data


class World(NamedTuple):
    """A fleet that trusts two issuers, and somebody who can write to its Redis.

    removed: a token of a key that the issuer has taken out; old: the record that still had it.
    evil: an issuer nobody trusts, whose key set the writer would like to pass off.
    """

    fleet: Fleet
    redis: Redis
    issuer: DemoIssuer
    other: DemoIssuer
    evil: DemoIssuer
    removed: str
    old: bytes

    @property
    def source(self) -> KeySource:
        return KeySource(self.issuer.url, self.issuer.jwks_url)

    @property
    def names(self) -> Names:
        return names(self.source)

    def stored(self) -> tuple[int, bytes]:
        """The version and the bytes of the issuer's record."""
        return read(self.redis, self.names)

    def intact(self) -> bool:
        """Whether Redis holds a record of ours."""
        if self.redis.type(self.names.record) != b"hash":
            return False
        version, data = self.redis.hmget(self.names.record, "v", "d")
        if not isinstance(version, bytes) or not isinstance(data, bytes):
            return False  # what was there was just taken out
        try:
            return unseal(data, self.source, (SEAL_KEY,)).version == int(version)
        except RecordError:
            return False

    def plant(self, version: int, data: bytes) -> None:
        """Put a record where the fleet will find it, and call everybody to look."""
        self.redis.hset(self.names.record, mapping={"v": version, "d": data})
        self.redis.publish(self.names.changed, version)

    def evil_record(self, version: int) -> Record:
        document = json.dumps(self.evil.jwks()).encode()
        return Record(
            version,
            unseal(self.old, self.source, (SEAL_KEY,)).fetched_at,
            300,
            document,
            None,
            None,
        )


@pytest.fixture(scope="module")
def world(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("records")
    with (
        DemoIssuer() as other,
        DemoIssuer() as evil,
        RedisServer(folder / "redis") as server,
        Redis(host="127.0.0.1", port=server.port) as redis,
        Fleet(folder, [issuer, other], [server.url, server.url], QUICK) as fleet,
    ):
        removed = issuer.mint()
        assert [200] == fleet.ask(removed).statuses
        assert [200] == fleet.ask(other.mint()).statuses
        _, old = read(redis, names(KeySource(issuer.url, issuer.jwks_url)))
        issuer.remove(issuer.kids("RS256")[-1])
        issuer.rotate()
        assert [200] == fleet.ask(issuer.mint()).statuses
        assert [401] == fleet.ask(removed).statuses
        yield World(fleet, redis, issuer, other, evil, removed, old)


def other_types(world: World) -> None:
    """A value of another type at every key."""
    for name in world.names[:-1]:
        world.redis.delete(name)
        world.redis.rpush(name, "rubbish")


def numbers_that_are_none(world: World) -> None:
    """What cannot be a version, a time or a count, where one is expected."""
    name = world.names
    for key in (name.record, name.backoff, name.forced, name.scheduled):
        world.redis.delete(key)
        fields = ("v", "d", "until", "failures", "left", "at")
        world.redis.hset(key, mapping=dict.fromkeys(fields, "nan"))
    world.redis.set(name.fence, "1e308")
    world.redis.publish(name.changed, "-inf")


def nothing(world: World) -> None:
    """FLUSHALL."""
    world.redis.flushall()


def foreign(world: World) -> None:
    world.plant(world.stored()[0] + 1, b"\x80\x04\x95cposix\nsystem\n.")


def empty(world: World) -> None:
    world.plant(world.stored()[0] + 1, b"")


def five_megabytes(world: World) -> None:
    world.plant(world.stored()[0] + 1, b"KC1" + bytes(5 * 1024 * 1024))


def truncated(world: World) -> None:
    version, data = world.stored()
    world.plant(version + 1, data[:-1])


def flipped(world: World) -> None:
    version, data = world.stored()
    world.plant(version + 1, data[:40] + bytes([data[40] ^ 1]) + data[41:])


def swapped(world: World) -> None:
    """The record of the other issuer."""
    version, data = read(world.redis, names(KeySource(world.other.url, world.other.jwks_url)))
    world.plant(version + 10**6, data)


def rolled_back(world: World) -> None:
    """The record that the fleet had before a key was removed."""
    world.plant(unseal(world.old, world.source, (SEAL_KEY,)).version, world.old)


def rolled_back_as_new(world: World) -> None:
    """The same, said to be the newest."""
    world.plant(world.stored()[0] + 1, world.old)


def unsealed(world: World) -> None:
    """A key set of the writer's own, not sealed."""
    version = world.stored()[0] + 1
    world.plant(version, seal(world.evil_record(version), world.source, (), b""))


def sealed_by_somebody(world: World) -> None:
    """A key set of the writer's own, sealed with the writer's own key."""
    version = world.stored()[0] + 1
    data = seal(world.evil_record(version), world.source, (OTHER_KEY,), os.urandom(12))
    world.plant(version, data)


COUNTED: list[Callable[[World], None]] = [
    *(other_types, numbers_that_are_none, foreign, empty, five_megabytes, truncated, flipped),
    *(swapped, rolled_back, rolled_back_as_new, unsealed, sealed_by_somebody),
]


@pytest.mark.parametrize("plant", [nothing, *COUNTED], ids=lambda plant: plant.__name__)
def test_planted_is_refused_counted_and_replaced_without_asking_the_issuer(
    world: World, plant: Callable[[World], None]
) -> None:
    fleet, issuer = world.fleet, world.issuer
    eventually(world.intact, HEALED_WITHIN)
    fetches = issuer.jwks_fetches
    refused = fleet.metric("keycache_records_refused_total")
    plant(world)
    planted = time.monotonic()
    assert [200] == fleet.ask(issuer.mint()).statuses
    assert [401] == fleet.ask(world.removed).statuses
    if plant in COUNTED:
        eventually(lambda: fleet.metric("keycache_records_refused_total") > refused, HEALED_WITHIN)
    eventually(world.intact, HEALED_WITHIN)
    say(intact_again_after_seconds=time.monotonic() - planted)
    assert fetches == issuer.jwks_fetches
    assert 200 not in fleet.ask(world.evil.mint(iss=issuer.url)).statuses
    assert [200] == fleet.ask(issuer.mint(alg="ES256")).statuses


def test_rotation_after_all_that_is_one_fetch(world: World) -> None:
    fetches = world.issuer.jwks_fetches
    world.issuer.rotate()
    assert [200] == world.fleet.ask(world.issuer.mint()).statuses
    assert fetches + 1 == world.issuer.jwks_fetches
