"""A reload replaces every worker and nobody outside notices: real processes, under load."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.load import Load, outcome
from tests.system.processes import workers
from tests.system.service import Service, eventually, request

SEAL_KEY = "A" * 43
RELOAD_SECONDS = 40  # far more than it takes
RULES = """trusted_proxies = ["127.0.0.1"]
[[rules]]
path = "/open"
access = "anonymous"
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(audience="api") as issuer:
        yield issuer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The settings that a reload reads anew."""
    return written(tmp_path / "keycache.toml")


@pytest.fixture
def service(issuer: DemoIssuer, config: Path) -> Iterator[Service]:
    """A service of the test's own."""
    with started(issuer, config) as service:
        yield service


@pytest.fixture(scope="module")
def shared_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("shared") / "keycache.toml")


@pytest.fixture(scope="module")
def shared(issuer: DemoIssuer, shared_config: Path) -> Iterator[Service]:
    """One service for the tests that leave at most two workers behind, and no failure."""
    with started(issuer, shared_config) as service:
        yield service


def written(path: Path, more: str = "", *, count: int = 2) -> Path:
    path.write_text(f'audience = ["api"]\nworkers = {count}\n{more}')
    return path


def started(issuer: DemoIssuer, config: Path, **settings: str) -> Service:
    # Empty, so that the file says it.
    needed = {"ISSUER": issuer.url, "CONFIG": config, "WORKERS": ""}
    return Service(config.with_suffix(".log"), needed | settings).wait_until_ready()


def reload(service: Service) -> None:
    """Reload, and wait until it is over, well or not."""
    before = len(endings(service))
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(endings(service)) > before, RELOAD_SECONDS)


def commanded(service: Service) -> subprocess.CompletedProcess[str]:
    """`keycache reload`, told nothing but the admin port."""
    return run_reload(KEYCACHE_ADMIN_PORT=str(urlsplit(service.admin).port))


def run_reload(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", "reload"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=RELOAD_SECONDS,
        check=False,
    )


def endings(service: Service) -> list[str]:
    return re.findall(r"the reload is over|refused the reload", service.log())


@contextmanager
def clients(service: Service, issuer: DemoIssuer) -> Iterator[list[Load]]:
    """Six clients, half of which keep their connection, for as long as the block runs."""
    token = issuer.mint()
    made = [Load(service, token, 100_000, fresh=number % 2 == 0) for number in range(6)]
    for client in made:
        client.start()
    try:
        yield made
    finally:
        for client in made:
            client.enough.set()
        for client in made:
            client.join(60)


@contextmanager
def readiness(service: Service) -> Iterator[set[int]]:
    """The statuses that `/readyz` gives while the block runs."""
    seen: set[int] = set()
    enough = threading.Event()

    def look() -> None:
        while not enough.wait(0.02):
            seen.add(request(service.admin, "/readyz").status)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        enough.set()
        thread.join(60)


@pytest.mark.parametrize("count", [1, 2])
def test_two_reloads_under_load_lose_no_request(
    shared: Service, issuer: DemoIssuer, shared_config: Path, count: int
) -> None:
    written(shared_config, count=count)
    request(shared.url, "/protected", issuer.mint())  # the keys are there
    reload(shared)  # and what the workers before have counted
    counted = shared.metric("keycache_verifications_total")
    with readiness(shared) as seen, clients(shared, issuer) as load:
        for _ in range(2):
            before = set(workers(shared))
            reload(shared)
            after = set(workers(shared))
            assert (count, set()) == (len(after), before & after)
    assert ({200}, []) == outcome(load)
    assert {200} == seen
    counted += sum(len(client.answered) for client in load)
    eventually(lambda: counted == shared.metric("keycache_verifications_total"), 5)
    assert 0 == shared.metric("keycache_worker_restarts_total")


def test_reloads_leave_the_metrics_of_one_more_worker_at_most(
    shared: Service, shared_config: Path
) -> None:
    written(shared_config)
    for _ in range(3):
        reload(shared)
    directory = metrics_directory(shared)
    names = {re.findall(r"worker-\d+", file.name)[0] for file in directory.glob("*.db")}
    assert {"worker-0", "worker-1", "worker-2"} == names


def metrics_directory(service: Service) -> Path:
    opened = Path(f"/proc/{service.process.pid}/fd").iterdir()
    return next(path for file in opened if "keycache-metrics-" in (path := file.readlink()).name)


def test_reload_takes_what_the_file_says_now(
    service: Service, issuer: DemoIssuer, config: Path
) -> None:
    token = issuer.mint(aud="reports")
    assert 401 == request(service.url, "/protected", token).status
    config.write_text('audience = ["api", "reports"]\nworkers = 3\n')
    reload(service)
    assert 200 == request(service.url, "/protected", token).status
    assert 3 == len(workers(service))


def test_reload_wanted_during_a_reload_is_not_forgotten(
    shared: Service, shared_config: Path
) -> None:
    written(shared_config)
    before = len(endings(shared))
    began = shared.log().count("reloading:")
    shared.process.send_signal(signal.SIGHUP)
    eventually(lambda: shared.log().count("reloading:") > began, RELOAD_SECONDS)
    shared.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(endings(shared)) == before + 2, RELOAD_SECONDS)


