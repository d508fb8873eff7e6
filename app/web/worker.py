"""One worker: both applications in one event loop, until SIGTERM or the supervisor's end."""

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable

import uvloop

from app.supervisor import STOP_SIGNALS, Job
from app.web.admin import make_admin
from app.web.api import make_api
from app.web.server import drain, start
from keycache.sanic import JWTAuth
from metrics.observer import PrometheusObserver, flush_all

logger = logging.getLogger("keycache.worker")


def run(job: Job, ready: Callable[[], None]) -> bool:
    """Serve until told to stop, then drain. `ready` is called when requests are accepted.

    Returns whether every request was answered, none cut. Raises ConfigurationError when the
    settings cannot work.
    """
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        return runner.run(_serve(job, ready))


async def _serve(job: Job, ready: Callable[[], None]) -> bool:
    stop = asyncio.Event()
    _stop_when_told(stop)
    settings = job.settings
    issuers = settings.issuers()
    auth = JWTAuth(
        issuer=issuers,
        options=settings.options(redis_url=job.redis_url, seal_keys=job.seal_keys),
        observer=PrometheusObserver(issuer.name for issuer in issuers),
    )
    servers = [
        await start(make_api(settings, auth), job.public),
        await start(make_admin(lambda: auth.runtime, stop.is_set), job.admin),
    ]
    ready()
    await stop.wait()
    # The admin application first: its stop listeners need nothing, the other's close the runtime.
    clean = await drain(servers[::-1], settings.grace)
    flush_all()  # processes of multiprocessing's fork server run no atexit
    return clean


def _stop_when_told(stop: asyncio.Event) -> None:
    """Set `stop` on SIGTERM, and when the supervisor has gone without a word."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:

        def orphaned() -> None:
            loop.remove_reader(supervisor.sentinel)
            logger.error("the supervisor is gone: draining")
            stop.set()

        loop.add_reader(supervisor.sentinel, orphaned)
    # Held since this process began; what came meanwhile is delivered now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
