"""A contender of ops/bench/peers.py as running processes: started, judged, loaded and weighed."""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from peers_install import SERVERS, program
from peers_install import environment as debian_environment
from peers_kinds import Kind, Place

CONNECTIONS = 32
MODES = ("hot", "rotation", "new")
"""How a load uses tokens: one, a thousand in turns, each once."""

FIRST = "RS256 hot"
"""The one load of a bare server, which reads no token."""

START_TIMEOUT = 60.0  # seconds; on a busy small machine, with all the others starting too
ANSWER_TIMEOUT = 15.0  # seconds
LOAD_MARGIN = 60.0  # seconds that the load generator may take beyond its time
STOP_TIMEOUT = 10.0  # seconds
ATTEMPTS = 3  # at one load
BROKEN = 0.01  # of the requests: connections that may break under them in a load
SETTLED = 0.02  # seconds after the load in which the last requests are finished


class ContenderError(Exception):
    """A contender did not start, answered wrongly, or did not stand the load."""


class _NothingAnsweredError(ContenderError):
    """A load that was no measurement, and may be repeated."""


class Sample(NamedTuple):
    """One load in one round; the times are what a client saw, with 32 connections in a closed loop.

    cpu: µs of all processes of the server for a request. load_cpu: of the load generator.
    p50, p99, p999: milliseconds. rss: MiB of all processes after it. fetches: of the key set.
    """

    requests: int
    per_second: float
    p50: float
    p99: float
    p999: float
    cpu: float
    load_cpu: float
    rss: float
    fetches: int


class Measured(NamedTuple):
    """samples: by contender, and by `RS256 hot` and the like, one for each round.

    checks: µs of the signature check in a loop by itself, by algorithm, one for each round.
    statuses: what each contender answers to bad tokens. missing: who was not measured, and why.
    """

    samples: dict[str, dict[str, list[Sample]]]
    checks: dict[str, list[float]]
    statuses: dict[str, dict[str, int]]
    missing: dict[str, str]


class Contender:
    """A running server, inside a `with` block: with all its processes, which end with it."""

    def __init__(self, name: str, kind: Kind, place: Place) -> None:
        self.name = name
        self.kind = kind
        self.place = place
        self._log = place.directory / "output"
        command = kind.command(place)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                command.words,
                env=os.environ | command.environment,
                cwd=place.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        begun = {pid: _begun(pid) for pid in self.pids()}
        self.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid, moment in begun.items():
            # A child that outlived it is ended; a stranger that has its number since then is not.
            if moment and _begun(pid) == moment:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Tell it to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def wait_until_ready(self, token: str, seconds: float = START_TIMEOUT) -> None:
        """Return when a good token is let in. Raises ContenderError."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError, http.client.HTTPException):
                if self.status(token) == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2000:]
                raise ContenderError(f"{self.name} does not answer 200 to a good token:\n{said}")
            time.sleep(0.05)

    def status(self, token: str | None) -> int:
        """The status of the answer to this token, on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.place.port, timeout=ANSWER_TIMEOUT
        )
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection.request("GET", self.kind.path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def pids(self) -> list[int]:
        """Its processes: the one started, and all that descend from it."""
        children: dict[int, list[int]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(process.name))
        found = [self._process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def rss(self) -> float:
        """MiB in memory, of all processes added up; what they share counts for each of them."""
        pages = 0
        for pid in self.pids():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def load(self, tokens: Path, mode: str, seconds: int) -> Sample:
        """Ask with the tokens of this file for so long, as load.lua says. Raises ContenderError.

        A load in which nothing was answered is made again: that happens to anybody on a machine
        that has other things to do. A good token that is refused is the end.
        """
        for _ in range(ATTEMPTS - 1):
            with suppress(_NothingAnsweredError):
                return self._load(tokens, mode, seconds)
        return self._load(tokens, mode, seconds)

    def _load(self, tokens: Path, mode: str, seconds: int) -> Sample:
        before = self.cpu()
        words = [
            *(program("wrk"), "--threads", "1", "--connections", str(CONNECTIONS)),
            *("--duration", f"{seconds}s", "--timeout", "10s"),
            *("--script", str(SERVERS / "load.lua")),
            *(f"http://127.0.0.1:{self.place.port}{self.kind.path}", "--", str(tokens), mode),
        ]
        load = subprocess.Popen(  # noqa: S603 - our own words
            words,
            env=os.environ | debian_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + seconds + LOAD_MARGIN
        assert load.stdout is not None  # noqa: S101 - we asked for a pipe
        said = load.stdout.read()
        _, _, usage = os.wait4(load.pid, 0)
        load.returncode = 0
        if time.monotonic() > deadline:
            raise ContenderError(f"{self.name}: the load generator took too long")
        time.sleep(SETTLED)
        spent = sum(cpu - before.get(pid, 0.0) for pid, cpu in self.cpu().items())
        return self._sample(said, spent, usage.ru_utime + usage.ru_stime)

    def _sample(self, said: str, spent: float, load: float) -> Sample:
        try:
            found = json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise ContenderError(f"{self.name}: the load generator said {said!r}") from None
        if found["refused"]:
            raise ContenderError(f"{self.name}: good tokens were refused: {found}")
        if not found["answered"]:
            raise _NothingAnsweredError(f"{self.name}: nothing was answered: {found}")
        if found["failed"] > BROKEN * found["sent"]:
            raise ContenderError(f"{self.name}: connections broke: {found}")
        return Sample(
            requests=found["sent"],
            per_second=found["answered"] / found["seconds"],
            p50=found["p50"] / 1000,
            p99=found["p99"] / 1000,
            p999=found["p999"] / 1000,
            cpu=1e6 * spent / found["sent"],
            load_cpu=1e6 * load / found["sent"],
            rss=self.rss(),
            fetches=0,
        )

    def cpu(self) -> dict[int, float]:
        """The seconds of processor time of each process so far, all its threads included.

        By the process's own clock, clock_getcpuclockid(3), which counts nanoseconds where
        /proc/PID/stat has hundredths of seconds.
        """
        found = {}
        for pid in self.pids():
            with suppress(OSError):
                found[pid] = time.clock_gettime((~pid << 3) | 2)
        return found


def _begun(pid: int) -> str:
    """When a process began, as proc_pid_stat(5) has it; nothing when it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def judged(contender: Contender, good: Sequence[str], bad: dict[str, str | None]) -> dict[str, int]:
    """What it answers to the tokens that are bad, by what is wrong with them.

    Raises ContenderError when a good one is not let in or a bad one is.
    """
    for token in good:
        if contender.status(token) != 200:
            raise ContenderError(f"{contender.name} refuses a good token")
    found = {what: contender.status(token) for what, token in bad.items()}
    if (
        contender.kind.bare is not None
        and contender.kind.judges
        and not set(found.values()) <= {401, 403}
    ):
        raise ContenderError(f"{contender.name} answers bad tokens so: {found}")
    return found
