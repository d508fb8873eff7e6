"""`keycache serve` as a process of its own, for tests that send it requests and signals."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

START_SECONDS = 30.0


class Answer(NamedTuple):
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        return json.loads(self.body)


def eventually(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until the condition holds; returns the seconds that took, or fails."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - started


def request(
    url: str, path: str, token: str | None = None, *, method: str = "GET", **headers: str
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=15)
    try:
        return ask(connection, path, token, method=method, **headers)
    finally:
        connection.close()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    token: str | None = None,
    *,
    method: str = "GET",
    **headers: str,
) -> Answer:
    """One request on this connection."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, fields, answer.read())


class Service:
    """The running service; its log is in a file, so that it never blocks on a full pipe."""

    def __init__(self, log: Path, settings: Mapping[str, object]) -> None:
        self._log = log
        ours = {f"KEYCACHE_{name}": str(value) for name, value in settings.items()}
        defaults = {"KEYCACHE_PORT": "0", "KEYCACHE_ADMIN_PORT": "0", "KEYCACHE_WORKERS": "2"}
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("KEYCACHE_")
        }
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "serve"],
                env=inherited | defaults | ours,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self.url = self.admin = self.ready_line = ""

    def wait_until_ready(self) -> Self:
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline()
        urls = re.findall(r"http://[^ )]+", self.ready_line)
        assert len(urls) == 2, self.log()
        self.url, self.admin = urls
        return self

    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> dict[str, int]:
        """The process id of each worker by its slot, as the log has it."""
        found = re.findall(r"(worker-\d+) is ready \(pid (\d+)\)", self.log())
        return {slot: int(pid) for slot, pid in found}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels."""
        total = 0.0
        for line in request(self.admin, "/metrics").body.decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                has = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= has.items():
                    total += float(match[3])
        return total

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()  # workers and Valkey notice
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def alive(pid: int) -> bool:
    """Whether this process runs; one that ended and is not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
