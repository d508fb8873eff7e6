"""Every fault is caused for real, and a real Prometheus, scraping four workers, raises the alert.

Two services are watched. `healthy` meets one fault after the other and is mended in between.
`doomed` loses its issuer for good when the tests begin, and goes through all that follows while
they run. The rules are the shipped ones, thirty times faster.

The latency alerts alone are proved on recorded samples only (ops/prometheus/alerts.test.yml): what
raises them is a host without CPU, which would hurt every other test too.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pytest

from app.demo.issuer import DemoIssuer
from tests.conftest import needs
from tests.ops.monitoring import diagnostics, expressions
from tests.system.fleet.conftest import QUICK
from tests.system.fleet.servers import RedisServer
from tests.system.processes import workers
from tests.system.prometheus.prometheus import Prometheus, until
from tests.system.service import Service, request

DOOMED = "doomed"
ISSUER_LOST = [
    "KeycacheKeysGoingStale",
    "KeycacheKeysAboutToExpire",
    "KeycacheIssuerUnreachable",
    "KeycacheNoKeys",
    "KeycacheAvailabilityFastBurn",
    "KeycacheAvailabilitySlowBurn",
]
SETTINGS = {
    **QUICK,
    "AUDIENCE": "demo-api",
    "BUDGET_REFILL": 1,
    "SEAL_KEYS": "A" * 43,
    "STALE": 12,
}
TTL = 4


class Senders(threading.Thread):
    """Presents the next token a few times a second, until it is stopped."""

    def __init__(self, service: Service, token: Callable[[], str], pause: float) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._token = token
        self._pause = pause
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._pause):
            with suppress(OSError, HTTPException):  # cut by a worker that is killed
                request(self._service.url, "/verify", self._token())

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join(20)


class Watched(NamedTuple):
    """What Prometheus watches. `settings` are those of the healthy service."""

    prometheus: Prometheus
    healthy: Service
    issuer: DemoIssuer
    redis: RedisServer
    settings: dict[str, object]

    def firing(self, alert: str, job: str = "keycache") -> bool:
        expression = f'ALERTS{{alertname="{alert}",job="{job}",alertstate="firing"}}'
        return bool(self.prometheus.query(expression))

    def rises(self, alert: str, job: str = "keycache", *, seconds: float = 40) -> None:
        """Wait until this alert fires; fails when it does not."""
        until(lambda: self.firing(alert, job), seconds)


def settings(issuer: DemoIssuer, **others: object) -> dict[str, object]:
    where = {"ISSUER": issuer.url, "JWKS_URL": issuer.jwks_url}
    return {**SETTINGS, **where, **others}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    binary = needs("prometheus", "apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        DemoIssuer(max_age=TTL) as issuer,
        DemoIssuer(max_age=TTL) as lost,
        RedisServer(folder / "redis") as redis,
        Service(
            folder / "healthy",
            theirs := settings(
                issuer,
                WORKERS=4,
                REDIS_URL=redis.url,
                SNAPSHOT=folder / "keys",
                REVOCATION=1,
            ),
        ) as healthy,
        Service(folder / "doomed", settings(lost, WORKERS=1)) as doomed,
        Prometheus(binary, folder / "data") as prometheus,
        Senders(healthy, issuer.mint, 0.2),
        Senders(doomed, lost.mint, 0.2),
    ):
        healthy.wait_until_ready()
        doomed.wait_until_ready()
        prometheus.scrape([healthy.admin], {DOOMED: [doomed.admin]})
        until(lambda: bool(prometheus.query(f'up{{job="{DOOMED}"}} == 1')), 20)
        lost.fail(503)
        yield Watched(prometheus, healthy, issuer, redis, theirs)


def test_healthy_service_under_load_raises_nothing(watched: Watched) -> None:
    seen = 'count_over_time(keycache_redis_up{job="keycache"}[20s]) >= 8'
    until(lambda: bool(watched.prometheus.query(seen)), 40)
    # On a machine that is busy with other things, a latency alert would be right.
    raised = 'ALERTS{job="keycache",alertstate="firing",alertname!~"KeycacheLatency.*"}'
    assert [] == watched.prometheus.query(f"last_over_time({raised}[6s])")


def test_worker_that_is_killed_is_reported(watched: Watched) -> None:
    os.kill(workers(watched.healthy)[0], signal.SIGKILL)
    watched.rises("KeycacheWorkerRestarted")


def test_workers_that_are_killed_again_and_again_are_a_crash_loop(watched: Watched) -> None:
    for _ in range(6):
        until(lambda: len(workers(watched.healthy)) == 4, 20)
        os.kill(workers(watched.healthy)[0], signal.SIGKILL)
    watched.rises("KeycacheCrashLoop")
    until(lambda: len(workers(watched.healthy)) == 4, 20)


def test_planted_record_is_reported(watched: Watched) -> None:
    [name] = watched.redis.run("KEYS", "keycache:*:record")
    version = int(watched.redis.run("HGET", name, "v")) + 1
    watched.redis.run("HSET", name, "v", version, "d", b"planted")
    watched.rises("KeycacheRecordsRefused")


def test_snapshot_that_cannot_be_written_is_reported(watched: Watched) -> None:
    folder = Path(str(watched.settings["SNAPSHOT"]))
    aside = folder.rename(folder.with_name("aside"))
    folder.touch()  # a file where the directory was
    watched.rises("KeycacheSnapshotFailing")
    folder.unlink()
    aside.rename(folder)


def test_worker_that_hangs_is_behind(watched: Watched) -> None:
    hanging = workers(watched.healthy)[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        watched.rises("KeycacheWorkerBehind")
    finally:
        os.kill(hanging, signal.SIGCONT)


def test_redis_that_does_not_answer_is_down(watched: Watched) -> None:
    watched.redis.signal(signal.SIGSTOP)
    try:
        watched.rises("KeycacheRedisDown")
    finally:
        watched.redis.signal(signal.SIGCONT)


def test_flood_of_forged_kids_is_reported(watched: Watched) -> None:
    with Senders(watched.healthy, watched.issuer.forge, 0.05):
        watched.rises("KeycacheForgedKidFlood", seconds=60)


def test_tokens_for_somebody_else_are_reported(watched: Watched) -> None:
    with Senders(watched.healthy, lambda: watched.issuer.mint(aud="another"), 0.02):
        watched.rises("KeycacheMostTokensRejected", seconds=60)


@pytest.mark.parametrize("alert", ISSUER_LOST)
def test_issuer_that_is_lost_raises_one_alert_after_the_other(watched: Watched, alert: str) -> None:
    watched.rises(alert, DOOMED, seconds=60)


@pytest.mark.parametrize("expression", expressions("keycache"))
def test_every_query_of_a_dashboard_has_an_answer(watched: Watched, expression: str) -> None:
    values = [float(sample["value"][1]) for sample in watched.prometheus.query(expression)]
    assert [] != [value for value in values if not isnan(value)]


@pytest.mark.parametrize("command", diagnostics())
def test_every_command_of_the_runbook_says_something(watched: Watched, command: str) -> None:
    program = command.split(maxsplit=1)[0]
    if program == "keycache":
        command = f"{sys.executable} -m app.cli.main {command.removeprefix('keycache ')}"
    else:
        needs(program, f"apt-get install {program}")
    settings = {f"KEYCACHE_{name}": str(value) for name, value in watched.settings.items()}
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=os.environ | settings | {"ADMIN": watched.healthy.admin},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, True) == (result.returncode, bool(result.stdout)), result.stderr


def test_service_that_is_stopped_is_down(watched: Watched) -> None:
    """The last test: nobody starts it again."""
    watched.healthy.stop()
    watched.rises("KeycacheInstanceDown")
    watched.rises("KeycacheDown")
