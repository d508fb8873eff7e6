"""One worker: both applications in one event loop, until SIGTERM or the supervisor's end."""

import asyncio
import gc
import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable

import uvloop

from app.facts_log import FactsLog, together
from app.slots import RETIRE, Job
from app.supervisor import STOP_SIGNALS
from app.web.admin import make_admin
from app.web.api import make_api
from app.web.fast import fast_protocol
from app.web.first_keys import FirstKeys
from app.web.refusals import RefusalLog
from app.web.server import drain, start
from keycache.sanic import JWTAuth
from metrics.observer import PrometheusObserver, flush_all

logger = logging.getLogger("keycache.worker")

FIRST_KEYS = 1.0
"""Seconds, at most, between the start of a worker and the first request that it accepts, in which
its keys may arrive."""


SWITCH_INTERVAL = 0.0005
"""Seconds, a tenth of Python's default: how long the event loop waits for its turn while another
thread makes the metrics page.
"""


def run(job: Job, ready: Callable[[], None]) -> bool:
    """Serve until told to stop, then drain. `ready` is called when requests are accepted.

    Returns whether every request was answered, none cut. Raises ConfigurationError when the
    settings cannot work.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        return runner.run(_serve(job, ready))


async def _serve(job: Job, ready: Callable[[], None]) -> bool:
    stop, service_stops = asyncio.Event(), asyncio.Event()
    _stop_when_told(stop, service_stops)
    settings = job.settings
    issuers = settings.issuers()
    refusals = RefusalLog(
        issuers,
        settings.log_claims,
        (settings.token_bytes, settings.kid_chars),
        asyncio.get_running_loop().call_later,
        settings.token_sources(),
    )
    names = [issuer.name for issuer in issuers]
    keys = FirstKeys(names)
    observer = together(PrometheusObserver(names), FactsLog(), keys)
    auth = JWTAuth(
        issuer=issuers,
        options=settings.options(redis_url=job.redis_url, seal_keys=job.seal_keys),
        observer=observer,
        on_refusal=refusals,
        sources=settings.token_sources(),
        resource=settings.resource,
    )
    api, forward = make_api(settings, auth, refusals, observer)

    @api.before_server_start
    async def first_keys(_: object) -> None:
        """After the extension's own listener, which opens the runtime."""
        await keys.wait(FIRST_KEYS)

    servers = [
        await start(api, job.public, fast_protocol(forward) if settings.fast_verify else None),
        await start(make_admin(lambda: auth.runtime, service_stops.is_set), job.admin),
    ]
    gc.freeze()  # what is here now is here to stay: no collection need walk through it
    ready()
    await stop.wait()
    # The admin application first: its stop listeners need nothing, the other's close the runtime.
    clean = await drain(servers[::-1], settings.grace)
    refusals.close()
    flush_all()  # processes of multiprocessing's fork server run no atexit
    return clean


def _stop_when_told(stop: asyncio.Event, service_stops: asyncio.Event) -> None:
    """Set `stop` when this worker has to go: on SIGTERM, and when the supervisor has gone without a
    word, together with the service; on `RETIRE`, replaced by another worker."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        service_stops.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(RETIRE, stop.set)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:

        def orphaned() -> None:
            loop.remove_reader(supervisor.sentinel)
            logger.error("the supervisor is gone: draining")
            end()

        loop.add_reader(supervisor.sentinel, orphaned)
    # Held since this process began; what came meanwhile is delivered now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
