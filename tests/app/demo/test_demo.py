"""`keycache demo` as an operator runs it: real processes, from an empty directory."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.demo import report
from app.demo.issuer import DemoIssuer
from app.demo.live import announce_rotation
from app.demo.service import Service, ServiceError, command_line, environment
from app.demo.tour import Step, Tour

SEAL_KEY = "c2VhbC1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGVzLS0"


@pytest.fixture
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer() as running:
        yield running


def settings(issuer: DemoIssuer, redis_url: str, **others: str) -> dict[str, str]:
    return {
        "ISSUER": issuer.url,
        "AUDIENCE": issuer.audience,
        "WORKERS": "2",
        "REDIS_URL": redis_url,
        "SEAL_KEYS": SEAL_KEY,
        "PORT": "0",
        "ADMIN_PORT": "0",
        "BUDGET": "8",
        **others,
    }


def start_demo(directory: Path) -> subprocess.Popen[str]:
    """Start the live demo and return when it says how to try it."""
    demo = subprocess.Popen(
        command_line("demo"),
        cwd=directory,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.endswith("/metrics\n"):
            return demo
    raise AssertionError("the demo ended")


def descendants(pid: int) -> set[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children.update(map(int, (task / "children").read_text().split()))
    return children.union(*map(descendants, children)) if children else children


def all_gone(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A tour taken in an empty directory without a terminal; the directory is its TMPDIR too."""
    directory = tmp_path_factory.mktemp("tour")
    taken = subprocess.run(
        command_line("demo", "--once"),
        cwd=directory,
        env={**environment({}), "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return taken, directory


def test_every_step_of_the_tour_comes_out_as_expected(
    tour: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    taken, _ = tour
    assert [] == [line for line in taken.stdout.splitlines() if line.startswith("FAILED")]
    assert (0, "") == (taken.returncode, taken.stderr)
    assert re.search(r"^(\d+) of \1 steps came out as expected\.$", taken.stdout, re.MULTILINE)


def test_tour_leaves_nothing_behind(
    tour: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, directory = tour
    assert [] == list(directory.iterdir())


def test_tour_notices_a_service_that_accepts_what_it_should_refuse(
    issuer: DemoIssuer, valkey_url: str
) -> None:
    careless = settings(issuer, valkey_url, AUDIENCE=f"{issuer.audience},another-api")
    with Service(careless) as service:
        steps = list(Tour(service, issuer, careless).steps())
    assert Step("token for another audience", "401 wrong_audience", "200 Access granted") in steps
    assert 1 == report(steps)


@pytest.mark.parametrize(("came", "code"), [("200", 0), ("401 expired", 1)])
def test_exit_code_is_0_only_if_every_step_agrees(came: str, code: int) -> None:
    assert code == report([Step("first", "401", "401"), Step("second", "200", came)])


def test_ctrl_c_ends_everything_and_exits_0(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    started = descendants(demo.pid)
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=30)
    assert (0, False) == (demo.returncode, "Traceback" in out)
    assert len(started) >= 4  # the supervisor, two workers, the Valkey
    assert all_gone(started, 5)


def test_sigterm_ends_everything(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    started = descendants(demo.pid)
    demo.terminate()
    demo.communicate(timeout=30)
    assert all_gone(started, 5)


def test_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    started = descendants(demo.pid)
    demo.kill()
    demo.communicate(timeout=30)
    assert all_gone(started, 30)


def test_taken_port_is_no_obstacle(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        demo = start_demo(tmp_path)
    demo.terminate()
    demo.communicate(timeout=30)


def test_rotation_is_announced_with_its_first_request(issuer: DemoIssuer, valkey_url: str) -> None:
    with Service(settings(issuer, valkey_url)) as service:
        service.get("/protected", issuer.mint())
        announced = announce_rotation(service, issuer, "ES256")
    new = issuer.kids("ES256")[-1]
    assert announced.endswith(f"{new}; its first request: 200 Access granted; key set fetched: 1")


def test_service_that_cannot_start_says_why(issuer: DemoIssuer, valkey_url: str) -> None:
    with pytest.raises(ServiceError, match=r"exit code 2(.|\n)*KEYCACHE_TTL"):
        Service(settings(issuer, valkey_url, TTL="-1")).__enter__()


def test_settings_from_outside_do_not_reach_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCACHE_REDIS_URL", "redis://production")
    ours = {name for name in environment({"TTL": "60"}) if name.startswith("KEYCACHE_")}
    assert {"KEYCACHE_TTL"} == ours


def test_folder_named_app_where_it_is_run_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the wrong app')")
    run = subprocess.run(
        command_line("seal-key"),
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (0, os.linesep.encode()) == (run.returncode, run.stdout[43:])
