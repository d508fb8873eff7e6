"""A worker process from its first line: what must happen before everything else is imported."""

import logging
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from app.logs import configure_logging
from app.settings import worded
from app.slots import Job, Report
from keycache.errors import ConfigurationError
from metrics import multiproc_dir

logger = logging.getLogger("keycache.worker")


def work(job: Job, pipe: Connection) -> None:
    """The main function of a worker: serve until SIGTERM, drain, return.

    Says through `pipe` that it accepts requests, or what keeps it from it. Exit status 2 for wrong
    settings, 1 for anything else that ends it early, and when a request had to be cut.
    """
    for number in (signal.SIGINT, signal.SIGHUP):  # from a terminal to the whole process group:
        signal.signal(number, signal.SIG_IGN)  # the supervisor says when we stop
    configure_logging(job.settings.log)
    try:
        multiproc_dir.use(job.directory, job.slot)
        # Imports prometheus_client, which settles at its import where it will count.
        from app.web.worker import run  # noqa: PLC0415

        clean = run(job, lambda: _say(pipe, Report()))
    except ConfigurationError as error:
        _say(pipe, Report(worded(error.problems), settings=True))
        sys.exit(2)
    except Exception as error:
        logger.exception("this worker cannot go on")
        _say(pipe, Report((f"{type(error).__name__}: {error}",)))
        sys.exit(1)
    sys.exit(0 if clean else 1)


def _say(pipe: Connection, report: Report) -> None:
    with suppress(OSError):  # nobody listens after the first report, or when the supervisor died
        pipe.send(report)
        pipe.close()
