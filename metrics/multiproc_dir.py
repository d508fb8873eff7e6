"""The directory through which the processes of a run share their metrics: made, swept, removed.

How it works. Every process writes its metrics into small memory-mapped files in one directory,
named by metric type and process identifier, and any process can read all of them and add them up
(prometheus_client's multi-process mode). Hence whichever worker is asked, the page holds the sum.

    supervisor   directory = create()           new and private; those of dead runs are swept
    worker 0     use(directory, "worker-0")     before anything imports `metrics.instruments`
    supervisor   forget(directory, "worker-0")  when it has died, before its replacement starts
                 count_restart(directory)       when it is replaced
                 remove(directory)              after the last worker has gone

The trap. prometheus_client chooses between memory and files when it is imported, by the environment
variable PROMETHEUS_MULTIPROC_DIR. Imported too early, it counts into memory that nobody else reads,
and says nothing. So this file never imports it, `metrics.instruments` sets the choice once more
before it makes the first metric, and `use` refuses to come later than that.

The identifier. By default the files are named by process id: each restart leaves another set, for
ever. Ours are named by the worker's slot, so that a replacement goes on in its predecessor's files:
their number is bounded, and no counter falls when a worker dies, `kill -9` included (what has been
written belongs to the kernel). Two living processes must never have the same identifier.

Gauges are different: what a dead worker held is no longer so. `forget` takes its gauges away.

Who lives. Each process of a run holds a shared lock (flock) on the directory itself. The kernel
lets go of it however the process ends, so a directory that can be locked exclusively is nobody's.
"""

import fcntl
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

PREFIX = "keycache-metrics-"
ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"
_RESTARTS = "restarts"
_IDENTIFIER = re.compile(r"[A-Za-z0-9-]+")

_locks: dict[Path, int] = {}
_identifier: str | None = None


def create(parent: Path | None = None) -> Path:
    """Make a new directory, readable by this user only, and hold it until `remove` or our end.

    `parent` is where the runs of this user put theirs (default: the directory for temporary files);
    what dead runs have left there is swept first. Raises OSError when nothing can be made there.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent).absolute()
    sweep(parent)
    while True:
        # mkdtemp gives mode 0700 and a name that nobody has had.
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        if _hold(directory):
            (directory / _RESTARTS).touch()
            return directory
        # Another run swept it before we could hold it: make another one.


def use(directory: Path, identifier: str) -> None:
    """Have this process write its metrics into `directory`, in the files of `identifier`.

    An identifier is made of letters, digits and hyphens (file names are split at underscores).
    Raises ValueError for any other, RuntimeError when metrics exist already or there is no such
    directory.
    """
    global _identifier  # noqa: PLW0603 (one process, one identifier)
    if not _IDENTIFIER.fullmatch(identifier):
        raise ValueError(f"{identifier!r}: an identifier has letters, digits and hyphens only")
    if "metrics.instruments" in sys.modules:
        raise RuntimeError("metrics.instruments was imported before the directory was named")
    if directory not in _locks and not _hold(directory):
        raise RuntimeError(f"the metrics directory {directory} has been removed")
    os.environ[ENVIRONMENT] = str(directory)
    _identifier = identifier


def identifier() -> str | None:
    """The identifier given to `use`; None when it was not called."""
    return _identifier


def forget(directory: Path, identifier: str) -> None:
    """Remove the gauges of a process that has ended; its counters stay, so that no sum falls."""
    for file in directory.glob(f"gauge_*_{identifier}.db"):
        file.unlink(missing_ok=True)


def count_restart(directory: Path) -> None:
    """Count a replaced worker, in a file of our own: the supervisor loads no prometheus_client."""
    with (directory / _RESTARTS).open("ab") as file:
        file.write(b".")


def restarts(directory: Path) -> int | None:
    """How many workers were replaced; None when nobody counts them here."""
    try:
        return (directory / _RESTARTS).stat().st_size
    except FileNotFoundError:
        return None


def remove(directory: Path) -> None:
    """Remove the directory and let go of it; quiet when it has gone already."""
    shutil.rmtree(directory, ignore_errors=True)
    lock = _locks.pop(directory, None)
    if lock is not None:
        os.close(lock)


def sweep(parent: Path) -> list[Path]:
    """Remove the directories of this user's dead runs in `parent`; returns those removed."""
    swept = []
    for directory in sorted(parent.glob(f"{PREFIX}*")):
        lock = _open(directory)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid() and _locked(lock, fcntl.LOCK_EX):
                shutil.rmtree(directory, ignore_errors=True)
                swept.append(directory)
        finally:
            os.close(lock)
    return swept


def _hold(directory: Path) -> bool:
    """Lock the directory for as long as this process lives; False when it is being swept."""
    lock = _open(directory)
    if lock is None:
        return False
    # The lock may have been won on a directory that was removed meanwhile: the name decides.
    if _locked(lock, fcntl.LOCK_SH) and directory.exists():
        _locks[directory] = lock
        return True
    os.close(lock)
    return False


def _open(directory: Path) -> int | None:
    """A descriptor of the directory; None when it is gone, a link, or closed to us."""
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
