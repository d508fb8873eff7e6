"""Services that start when Redis, the issuer, or both are not there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.fleet.conftest import PATIENT, QUICK
from tests.system.fleet.fleet import Fleet, say
from tests.system.fleet.servers import RedisServer
from tests.system.service import eventually

FEW: dict[str, object] = {**QUICK, **PATIENT, "WORKERS": 2}

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def issuer() -> Iterator[DemoIssuer]:
    """An issuer nobody has asked yet."""
    with DemoIssuer() as issuer:
        yield issuer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that has not been started."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.kill()


def test_start_needs_no_redis(issuer: DemoIssuer, redis: RedisServer, tmp_path: Path) -> None:
    with Fleet(tmp_path, [issuer], [redis.url], FEW) as fleet:
        assert [200] == fleet.ask(issuer.mint()).statuses
        eventually(lambda: (200, "degraded") in fleet.readiness(), 5)
        redis.start()
        say(healed_after_seconds=fleet.settle(issuer))
        assert [(200, "ready")] == fleet.readiness()


def test_start_needs_no_issuer_when_redis_is_warm(
    issuer: DemoIssuer, redis: RedisServer, tmp_path: Path
) -> None:
    redis.start()
    fleet = Fleet(tmp_path, [issuer], [redis.url], FEW)
    with fleet.keycache("warm") as warm:
        assert 0 == warm.wait(15)
    issuer.fail(503)
    with fleet:
        assert [200] == fleet.ask(issuer.mint()).statuses
        assert [(200, "ready")] == fleet.readiness()
    assert 1 == issuer.jwks_fetches


def test_start_without_both_says_503_and_recovers_by_itself(
    issuer: DemoIssuer, redis: RedisServer, tmp_path: Path
) -> None:
    issuer.fail(503)
    with Fleet(tmp_path, [issuer], [redis.url], FEW) as fleet:
        token = issuer.mint()
        assert [503] == fleet.ask(token).statuses
        assert [(503, "not ready")] == fleet.readiness()
        issuer.heal()
        eventually(lambda: fleet.ask(token).statuses == [200], 5)
        redis.start()
        fleet.settle(issuer)
        assert [(200, "ready")] == fleet.readiness()
