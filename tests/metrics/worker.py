"""A process with metrics, for tests: `worker.py DIRECTORY IDENTIFIER`, then commands on its input.

Each line is a JSON list, a command and its arguments; each is answered with one line of JSON.
"""

import asyncio
import json
import sys
from pathlib import Path as FilePath

from keycache.events import KeySetInstalled, LookedUp, Path, StoreChanged, Tier, Verified
from metrics import multiproc_dir

ISSUER = "issuer.example"


async def main(directory: str, identifier: str) -> None:
    multiproc_dir.use(FilePath(directory), identifier)
    from metrics import exposition  # noqa: PLC0415 (only now may it be imported)
    from metrics.observer import PrometheusObserver  # noqa: PLC0415

    observer = PrometheusObserver([ISSUER])
    answer("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        match json.loads(line):
            case ["verify", int(count)]:
                for _ in range(count):
                    observer(LookedUp(ISSUER, Tier.MEMORY))
                    observer(Verified(ISSUER, Path.MEMORY, 0.0001))
                answer("counted")
            case ["install", int(version), int(keys), int(fetched_at)]:
                observer(KeySetInstalled(ISSUER, version, keys, (), fetched_at, 0.0, 0.0))
                answer("installed")
            case ["store", ("up" | "down") as state]:
                observer(StoreChanged(state == "up", ""))
                answer("noted")
            case ["page", now]:
                body, _ = exposition.page(None, now=now)
                answer(body.decode())


def answer(text: str) -> None:
    sys.stdout.write(json.dumps(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
