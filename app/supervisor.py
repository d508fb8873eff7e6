"""The supervisor: the process that starts the workers, replaces the dead, and drains them.

    supervisor ── binds both listening sockets, makes the run's private directory
      ├── embedded Valkey    when no Redis is named; restarted under the same name when it dies
      ├── worker-0           a slot: whoever fills it has the same name and the same metrics files
      └── worker-N

It imports no web framework and does no work of its own, so there is little that could end it. If it
is killed all the same, the kernel closes a pipe in every worker (they drain) and ends the Valkey.

Workers are forked from one more process, which has imported what they need (multiprocessing's
forkserver): a replacement serves after a fraction of a second, runs the code that the service was
started with, and shares most of its memory with the others. They are watched and signalled through
pidfds of our own, so that they outlive a forkserver that died; the next start makes a new one.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from app.embedded import EmbeddedValkey, short_parent
from app.settings import Settings
from app.sockets import DEAF_AFTER, listen, turn_deaf, url
from keycache.errors import ConfigurationError, KeycacheError
from metrics import multiproc_dir

logger = logging.getLogger("keycache.supervisor")

QUICK_DEATH = 10.0
"""Seconds: who ends sooner after its start has not run, it has failed to."""

PAUSE_MAX = 30.0
"""Seconds between two attempts, at most."""

KILL_MARGIN = 4.0
"""Seconds after the grace period: the workers cut their last requests themselves, and say so."""

UNKNOWN_STATUS = 255
"""The exit status of a worker whose parent, the forkserver, died before it."""

FORKSERVER_ANSWER = 1.0
"""Seconds for the forkserver to say how a worker ended."""

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


class Supervisor:
    """Runs the service: `run()` returns the exit code when it has been stopped by a signal.

    work: the workers' main function; preload: modules imported once for all of them.
    """

    def __init__(self, settings: Settings, work: Work, preload: Sequence[str] = ()) -> None:
        self._settings = settings
        self._work = work
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*preload])
        self._slots = [Slot(f"worker-{number}") for number in range(settings.workers)]
        self._valkey: EmbeddedValkey | None = None
        self._valkey_lives = Lives()
        self._valkey_end: int | None = None
        self._seal_keys: tuple[bytes, ...] = ()
        self._stop_signals = 0
        self._clean = True
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
        process = self._context.Process(target=self._work, args=(job, sender), name=slot.name)
        with _signals_held():
            process.start()
        sender.close()
        slot.lives.started(time.monotonic())
        try:
            slot.worker = Worker(process, os.pidfd_open(process.pid or 0))
        except ProcessLookupError:  # it has ended already, and its report says so
            slot.lives.ended(time.monotonic())

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
        ends = self._ends()
        watched: list[Connection | socket.socket | int] = [self._wakeup, *reports, *ends]
        if self._valkey_end is not None:
            watched.append(self._valkey_end)
        news = wait(watched, timeout)
        if self._wakeup in news:
            self._wakeup.recv(64)
        for report, slot in reports.items():
            if report in news:
                self._hear(slot, report)
        for pidfd, ended in ends.items():
            if pidfd in news:
                self._bury(*ended)
        if self._valkey is not None and self._valkey_end in news:
            self._bury_valkey(self._valkey, self._valkey_end)

    def _hear(self, slot: Slot, report: Connection) -> None:
        try:
            said: Report = report.recv()
        except EOFError:  # it was killed; its pidfd says so too
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
            logger.info("%s is ready (pid %s)", slot.name, slot.worker and slot.worker.process.pid)
        elif all(each.report is None and each.worker for each in self._slots):
            self._announced = True
            count = len(self._slots)
            print(  # noqa: T201 - what whoever started us waits for
                f"ready: {url(self._public)} (admin {url(self._admin)}),"
                f" {count} worker{'s' if count > 1 else ''}",
                flush=True,
            )

    def _bury(self, slot: Slot, worker: Worker) -> None:
        how, well = worker.bury()
        slot.worker = None
        multiproc_dir.forget(self._directory, slot.name)
        if self._stop_signals:
            self._clean &= well
            return
        multiproc_dir.count_restart(self._directory)
        pause = slot.lives.ended(time.monotonic())
        _say_restart(slot.name, how, slot.lives, pause)

    def _bury_valkey(self, valkey: EmbeddedValkey, end: int) -> None:
        os.close(end)
        self._valkey_end = None
        pause = self._valkey_lives.ended(time.monotonic())
        _say_restart("the embedded Valkey", valkey.exit_status(), self._valkey_lives, pause)

    def _ends(self) -> dict[int, tuple[Slot, Worker]]:
        """What becomes readable when a worker ends, and who that is."""
        return {slot.worker.pidfd: (slot, slot.worker) for slot in self._slots if slot.worker}

    # Stopping

    def _drain(self) -> int:
        """Have the workers finish what they have begun; a second signal ends it at once."""
        logger.info("draining: requests in flight have %g s", self._settings.grace)
        deadline = time.monotonic() + self._settings.grace + KILL_MARGIN
        self._tell_workers_to_stop()
        while self._stop_signals == 1 and (ends := self._ends()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            news = wait([self._wakeup, *ends], left)
            if self._wakeup in news:
                self._wakeup.recv(64)
            for pidfd, ended in ends.items():
                if pidfd in news:
                    self._bury(*ended)
        late = [slot.name for slot in self._slots if slot.worker is not None]
        if late:
            logger.warning("killing %s", ", ".join(late))
        return 0 if self._clean and not late else 1

    def _tell_workers_to_stop(self) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.send(signal.SIGTERM)
            if slot.report is not None:
                slot.report.close()
                slot.report = None
        time.sleep(DEAF_AFTER)
        for listener in (self._public, self._admin):
            turn_deaf(listener)
            # The workers now hold the only ends: when the last one closes its own, a client is
            # refused at once, instead of waiting in a queue that nobody serves.
            listener.close()

    def _kill_workers(self) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.send(signal.SIGKILL)
                slot.worker.bury()

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Count stop signals; yields a socket that becomes readable with each."""

        def count(*_: object) -> None:
            self._stop_signals += 1

        receiver, sender = socket.socketpair()
        receiver.settimeout(0)
        sender.settimeout(0)
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
            "%s ended (%s); starting it again in %g s, as it ended within %g s of its start"
            " %d times in a row",
            *(who, how, pause, QUICK_DEATH, lives.quick_deaths),
        )
    else:
        logger.warning("%s ended (%s); starting it again", who, how)


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
