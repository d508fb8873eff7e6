"""A process with metrics, for tests: `worker.py DIRECTORY IDENTIFIER`, then commands on its input.

Each line is a JSON list, a command and its arguments; each is answered with one line of JSON.
"""

import asyncio
import json
import sys
import time
from pathlib import Path as FilePath

from keycache.events import (
    KeySetInstalled,
    LeaseAsked,
    LeaseOutcome,
    NegativeKidsChanged,
    Path,
    StoreChanged,
    Tier,
    Verified,
    WaitersChanged,
)
from metrics import multiproc_dir

ISSUER = "issuer.example"


async def main(directory: str, identifier: str) -> None:  # noqa: C901 - a command a case
    multiproc_dir.use(FilePath(directory), identifier)
    from metrics import exposition  # noqa: PLC0415 (only now may it be imported)
    from metrics.observer import PrometheusObserver  # noqa: PLC0415

    observer = PrometheusObserver([ISSUER])
    answer("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        match json.loads(line):
            case ["verify", int(count)]:
                for _ in range(count):
                    observer(Verified(ISSUER, Path.MEMORY, 0.0001, Tier.MEMORY))
                answer("counted")
            case ["install", int(version), int(keys), int(fetched_at)]:
                observer(KeySetInstalled(ISSUER, version, keys, (), fetched_at, 0.0, 0.0, keys, 0))
                answer("installed")
            case ["store", ("up" | "down") as state]:
                observer(StoreChanged(state == "up", ""))
                answer("noted")
            case ["crowd", int(waiters), int(kids)]:
                observer(WaitersChanged(ISSUER, waiters))
                observer(NegativeKidsChanged(ISSUER, kids))
                answer("noted")
            case ["budget", float(left)]:
                observer(LeaseAsked(ISSUER, LeaseOutcome.GRANTED, left))
                answer("noted")
            case ["issuers", int(count)]:
                names = [f"issuer-{number}.example" for number in range(count)]
                more = PrometheusObserver(names)
                for name in names:
                    more(KeySetInstalled(name, 1, 1, (), 1.0, 2.0, 3.0, 1, 0))
                answer("made")
            case ["cost", int(times)]:
                costs = []
                for _ in range(times):
                    started = time.thread_time()
                    exposition.page(None)
                    costs.append(time.thread_time() - started)
                answer(str(min(costs)))
            case ["page", now]:
                body, _ = exposition.page(None, now=now)
                answer(body.decode())


def answer(text: str) -> None:
    sys.stdout.write(json.dumps(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
