"""One worker for ops/bench/scale.py: prints how many seconds after its imports it was ready.

Told everything by the environment, as `keycache serve` is; ends as soon as it accepts requests.
Ready means that it accepts requests and has its keys. The second number is the processor's seconds.
"""

import os
import signal
from time import perf_counter, process_time

from app.settings import Settings
from app.slots import Job
from app.sockets import listen
from metrics import multiproc_dir

if __name__ == "__main__":
    directory = multiproc_dir.create()
    multiproc_dir.use(directory, "worker-0")
    # After the directory of the metrics has been named, not before.
    from app.web.worker import run

    started, spent = perf_counter(), process_time()

    def ready() -> None:
        """Called by the worker when it accepts requests."""
        print(perf_counter() - started, process_time() - spent, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    settings = Settings.load()
    job = Job(
        slot="worker-0",
        settings=settings,
        directory=directory,
        public=listen("127.0.0.1", 0, ""),
        admin=listen("127.0.0.1", 0, "ADMIN_"),
        redis_url=None,
        seal_keys=(),
    )
    try:
        run(job, ready)
    finally:
        multiproc_dir.remove(directory)
