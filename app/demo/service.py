"""Service: `keycache serve` as a child process, told everything by its environment."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import app

READY = re.compile(r"ready: (?P<url>http://\S+) \(admin (?P<admin>http://\S+)\), (?P<workers>\d+)")
START_TIMEOUT = 30.0  # seconds; a start takes two or three, on a busy small machine more
STOP_TIMEOUT = 30.0  # seconds; longer than the service's own grace
ANSWER_TIMEOUT = 10.0  # seconds; longer than the service ever lets a request wait
LAST_LINES = 20


class ServiceError(Exception):
    """The service did not start, or has ended; the message holds its last lines."""


class Reply(NamedTuple):
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        """The status and, when the body gives one, the reason: `401 expired`."""
        try:
            document = json.loads(self.body)
            said = document.get("reason") or document.get("error") or document.get("message")
        except (ValueError, AttributeError):
            said = None
        return f"{self.status} {said}" if said else str(self.status)


def command_line(*arguments: str) -> list[str]:
    """The words that run `keycache` with these arguments, by this Python and from this code.

    Use them in the main thread: the process ends with the thread that started it.
    """
    # -P: a folder named `app` in the current directory is not ours.
    return [sys.executable, "-P", "-m", "app.demo.child", str(os.getpid()), *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment for `command_line`: these settings (`TTL`: "60"), and none from outside."""
    code = str(Path(app.__path__[0]).parent)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KEYCACHE_", "PROMETHEUS_"))
    }
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
        **{f"KEYCACHE_{name}": value for name, value in settings.items()},
    }


class Service:
    """The service, running inside a `with` block. Raises ServiceError when it does not start."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.url = ""
        self.admin_url = ""
        self.workers = 0
        self._ready = threading.Event()
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            command_line("serve"),
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for us; we then end the service as an operator does, with SIGTERM.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="service-log", daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        try:
            self._ready.wait(START_TIMEOUT)
        except BaseException:  # Ctrl-C, while there is no `with` block yet to end it
            self._stop()
            raise
        if not self.url:
            self._stop()
            raise self.ended()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def ended(self) -> ServiceError:
        """The error that says how it ended, with its last lines. Waits for that."""
        code = self._process.wait()
        return ServiceError("\n".join([f"the service ended with exit code {code}:", *self.lines]))

    def get(self, path: str, token: str | None = None) -> Reply:
        """Ask the public listener, over a connection of its own, so that any worker may answer.

        Raises OSError or http.client.HTTPException when there is no answer.
        """
        return _get(self.url, path, token)

    def metrics(self) -> str:
        """The page of metrics. Raises what `get` raises."""
        return _get(self.admin_url, "/metrics", None).body.decode()

    def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - we asked for a pipe
        with output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                if (ready := READY.search(line)) is not None:
                    self.workers = int(ready["workers"])
                    self.admin_url = ready["admin"]
                    self.url = ready["url"]
                    self._ready.set()
        self._ready.set()

    def _stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=1)


def _get(base: str, path: str, token: str | None) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=ANSWER_TIMEOUT)
    headers = {"Connection": "close"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())  # type: ignore[arg-type]
    finally:
        connection.close()
