"""Several processes, one page."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from metrics import multiproc_dir
from tests.metrics.conftest import ROOT, Worker

ACCEPTED = "keycache_verifications_total{issuer=issuer.example,outcome=accepted}"
LOOKED_UP = "keycache_lookups_total{issuer=issuer.example,tier=memory}"
OBSERVED = "keycache_verification_duration_seconds_count{path=memory}"
VERSION = "keycache_keyset_version{issuer=issuer.example}"
KEYS = "keycache_keyset_keys{issuer=issuer.example}"
AGE = "keycache_keyset_age_seconds{issuer=issuer.example}"
RESTARTS = "keycache_worker_restarts_total{}"
REDIS_UP = "keycache_redis_up{}"

Start = Callable[[str], Worker]


def eventually(expected: float, name: str, worker: Worker) -> float | None:
    """The sample once it is as expected, or as it is after two seconds."""
    deadline = time.monotonic() + 2
    while (value := worker.page().get(name)) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


def test_whichever_process_answers_the_page_holds_the_sum(start: Start) -> None:
    workers = [start(f"worker-{slot}") for slot in range(3)]
    for count, worker in zip((1, 20, 300), workers, strict=True):
        worker.tell("verify", count)
    for name in (ACCEPTED, LOOKED_UP, OBSERVED):
        assert [321] * 3 == [eventually(321, name, worker) for worker in workers]


def test_page_holds_everything_its_own_process_has_counted(start: Start) -> None:
    worker = start("worker-0")
    worker.tell("verify", 7)
    page = worker.page()
    assert [7, 7, 7] == [page[ACCEPTED], page[LOOKED_UP], page[OBSERVED]]


def test_killed_and_replaced_process_never_makes_a_counter_fall(
    start: Start, directory: Path
) -> None:
    survivor, victim = start("worker-0"), start("worker-1")
    victim.tell("verify", 40)
    seen = [victim.page()[ACCEPTED], survivor.page()[ACCEPTED]]
    victim.kill()
    seen.append(survivor.page()[ACCEPTED])
    multiproc_dir.forget(directory, "worker-1")
    seen.append(survivor.page()[ACCEPTED])
    replacement = start("worker-1")
    seen.append(survivor.page()[ACCEPTED])
    replacement.tell("verify", 2)
    seen.append(replacement.page()[ACCEPTED])
    assert [40, 40, 40, 40, 40, 42] == seen


def test_process_that_ends_in_peace_loses_nothing(start: Start) -> None:
    survivor, leaver = start("worker-0"), start("worker-1")
    leaver.tell("verify", 5)
    leaver.stop()
    assert 5 == survivor.page()[ACCEPTED]


SHORT_LIVES = """
import http.server, inspect, os, signal, sys, typing  # what prometheus_client imports, not itself
from pathlib import Path
from metrics import multiproc_dir
for _ in sys.stdin:
    if pid := os.fork():
        os.waitpid(pid, 0)
        print("ended", flush=True)
        continue
    multiproc_dir.use(Path(sys.argv[1]), "worker-0")
    from metrics import instruments
    instruments.VERIFICATIONS.labels("issuer.example", "accepted").inc()
    instruments.VERIFICATION_DURATION.labels("memory").observe(0.0001)
    instruments.KEYSET_VERSION.labels("issuer.example").set(1)
    instruments.KEYSET_SKIPPED.labels("issuer.example").set(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A process for each line of the input, forked, so that only its metrics have to be imported."""


def test_fifty_restarts_leave_a_bounded_number_of_files_and_lose_no_count(
    start: Start, directory: Path
) -> None:
    files = set()
    with subprocess.Popen(
        [sys.executable, "-c", SHORT_LIVES, str(directory)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as lives:
        assert lives.stdin is not None
        assert lives.stdout is not None
        for _ in range(50):
            lives.stdin.write("live\n")
            lives.stdin.flush()
            assert "ended\n" == lives.stdout.readline()
            files.add(len([*directory.glob("*.db")]))
            multiproc_dir.forget(directory, "worker-0")
    page = start("worker-1").page()
    assert ({4}, 50, 50) == (files, page[ACCEPTED], page[OBSERVED])


def test_every_series_is_there_before_its_first_event(start: Start) -> None:
    page = start("worker-0").page()
    assert {
        ACCEPTED: 0,
        LOOKED_UP: 0,
        OBSERVED: 0,
        KEYS: 0,
        VERSION: 0,
        RESTARTS: 0,
        "keycache_verification_failures_total{issuer=unknown,reason=unknown_issuer}": 0,
        "keycache_refreshes_total{cause=unknown_kid,issuer=issuer.example,result=failed}": 0,
        "keycache_jwks_fetches_total{issuer=issuer.example,status=none}": 0,
        "keycache_records_refused_total{code=seal,issuer=issuer.example}": 0,
    }.items() <= page.items()


def test_version_and_keys_are_those_of_the_process_left_behind(start: Start) -> None:
    ahead, behind = start("worker-0"), start("worker-1")
    ahead.tell("install", 1_700_000_009_000, 3, 1_700_000_009)
    behind.tell("install", 1_700_000_001_000, 2, 1_700_000_001)
    page = ahead.page()
    assert (1_700_000_001_000, 2) == (page[VERSION], page[KEYS])


def test_age_is_that_of_the_oldest_key_set_at_the_moment_of_asking(start: Start) -> None:
    fresh, old, empty = start("worker-0"), start("worker-1"), start("worker-2")
    fresh.tell("install", 2, 1, 1_000_090)
    old.tell("install", 1, 1, 1_000_000)
    assert [100.0, 250.0] == [empty.page(now)[AGE] for now in (1_000_100, 1_000_250)]


def test_age_has_no_value_while_nobody_holds_a_key_set(start: Start) -> None:
    assert AGE not in start("worker-0").page()


def test_redis_is_down_when_one_process_cannot_reach_it(start: Start) -> None:
    one, other = start("worker-0"), start("worker-1")
    one.tell("store", "up")
    before = other.page()[REDIS_UP]
    other.tell("store", "down")
    assert (1, 0) == (before, one.page()[REDIS_UP])


def test_process_that_has_not_asked_redis_does_not_report_it_down(start: Start) -> None:
    start("worker-0").tell("store", "up")
    assert 1 == start("worker-1").page()[REDIS_UP]


def test_forgotten_process_leaves_no_gauge_behind(start: Start, directory: Path) -> None:
    survivor, victim = start("worker-0"), start("worker-1")
    survivor.tell("install", 9, 3, 900)
    survivor.tell("store", "up")
    victim.tell("install", 1, 1, 100)
    victim.tell("store", "down")
    victim.kill()
    multiproc_dir.forget(directory, "worker-1")
    page = survivor.page(1000)
    assert (9, 3, 100, 1) == (page[VERSION], page[KEYS], page[AGE], page[REDIS_UP])


def test_restarts_are_counted_by_whoever_restarts(start: Start, directory: Path) -> None:
    worker = start("worker-0")
    multiproc_dir.count_restart(directory)
    multiproc_dir.count_restart(directory)
    assert 2 == worker.page()[RESTARTS]


def test_file_of_a_process_that_is_just_starting_does_not_break_the_page(
    start: Start, directory: Path
) -> None:
    worker = start("worker-0")
    worker.tell("verify", 1)
    (directory / "counter_worker-1.db").touch()
    assert 1 == worker.page()[ACCEPTED]


def test_skew_is_the_newest_version_less_the_oldest(start: Start) -> None:
    ahead, behind = start("worker-0"), start("worker-1")
    ahead.tell("install", 1_700_000_009_500, 3, 1_700_000_009)
    behind.tell("install", 1_700_000_001_000, 2, 1_700_000_001)
    name = "keycache_keyset_version_skew{issuer=issuer.example}"
    assert 8500 == ahead.page()[name]


def test_waiters_are_added_up_and_negative_kids_are_those_of_the_fullest(start: Start) -> None:
    one, other = start("worker-0"), start("worker-1")
    one.tell("crowd", 3, 200)
    other.tell("crowd", 4, 50)
    page = one.page()
    names = ("keycache_waiters", "keycache_negative_kids")
    assert [7, 200] == [page[f"{name}{{issuer=issuer.example}}"] for name in names]


def test_budget_is_that_of_who_asked_last(start: Start) -> None:
    one, other = start("worker-0"), start("worker-1")
    one.tell("budget", 1.0)
    other.tell("budget", 1.75)
    other.tell("budget", 0.75)
    one.tell("budget", 0.5)
    assert 0.5 == other.page()["keycache_forced_refresh_budget{issuer=issuer.example}"]


def test_workers_that_live_are_counted(start: Start, directory: Path) -> None:
    survivor, victim = start("worker-0"), start("worker-1")
    before = survivor.page()["keycache_workers{}"]
    victim.kill()
    multiproc_dir.forget(directory, "worker-1")
    assert (2, 1) == (before, survivor.page()["keycache_workers{}"])


def test_page_over_sixteen_workers_costs_less_than_fifty_milliseconds(
    start: Start, directory: Path
) -> None:
    """With every series of two issuers; in time of the processor, the best of three."""
    start("worker-0").tell("issuers", 2)
    for file in directory.glob("*_worker-0.db"):
        for slot in range(1, 16):
            shutil.copy(file, file.with_name(file.name.replace("worker-0", f"worker-{slot}")))
    assert float(start("worker-16").tell("cost", 3)) < 0.050