def test_wrong_settings_change_nothing_and_are_said(shared: Service, shared_config: Path) -> None:
    before = set(workers(shared))
    written(shared_config, "ttl = 1\n", count=0)
    reload(shared)
    said = shared.log().splitlines()[-1].partition("everything goes on as before: ")[2]
    found = re.findall(rf"{re.escape(str(shared_config))}:(\d): (ttl|workers): ", said)
    assert [("2", "workers"), ("3", "ttl")] == sorted(found)
    assert before == set(workers(shared))


def test_command_says_when_every_worker_has_the_new_settings(
    service: Service, issuer: DemoIssuer, config: Path
) -> None:
    token = issuer.mint(aud="reports")
    asked = {"X-Original-Method": "GET", "X-Original-URI": "/open"}
    assert 401 == request(service.url, "/verify", **asked).status
    written(config, RULES).write_text(config.read_text().replace('"api"', '"api", "reports"'))
    done = commanded(service)
    assert (0, "") == (done.returncode, done.stderr)
    assert ["reloading: 2 workers, one after another", "the reload is over: 2 workers serve"] == (
        done.stdout.splitlines()
    )
    assert {200} == {request(service.url, "/protected", token).status for _ in range(20)}
    assert {200} == {request(service.url, "/verify", **asked).status for _ in range(20)}


def test_command_says_why_the_service_refused_the_settings(
    shared: Service, shared_config: Path
) -> None:
    before = set(workers(shared))
    written(shared_config, "ttll = 1\n")
    done = commanded(shared)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"keycache: {shared_config}:3: ttll: there is no such setting" in done.stderr
    assert before == set(workers(shared))


def test_command_says_that_no_service_answers(tmp_path: Path) -> None:
    done = run_reload(KEYCACHE_CONTROL=str(tmp_path / "s"))
    assert (1, True) == (done.returncode, f"no service answers at {tmp_path}/s" in done.stderr)


def test_address_is_not_changed_by_a_reload(shared: Service, shared_config: Path) -> None:
    written(shared_config, 'admin_host = "localhost"\n')
    reload(shared)
    assert "KEYCACHE_ADMIN_HOST: only a restart changes it" in shared.log()


def test_first_new_worker_that_cannot_start_is_the_last(
    issuer: DemoIssuer, config: Path, valkey_url: str
) -> None:
    written(config, f'redis_url = "{valkey_url}"\n')
    with started(issuer, config, SEAL_KEYS=SEAL_KEY) as service:
        before = set(workers(service))
        written(config, 'redis_url = "redis://h:x"\n')  # only workers see what is wrong with it
        reload(service)
        assert "worker-2 could not start: KEYCACHE_REDIS_URL" in service.log()
        done = commanded(service)
        assert (1, True) == (done.returncode, "could not start: KEYCACHE_REDIS_URL" in done.stderr)
        assert before == set(workers(service))
        written(config, f'redis_url = "{valkey_url}"\n')
        reload(service)
        assert set() == before & set(workers(service))
        assert 200 == request(service.url, "/protected", issuer.mint()).status


def test_worker_killed_during_a_reload_is_not_missed(service: Service, issuer: DemoIssuer) -> None:
    assert 200 == request(service.url, "/protected", issuer.mint()).status
    victim = workers(service)[-1]
    service.process.send_signal(signal.SIGHUP)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(endings(service)) == 1, RELOAD_SECONDS)
    assert (2, False) == (len(workers(service)), victim in workers(service))
    assert 200 == request(service.url, "/protected", issuer.mint()).status


def test_stop_during_a_reload_drains_everybody(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: "worker-2 is ready" in service.log(), RELOAD_SECONDS)
    assert 0 == service.stop()


def test_service_manager_hears_of_every_change(
    issuer: DemoIssuer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"keycache-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{address}")
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        heard: queue.Queue[str] = queue.Queue()
        # All the time, as a manager does: the kernel keeps ten of them, then the sender waits.
        threading.Thread(target=hear, args=(manager, heard), daemon=True).start()
        with started(issuer, config) as service:
            assert "READY=1" == change(heard)
            service.process.send_signal(signal.SIGHUP)
            assert "RELOADING=1" == change(heard)
            assert "READY=1" == change(heard)
            assert "WATCHDOG=1" == heard.get(timeout=RELOAD_SECONDS)
            service.process.terminate()
            assert "STOPPING=1" == change(heard)
            assert 0 == service.process.wait(RELOAD_SECONDS)


def hear(manager: socket.socket, heard: "queue.Queue[str]") -> None:
    """Keep the first line of all that is said, until the socket is closed."""
    with suppress(OSError):
        while True:
            heard.put(manager.recv(1000).decode().partition("\n")[0])


def change(heard: "queue.Queue[str]") -> str:
    """The next change of state, past the signs of life."""
    while (said := heard.get(timeout=RELOAD_SECONDS)) == "WATCHDOG=1":
        pass
    return said


def test_closed_terminal_stops_the_service(issuer: DemoIssuer) -> None:
    terminal, ours = os.openpty()
    environment = {name: text for name, text in os.environ.items() if "KEYCACHE" not in name}
    environment |= {"KEYCACHE_ISSUER": issuer.url, "KEYCACHE_AUDIENCE": "api"}
    environment |= {"KEYCACHE_PORT": "0", "KEYCACHE_ADMIN_PORT": "0", "KEYCACHE_WORKERS": "1"}
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "app.cli.main", "serve"],
        env=environment,
        stdin=ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.close(ours)
    assert process.stdout is not None
    port = urlsplit(process.stdout.readline().split()[1]).port
    assert port
    os.close(terminal)
    assert 0 == process.wait(20)
    process.stdout.close()
