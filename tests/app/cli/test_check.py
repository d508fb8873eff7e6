"""`keycache check`, against a real issuer and real servers."""

import json

import pytest
import redis

from app.demo.issuer import DemoIssuer
from tests.app.cli.conftest import Keycache


def statuses(keycache: Keycache, redis_url: str) -> tuple[int, list[str]]:
    run = keycache("check", "--json", REDIS_URL=redis_url)
    return run.code, [finding["status"] for finding in run.json["findings"]]


def test_all_is_well_with_a_redis_and_an_issuer(keycache: Keycache, redis_url: str) -> None:
    assert (0, ["ok", "ok", "ok"]) == statuses(keycache, redis_url)


def test_without_a_redis_the_service_would_bring_its_own(keycache: Keycache) -> None:
    run = keycache("check")
    assert (0, True) == (run.code, "none is named" in run.out)


def test_check_leaves_nothing_in_redis(keycache: Keycache, valkey_url: str) -> None:
    keycache("check", REDIS_URL=valkey_url)
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0


def test_redis_that_does_not_answer_is_exit_2_and_the_issuer_is_checked_still(
    keycache: Keycache,
) -> None:
    assert (2, ["ok", "FAILED", "ok"]) == statuses(keycache, "unix:///nonexistent/redis.sock")


def test_redis_that_refuses_writes_is_exit_2(keycache: Keycache, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            run = keycache("check", REDIS_URL=valkey_url)
        finally:
            client.replicaof("NO", "ONE")
    assert (2, True) == (run.code, "refuses writes" in run.out)


def test_issuer_that_fails_is_exit_1(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.fail(500)
    assert (1, ["ok", "ok", "FAILED"]) == statuses(keycache, valkey_url)


def test_issuer_without_a_usable_key_is_exit_1(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.malformed(b'{"keys": []}')
    assert (1, ["ok", "ok", "FAILED"]) == statuses(keycache, valkey_url)


def test_skipped_key_is_a_warning_with_its_reason(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    document = issuer.jwks()
    document["keys"].append({"kty": "oct", "kid": "shared-secret", "k": "AAAA"})
    issuer.malformed(json.dumps(document).encode())
    run = keycache("check", REDIS_URL=valkey_url)
    assert (0, True) == (run.code, "skipped: shared-secret (" in run.out)


@pytest.mark.parametrize(
    ("offset", "status", "code"),
    [
        *((0, "ok", 0), (3, "ok", 0), (-3, "ok", 0)),
        *((8, "warning", 0), (-8, "warning", 0)),
        *((40, "FAILED", 1), (-40, "FAILED", 1)),
    ],
)
def test_clock_of_the_issuer_is_compared_with_ours(
    keycache: Keycache,
    issuer: DemoIssuer,
    valkey_url: str,
    *,
    offset: float,
    status: str,
    code: int,
) -> None:
    issuer.clock_offset = offset
    assert (code, ["ok", "ok", status]) == statuses(keycache, valkey_url)
