"""What one worker costs: its start beside a warm Redis, and its memory with a full token cache."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench_servers import SEAL_KEY, fill, free_port, redis
from peers_kinds import KINDS, OURS, Place
from peers_run import Contender

from app.demo.issuer import DemoIssuer
from app.demo.service import environment

HERE = Path(__file__).parent
AUDIENCE = "bench"
CACHED = 10_000
"""Tokens: the default size of the token cache."""

PASSES = 4
"""Times that all tokens are sent, each time to one of two workers: both are to have nearly all."""

LATENCY = 0.05
"""Seconds that the issuer is away; a start beside a warm Redis does not ask it."""


class Costs(NamedTuple):
    """start, spent: seconds until a worker was ready, and of them the processor's, one for each.

    fetches: of the key set, for all those starts. memory: MiB of one worker, by server; each the
    larger of two. cached: tokens in its cache.
    """

    start: list[float]
    spent: list[float]
    fetches: int
    memory: Mapping[str, float]
    cached: int


def measure(starts: int, tokens: int) -> Costs:
    """Start so many workers, one after the other; fill two servers with so many tokens."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="scale-")))
        issuer = DemoIssuer(AUDIENCE)
        issuer.latency = LATENCY
        stack.enter_context(issuer)
        port = stack.enter_context(redis(directory))
        seconds, spent, fetches = _starts(issuer, port, starts)
        texts = [issuer.mint(alg="ES256") for _ in range(tokens)]
        memory = {}
        for number, name in enumerate(("Sanic", *OURS)):
            own = directory / str(number)
            own.mkdir()
            place = Place(own, free_port(), issuer.url, AUDIENCE, "", 0)
            with Contender(name, KINDS[name], place) as server:
                memory[name] = _filled(server, place.port, texts)
        return Costs(seconds, spent, fetches, memory, tokens)


def _starts(
    issuer: DemoIssuer, redis_port: int, count: int
) -> tuple[list[float], list[float], int]:
    settings = {
        "ISSUER": issuer.url,
        "AUDIENCE": AUDIENCE,
        "JWKS_URL": issuer.jwks_url,
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "SEAL_KEYS": SEAL_KEY,
    }
    found: list[float] = []
    spent: list[float] = []
    before = 0
    for number in range(count + 1):
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, str(HERE / "scale_start.py")],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        if number == 0:
            before = issuer.jwks_fetches  # the first one made Redis warm
        else:
            seconds, processor = map(float, done.stdout.split())
            found.append(seconds)
            spent.append(processor)
    return found, spent, issuer.jwks_fetches - before


def _filled(server: Contender, port: int, texts: list[str]) -> float:
    """MiB of the larger worker when it has verified all these tokens."""
    server.wait_until_ready(texts[0])
    before = server.cpu()
    for _ in range(PASSES):
        fill(port, server.kind.path, texts)
    spent = {pid: cpu - before.get(pid, 0.0) for pid, cpu in server.cpu().items()}
    workers = sorted(spent, key=lambda pid: spent[pid])[-2:]  # the two that did the work
    return max(map(_rss, workers))


def _rss(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def rows(costs: Costs) -> list[tuple[str, str, str]]:
    """What was wanted, measured, reached."""
    start = 1000 * median(costs.start)
    found = [
        (
            "a worker beside a warm Redis is ready at most 150 ms after its imports",
            f"{start:.0f} ms, {1000 * median(costs.spent):.0f} of them the processor's",
            start <= 150,
        ),
        (
            f"{len(costs.start)} such starts ask the issuer for no keys",
            f"{costs.fetches} fetches",
            costs.fetches == 0,
        ),
    ]
    for name in OURS:
        more = costs.memory[name] - costs.memory["Sanic"]
        found.append(
            (
                f"{name}, {costs.cached:,} cached tokens: at most bare Sanic + 25 MiB a worker",
                f"+ {more:.1f} MiB",
                more <= 25,
            )
        )
    return [(text, measured, "yes" if met else "**no**") for text, measured, met in found]
