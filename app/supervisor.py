"""The supervisor: the process that starts the workers, replaces the dead, and drains them.

    supervisor ── binds both listening sockets, makes the run's private directory
      ├── embedded Valkey    when no Redis is named; restarted under the same name when it dies
      ├── worker-0           a slot: whoever fills it has the same name and the same metrics files
      └── worker-N

It imports no web framework and does no work of its own, so there is little that could end it. If it
is killed all the same, the kernel closes a pipe in every worker (they drain) and ends the Valkey.

A slot whose worker ended is filled again at once. When its workers end within seconds of their
start, again and again, the pauses grow: a crash loop must not eat the CPUs of the healthy workers.
Only at the first start is a worker that cannot start the end of everything, with its reason.
"""

import logging
import multiprocessing
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from app.embedded import EmbeddedValkey, short_parent
from app.settings import Settings
from app.sockets import listen, url
from keycache.errors import ConfigurationError, KeycacheError
from metrics import multiproc_dir

logger = logging.getLogger("keycache.supervisor")

QUICK_DEATH = 10.0
"""Seconds: who ends sooner after its start has not run, it has failed to."""

PAUSE_MAX = 30.0
"""Seconds between two attempts, at most."""

KILL_MARGIN = 4.0
"""Seconds after the grace period: the workers cut their last requests themselves, and say so."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
    return min(PAUSE_MAX, 0.5 * 2.0 ** (quick_deaths - 2)) if quick_deaths > 1 else 0.0


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


class Slot:
    """A worker's place: its name stays, the processes in it come and go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = Lives()
        self.process: BaseProcess | None = None
        self.report: Connection | None = None  # until it has said whether it could start


