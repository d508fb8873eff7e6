"""A worker's place, the process in it, and when that is started again after its death."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from app.settings import Settings

QUICK_DEATH = 10.0
"""Seconds: who ends sooner after its start has not run, it has failed to."""

PAUSE_MAX = 30.0
"""Seconds between two attempts, at most."""

UNKNOWN_STATUS = 255
"""The exit status of a worker whose parent, the forkserver, died before it."""

FORKSERVER_ANSWER = 1.0
"""Seconds for the forkserver to say how a worker ended."""


RETIRE = signal.SIGUSR1
"""Has a worker drain as SIGTERM does, while the service goes on: `/readyz` does not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker is given; it reads no environment. `redis_url` and `seal_keys` are those of
    the embedded Valkey, and count only when the settings name no Redis."""

    slot: str
    settings: Settings
    directory: Path
    public: socket.socket
    admin: socket.socket
    redis_url: str | None
    seal_keys: tuple[bytes, ...]


class Report(NamedTuple):
    """What a worker says once, through its pipe: the problems that keep it from starting, none when
    it accepts requests. `settings`: whether the operator can mend them."""

    problems: tuple[str, ...] = ()
    settings: bool = False


Work = Callable[[Job, Connection], None]
"""The worker's main function: runs in a new process until SIGTERM, then drains and returns."""


def pause_before_restart(quick_deaths: int) -> float:
    """Seconds to wait after this many quick deaths in a row: 0, 0, 0.5, 1, 2, … 30."""
    doublings = min(quick_deaths - 2, 10)  # beyond PAUSE_MAX, and never out of a float's range
    return min(PAUSE_MAX, 0.5 * 2.0**doublings) if quick_deaths > 1 else 0.0


class Lives:
    """When something was started, how often it died quickly, and when it may start again."""

    def __init__(self) -> None:
        self.quick_deaths = 0
        self.start_at: float | None = 0.0  # None while it runs
        self._started_at = 0.0

    def started(self, now: float) -> None:
        """It was started at `now` (seconds of a monotonic clock, as everywhere here)."""
        self._started_at = now
        self.start_at = None

    def ended(self, now: float) -> float:
        """It ended at `now`; returns the pause before it is started again."""
        quick = now - self._started_at < QUICK_DEATH
        self.quick_deaths = self.quick_deaths + 1 if quick else 0
        pause = pause_before_restart(self.quick_deaths)
        self.start_at = now + pause
        return pause


class Worker(NamedTuple):
    """A process, and its pidfd: readable when it has ended, and never another process's."""

    process: BaseProcess
    pidfd: int

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def bury(self) -> tuple[str, bool]:
        """Release what an ended process leaves. Returns how it ended, in words, and whether well
        (as far as anybody knows)."""
        os.close(self.pidfd)
        pid = self.process.pid
        self.process.join(FORKSERVER_ANSWER)
        status = self.process.exitcode
        if status is None or status == UNKNOWN_STATUS:
            return f"pid {pid}, nobody knows how", True
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"pid {pid}, {how}", status == 0


class Slot:
    """A worker's place: its name stays, the processes in it come and go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = Lives()
        self.worker: Worker | None = None
        self.report: Connection | None = None  # until it has said whether it could start
        self.ready = False  # it has said that it accepts requests
        self.grace = 0.0  # seconds it has to drain, by the settings it was started with
        self.kill_at: float | None = None  # it is to end, at this time at the latest
