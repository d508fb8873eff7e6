"""Two services of four workers while their issuer is slow, wrong or gone: stale, bounded, seen."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.fleet.conftest import QUICK
from tests.system.fleet.fleet import Fleet, say
from tests.system.fleet.servers import RedisServer
from tests.system.service import eventually, request

TTL = 2
STALE = 2
PERIODS = 3

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def short_lived() -> Iterator[DemoIssuer]:
    """An issuer whose key set may be cached for two seconds."""
    with DemoIssuer(max_age=TTL) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def fleet(
    issuer: DemoIssuer, short_lived: DemoIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("issuers")
    with (
        RedisServer(folder / "redis") as redis,
        Fleet(
            folder, [issuer, short_lived], [redis.url, redis.url], {**QUICK, "STALE": STALE}
        ) as fleet,
    ):
        yield fleet


def test_expiry_is_one_fetch_a_period_for_the_whole_fleet(
    fleet: Fleet, short_lived: DemoIssuer
) -> None:
    token = short_lived.mint()
    moments: list[float] = []
    before = short_lived.jwks_fetches

    def fetched() -> bool:
        moments.extend([time.monotonic()] * (short_lived.jwks_fetches - before - len(moments)))
        return len(moments) > PERIODS

    def served() -> bool:
        assert [200] == fleet.ask(token).statuses
        return fetched()

    eventually(served, (PERIODS + 2) * TTL)
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    say(shortest_period_seconds=min(pauses), longest_period_seconds=max(pauses))
    # Ahead of expiry, at 80 % of the TTL ± 10 %; the Redis clock decides, so with some play.
    assert 0.8 * 0.9 * TTL - 0.4 < min(pauses)
    assert max(pauses) < TTL + 0.4


def test_issuer_that_is_gone_is_served_stale_then_503_and_never_401(
    fleet: Fleet, short_lived: DemoIssuer
) -> None:
    token = short_lived.mint()
    assert [200] == fleet.ask(token).statuses
    short_lived.fail(503)
    started = time.monotonic()
    timeline: list[tuple[float, list[int]]] = []

    def dead() -> bool:
        timeline.append((time.monotonic() - started, fleet.ask(token).statuses))
        return timeline[-1][1] == [503]

    eventually(lambda: (200, "degraded") in fleet.readiness(), TTL + 1)
    assert [200] == fleet.ask(token).statuses
    eventually(dead, TTL + STALE + 2)
    served = max(seconds for seconds, statuses in timeline if 200 in statuses)
    say(served_for_seconds=served)
    assert {200, 503} >= {status for _, statuses in timeline for status in statuses}
    assert served < TTL + STALE + 0.5
    refused = fleet.ask(token).answers[0]
    assert "temporarily_unavailable" == refused.json()["reason"]
    assert int(refused.headers["retry-after"]) >= 1
    assert {(503, "not ready")} == set(fleet.readiness())
    fetches = short_lived.jwks_fetches
    short_lived.heal()
    seconds = eventually(lambda: fleet.ask(token).statuses == [200], 5)
    say(back_after_seconds=seconds, fetches_to_come_back=short_lived.jwks_fetches - fetches)
    assert short_lived.jwks_fetches - fetches <= 2


WRONG = {
    "html": b"<!doctype html><title>Sign in</title>",
    "nothing": b"",
    "empty set": b'{"keys": []}',
    "no usable key": b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}',
    "cut off": b'{"keys": [{"kty": "RSA", "kid": "a", "n": "x',
    "too deep": b"[" * 200_000,
    "three megabytes": json.dumps({"keys": [], "padding": "x" * 3_000_000}).encode(),
}


@pytest.mark.parametrize("document", WRONG)
def test_wrong_document_changes_nothing_that_is_held(
    fleet: Fleet, issuer: DemoIssuer, document: str
) -> None:
    eventually(lambda: fleet.ask(issuer.mint()).statuses == [200], 5)
    failures = fleet.metric("keycache_refresh_failures_total")
    statuses: set[int] = set()

    def failed() -> bool:
        statuses.update(fleet.ask(issuer.forge()).statuses)
        return fleet.metric("keycache_refresh_failures_total") > failures

    issuer.malformed(WRONG[document])
    try:
        eventually(failed, 5)  # after the pause that the failure before has left behind
    finally:
        issuer.heal()
    assert {503} == statuses
    assert [200] == fleet.ask(issuer.mint()).statuses
    assert [200] == fleet.ask(issuer.mint(alg="EdDSA")).statuses


def test_issuer_that_drips_is_given_up_and_nobody_waits_for_it(
    fleet: Fleet, issuer: DemoIssuer
) -> None:
    token = issuer.mint()
    eventually(lambda: fleet.ask(token).statuses == [200], 5)
    issuer.rotate()  # or a 304, which has no body to drip, would say that the kid is nobody's
    issuer.drip(0.05)
    try:
        forged = fleet.ask(issuer.forge())
        known = fleet.ask(token)
    finally:
        issuer.heal()
    assert ([503], [200]) == (forged.statuses, known.statuses)
    assert known.seconds < 0.5
    answer = request(fleet.services[0].admin, "/readyz")
    assert 200 == answer.status
