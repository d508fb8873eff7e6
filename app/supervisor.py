"""The supervisor: the process that starts the workers, replaces them, and drains them.

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

SIGHUP and `keycache reload`: the settings are read anew and the workers replaced one by one, the
new one first.

    worker-0 serves           worker-0 drains, ends      worker-0 starts (new)     worker-0 serves
    worker-1 serves           worker-1 serves            worker-1 serves           worker-1 drains …
    worker-2 starts (new)     worker-2 serves            worker-2 serves           worker-2 serves

There is one name more than there are workers, free but for these moments: two processes never write
into the same metrics files, their number stays bounded, and no fewer workers serve than before.
Settings that are wrong change nothing; nor do those with which the first new worker cannot start.
"""

import logging
import multiprocessing
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from app import systemd
from app.control import Control, default_path
from app.embedded import EmbeddedValkey, short_parent
from app.settings import PREFIX, Settings
from app.slots import QUICK_DEATH, RETIRE, Job, Lives, Report, Slot, Work, Worker
from app.sockets import DEAF_AFTER, listen, turn_deaf, url
from keycache.errors import ConfigurationError, KeycacheError
from metrics import multiproc_dir

logger = logging.getLogger("keycache.supervisor")

KILL_MARGIN = 4.0
"""Seconds after the grace period: the workers cut their last requests themselves, and say so."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

RESTART_ONLY = ("host", "port", "admin_host", "admin_port", "control")
"""Settings of the listening sockets, which outlive every worker."""


class Supervisor:
    """Runs the service: `run()` returns the exit code when it has been stopped by a signal.

    settings: those of the start; a reload takes what `Settings.load()` finds then. work:
    the workers' main function; preload: modules imported once for all of them.
    """

    def __init__(self, settings: Settings, work: Work, preload: Sequence[str] = ()) -> None:
        self._settings = settings
        self._work = work
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*preload])
        self._slots = [Slot(_name(number)) for number in range(settings.workers)]
        self._old: list[Slot] = []  # whom a reload has yet to replace, and whom it has retired
        self._before: Settings | None = None  # the way back, until a new worker serves
        self._reload_wanted = False
        self._rolling = False
        self._terminal = os.isatty(0)
        self._watchdog_pause = systemd.watchdog_pause()
        self._control = Control(None)
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
            self._control = _control(settings, self._admin)
            stack.callback(self._control.close)
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
                self._roll()
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
        slot.grace = self._settings.grace
        slot.report, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=self._work, args=(job, sender), name=slot.name)
        slot.lives.started(time.monotonic())
        try:
            with _signals_held():
                process.start()
        except (OSError, EOFError) as error:
            # The forkserver died under it; the next start makes a new one.
            slot.report.close()
            slot.report = None
            pause = slot.lives.ended(time.monotonic())
            why = type(error).__name__
            logger.warning("%s could not be started (%s); again in %g s", slot.name, why, pause)
            return
        finally:
            sender.close()
        try:
            slot.worker = Worker(process, os.pidfd_open(process.pid or 0))
        except ProcessLookupError:  # it has ended already, and its report says so
            slot.lives.ended(time.monotonic())

    # Watching

    def _wait_for_news(self) -> None:
        """Sleep until something has ended, reported or signalled, or until a start is due."""
        dues = [slot.lives.start_at for slot in self._slots]
        dues += [slot.kill_at for slot in self._old]
        if self._valkey is not None:
            dues.append(self._valkey_lives.start_at)
        # A report first: who ends right after it has said why.
        reports = {slot.report: slot for slot in self._slots if slot.report is not None}
        ends = self._ends()
        watched: list[Connection | socket.socket | int] = [self._wakeup, *reports, *ends]
        watched += self._control.watched
        if self._valkey_end is not None:
            watched.append(self._valkey_end)
        news = self._wait(watched, min((due for due in dues if due is not None), default=None))
        if self._control.hear(news):
            self._reload_wanted = True
        for report, slot in reports.items():
            if report in news:
                self._hear(slot, report)
        for pidfd, ended in ends.items():
            if pidfd in news:
                self._bury(*ended)
        end = self._valkey_end
        if self._valkey is not None and end is not None and end in news:
            self._bury_valkey(self._valkey, end)

    def _wait(
        self, watched: list[Connection | socket.socket | int], until: float | None
    ) -> Sequence[object]:
        """Those of the watched that are readable; none when it is `until`, or time for a sign of
        life to the service manager."""
        pauses = [] if until is None else [max(0.0, until - time.monotonic())]
        if self._watchdog_pause is not None:
            systemd.notify("WATCHDOG=1")
            pauses.append(self._watchdog_pause)
        news = wait(watched, min(pauses, default=None))
        if self._wakeup in news:
            self._wakeup.recv(64)
        return news

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
        slot.ready = not said.problems
        if said.problems:
            logger.error("%s could not start: %s", slot.name, "; ".join(said.problems))
            if self._before is not None:
                self._go_back(slot, self._before)
                why = (f"{slot.name} could not start: {problem}" for problem in said.problems)
                self._control.end((*why, "everything goes on as before"), ok=False)
            else:
                self._control.say(f"{slot.name} could not start; trying again")
        elif self._announced:
            self._before = None
            logger.info("%s is ready (pid %s)", slot.name, slot.worker and slot.worker.process.pid)
        elif all(each.ready for each in self._slots):
            self._announced = True
            systemd.notify("READY=1", self._status())
            count = len(self._slots)
            print(  # noqa: T201 - what whoever started us waits for
                f"ready: {url(self._public)} (admin {url(self._admin)}),"
                f" {count} worker{'s' if count > 1 else ''}",
                flush=True,
            )

    def _bury(self, slot: Slot, worker: Worker) -> None:
        how, well = worker.bury()
        slot.worker = None
        slot.ready = False
        multiproc_dir.forget(self._directory, slot.name)
        if self._stop_signals:
            self._clean &= well
            return
        if slot.kill_at is not None:
            log = logger.info if well else logger.warning
            log("%s has left (%s)", slot.name, how)
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
        slots = self._slots + self._old
        return {slot.worker.pidfd: (slot, slot.worker) for slot in slots if slot.worker}

    # Reloading

    def _roll(self) -> None:
        """Take the next step of a reload when the last one is done; begin one that is wanted."""
        if self._reload_wanted and self._announced and not self._rolling:
            self._begin_reload()
        if not self._rolling:
            return
        # Who has died is not replaced like for like, unless that way back is still open.
        self._old = [
            slot for slot in self._old if slot.worker or (self._before and slot.kill_at is None)
        ]
        leaving = [slot for slot in self._old if slot.kill_at is not None]
        for slot in leaving:
            self._kill_when_late(slot)
        if leaving or not all(slot.ready for slot in self._slots):
            return
        if self._slots and len(self._slots) + len(self._old) > self._settings.workers:
            self._retire(self._old[0])
        elif len(self._slots) < self._settings.workers:
            self._slots.append(Slot(self._free_name()))
        else:
            self._rolling = False
            logger.info("the reload is over: %d workers serve", len(self._slots))
            self._control.end([f"the reload is over: {len(self._slots)} workers serve"], ok=True)
            systemd.notify("READY=1", self._status())
            if self._reload_wanted:  # while this one was going on
                self._roll()

    def _begin_reload(self) -> None:
        self._reload_wanted = False
        systemd.reloading()
        self._control.begin()
        try:
            settings = Settings.load()
            if problems := _restart_needed(self._settings, settings):
                raise ConfigurationError(problems)
        except ConfigurationError as error:
            logger.error(  # noqa: TRY400 - an operator's mistake needs no traceback
                "refused the reload, everything goes on as before: %s", "; ".join(error.problems)
            )
            systemd.notify("READY=1", "STATUS=The last reload was refused, see the log")
            self._control.end((*error.problems, "everything goes on as before"), ok=False)
            return
        logger.info("reloading: %d workers, one after another", settings.workers)
        self._control.say(f"reloading: {settings.workers} workers, one after another")
        self._before, self._settings = self._settings, settings
        self._old, self._slots = self._slots, []
        self._rolling = True

    def _go_back(self, failed: Slot, before: Settings) -> None:
        """Leave it at the old workers, as the first new one could not start."""
        logger.error("%s ends the reload, everything goes on as before", failed.name)
        self._before, self._settings = None, before
        self._slots, self._old = self._old, [failed]
        failed.kill_at = time.monotonic() + KILL_MARGIN

    def _retire(self, slot: Slot) -> None:
        """Have a worker drain, although the service goes on."""
        slot.kill_at = time.monotonic() + slot.grace + KILL_MARGIN
        if slot.worker is not None:
            slot.worker.send(RETIRE)

    def _kill_when_late(self, slot: Slot) -> None:
        if slot.worker is not None and (slot.kill_at or 0.0) <= time.monotonic():
            logger.warning("killing %s", slot.name)
            slot.worker.send(signal.SIGKILL)
            slot.kill_at = time.monotonic() + KILL_MARGIN

    def _free_name(self) -> str:
        """The lowest name that no process has."""
        taken = {slot.name for slot in self._slots + self._old}
        return next(name for name in map(_name, range(len(taken) + 1)) if name not in taken)

    def _status(self) -> str:
        return f"STATUS={len(self._slots)} workers serve {url(self._public)}"

    # Stopping

    def _drain(self) -> int:
        """Have the workers finish what they have begun; a second signal ends it at once."""
        logger.info("draining: requests in flight have %g s", self._settings.grace)
        systemd.notify("STOPPING=1", "STATUS=Draining")
        deadline = time.monotonic() + self._settings.grace + KILL_MARGIN
        self._tell_workers_to_stop()
        while self._stop_signals == 1 and (ends := self._ends()):
            if time.monotonic() >= deadline:
                break
            news = self._wait([self._wakeup, *ends], deadline)
            for pidfd, ended in ends.items():
                if pidfd in news:
                    self._bury(*ended)
        late = [slot.name for slot in self._slots + self._old if slot.worker is not None]
        if late:
            logger.warning("killing %s", ", ".join(late))
        return 0 if self._clean and not late else 1

    def _tell_workers_to_stop(self) -> None:
        for slot in self._slots + self._old:
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
        for slot in self._slots + self._old:
            if slot.worker is not None:
                slot.worker.send(signal.SIGKILL)
                slot.worker.bury()

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Note stop signals and SIGHUP; yields a socket that becomes readable with each."""

        def stop(*_: object) -> None:
            self._stop_signals += 1

        def hang_up(*_: object) -> None:
            # Somebody's wish, or the terminal has been closed.
            if self._terminal and not os.isatty(0):
                stop()
            else:
                self._reload_wanted = True

        receiver, sender = socket.socketpair()
        receiver.settimeout(0)
        sender.settimeout(0)
        before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
        wakeup_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            receiver.close()
            sender.close()


def _name(number: int) -> str:
    return f"worker-{number}"


def _restart_needed(old: Settings, new: Settings) -> list[str]:
    """One sentence for each changed setting that no reload can change."""
    changed = [name for name in RESTART_ONLY if getattr(old, name) != getattr(new, name)]
    if (old.redis_url is None) != (new.redis_url is None):
        changed.append("redis_url")  # the embedded Valkey comes and goes with the service
    return [f"{PREFIX}{name.upper()}: only a restart changes it" for name in changed]


def _control(settings: Settings, admin: socket.socket) -> Control:
    """Where `keycache reload` asks. Raises ConfigurationError for a path that is of no use.

    Only for one that was named: the default one is a convenience, which nobody on this host shall
    be able to keep the service from starting with.
    """
    if settings.control is not None:
        return Control(settings.control)
    try:
        return Control(default_path(admin.getsockname()[1]))
    except ConfigurationError as error:
        logger.warning("`keycache reload` cannot be answered; SIGHUP can: %s", error)
        return Control(None)


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