class Supervisor:
    """Runs the service: `run()` returns the exit code when it has been stopped by a signal."""

    def __init__(self, settings: Settings, work: Work) -> None:
        self._settings = settings
        self._work = work
        self._context = multiprocessing.get_context("spawn")
        self._slots = [Slot(f"worker-{number}") for number in range(settings.workers)]
        self._valkey: EmbeddedValkey | None = None
        self._valkey_lives = Lives()
        self._valkey_end: int | None = None
        self._seal_keys: tuple[bytes, ...] = ()
        self._stop_signals = 0
        self._announced = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; 0 after a clean drain, 1 when something had to be cut.

        Raises ConfigurationError when an address cannot be had or the workers refuse the settings,
        and KeycacheError when they cannot start for another reason. Call it in the main thread.
        """
        with ExitStack() as stack:
            self._wakeup = stack.enter_context(self._signals())
            settings = self._settings
            self._public = stack.enter_context(listen(settings.host, settings.port, ""))
            self._admin = stack.enter_context(
                listen(settings.admin_host, settings.admin_port, "ADMIN_")
            )
            self._directory = multiproc_dir.create(short_parent())
            stack.callback(multiproc_dir.remove, self._directory)
            if settings.redis_url is None:
                self._seal_keys = (secrets.token_bytes(32),)
                self._valkey = EmbeddedValkey(self._directory)
                stack.callback(self._valkey.stop)
                self._start_valkey(self._valkey)
                self._valkey.wait_until_ready(5.0)
            stack.callback(self._kill_workers)
            while not self._stop_signals:
                self._start_who_is_due()
                self._wait_for_news()
            return self._drain()

    # Starting

    def _start_who_is_due(self) -> None:
        now = time.monotonic()
        if self._valkey is not None and _due(self._valkey_lives, now):
            self._start_valkey(self._valkey)
        for slot in self._slots:
            if _due(slot.lives, now):
                self._start_worker(slot)

    def _start_valkey(self, valkey: EmbeddedValkey) -> None:
        self._valkey_end = valkey.start()
        self._valkey_lives.started(time.monotonic())

    def _start_worker(self, slot: Slot) -> None:
        job = Job(
            slot=slot.name,
            settings=self._settings,
            directory=self._directory,
            public=self._public,
            admin=self._admin,
            redis_url=self._valkey.url if self._valkey else None,
            seal_keys=self._seal_keys,
        )
        slot.report, sender = self._context.Pipe(duplex=False)
        slot.process = self._context.Process(target=self._work, args=(job, sender), name=slot.name)
        with _signals_held():
            slot.process.start()
        sender.close()
        slot.lives.started(time.monotonic())

    # Watching

    def _wait_for_news(self) -> None:
        """Sleep until something has ended, reported or signalled, or until a start is due."""
        dues = [
            lives.start_at
            for lives in (self._valkey_lives, *(slot.lives for slot in self._slots))
            if lives.start_at is not None and (lives is not self._valkey_lives or self._valkey)
        ]
        timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
        # A report first: who ends right after it has said why.
        reports = {slot.report: slot for slot in self._slots if slot.report is not None}
        ends = {slot.process.sentinel: slot for slot in self._slots if slot.process is not None}
        watched = [self._wakeup, *reports, *ends]
        if self._valkey_end is not None:
            watched.append(self._valkey_end)
        news = wait(watched, timeout)
        if self._wakeup in news:
            self._wakeup.recv(64)
        for report, slot in reports.items():
            if report in news:
                self._hear(slot, report)
        for sentinel, slot in ends.items():
            if sentinel in news:
                self._bury(slot)
        if self._valkey_end in news:
            self._bury_valkey()

    def _hear(self, slot: Slot, report: Connection) -> None:
        try:
            said: Report = report.recv()
        except EOFError:  # it was killed; its sentinel says so too
            said = Report(("it ended without a word",))
        report.close()
        slot.report = None
        if said.problems and not self._announced:
            if said.settings:
                raise ConfigurationError(said.problems)
            raise KeycacheError(f"{slot.name} could not start: {'; '.join(said.problems)}")
        if said.problems:
            logger.error("%s could not start: %s", slot.name, "; ".join(said.problems))
        elif self._announced:
            logger.info("%s is ready", slot.name)
        elif all(each.report is None and each.process for each in self._slots):
            self._announced = True
            count = len(self._slots)
            print(  # noqa: T201 - what whoever started us waits for
                f"ready: {url(self._public)} (admin {url(self._admin)}),"
                f" {count} worker{'s' if count > 1 else ''}",
                flush=True,
            )

    def _bury(self, slot: Slot) -> None:
        assert slot.process is not None
        slot.process.join()
        status = slot.process.exitcode or 0
        pid = slot.process.pid
        slot.process.close()
        slot.process = None
        multiproc_dir.forget(self._directory, slot.name)
        if self._stop_signals:
            return
        multiproc_dir.count_restart(self._directory)
        pause = slot.lives.ended(time.monotonic())
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        _say_restart(f"{slot.name} (pid {pid})", how, slot.lives, pause)

    def _bury_valkey(self) -> None:
        assert self._valkey is not None
        assert self._valkey_end is not None
        os.close(self._valkey_end)
        self._valkey_end = None
        if self._stop_signals:
            return
        pause = self._valkey_lives.ended(time.monotonic())
        _say_restart("the embedded Valkey", self._valkey.exit_status(), self._valkey_lives, pause)

    # Stopping

    def _drain(self) -> int:
        """Have the workers finish what they have begun; a second signal ends it at once."""
        logger.info("draining: requests in flight have %g s", self._settings.grace)
        # From now on the workers hold the only ends: when the last one closes its own, a client is
        # refused at once, and tries elsewhere, instead of waiting in a queue that nobody serves.
        self._public.close()
        self._admin.close()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()
            if slot.report is not None:
                slot.report.close()
                slot.report = None
        deadline = time.monotonic() + self._settings.grace + KILL_MARGIN
        while self._stop_signals == 1 and any(slot.process for slot in self._slots):
            ends = {slot.process.sentinel: slot for slot in self._slots if slot.process}
            left = deadline - time.monotonic()
            if left <= 0:
                break
            news = wait([self._wakeup, *ends], left)
            if self._wakeup in news:
                self._wakeup.recv(64)
            for sentinel, slot in ends.items():
                if sentinel in news:
                    self._bury(slot)
        late = [slot.name for slot in self._slots if slot.process is not None]
        if late:
            logger.warning("killing %s", ", ".join(late))
        return 1 if late else 0

    def _kill_workers(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.join()

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Count stop signals; yields a socket that becomes readable with each."""

        def count(number: int, frame: object) -> None:
            self._stop_signals += 1

        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        before = {number: signal.signal(number, count) for number in STOP_SIGNALS}
        wakeup_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            receiver.close()
            sender.close()


def _due(lives: Lives, now: float) -> bool:
    return lives.start_at is not None and lives.start_at <= now


def _say_restart(who: str, how: str, lives: Lives, pause: float) -> None:
    if pause:
        logger.error(
            "%s ended: %s; starting it again in %g s, as it ended within %g s of its start"
            " %d times in a row",
            *(who, how, pause, QUICK_DEATH, lives.quick_deaths),
        )
    else:
        logger.warning("%s ended: %s; starting it again", who, how)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold the stop signals back, so that a process started here begins with them held.

    Ctrl-C goes to the whole process group. A worker is to hear of it from the supervisor, and not
    before it can handle it: it ignores SIGINT, and lets SIGTERM through once it has its handlers.
    """
    resource_tracker.ensure_running()  # starting it, as the first spawn does, would end the hold
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
