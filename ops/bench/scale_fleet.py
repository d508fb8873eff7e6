"""What a fleet costs its Redis and its issuer: counted on small fleets, calculated for large ones.

The calculation follows how a worker works (keycache/refresher.py). Between two key sets it looks at
the version every POLL seconds; the one whose keys are due first takes the lease, fetches and saves;
the message about that has every worker load the new record. Sizes are those of RESP on the wire.

A counted fleet is so many runtimes of keycache on a real Valkey, with a real issuer; in one
process, which neither can tell from as many. Real processes are counted by ops/bench/fleet.py.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench_servers import redis
from redis import Redis

from app.demo.issuer import DemoIssuer
from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.adapters.redis_store import RedisStore
from keycache.core.budget import Limits
from keycache.core.freshness import Lifetimes
from keycache.events import ignore
from keycache.issuer import Issuer, KeySource
from keycache.runtime import Options, Runtime

AUDIENCE = "bench"
HOUR = 3600.0
STEPS = 2000
SETTLE = 4.0  # seconds from the start of a fleet to the count
JITTER = 0.1  # of the moment of refreshing, up and down
FETCH = 0.02  # seconds, with an issuer on the same machine


class Traffic(NamedTuple):
    """What passes in a time. fetches: of the key set. steps: commands to Redis, each a Lua step.

    messages: deliveries of news. received, sent: bytes that Redis receives and sends, all workers
    together. cpu: seconds of Redis's own.
    """

    fetches: float
    steps: float
    messages: float
    received: float
    sent: float
    cpu: float


class Case(NamedTuple):
    """A fleet: so many workers, a key set that is fresh so long, and looks so far apart (seconds).

    fetch: seconds from taking the lease to the message. record: bytes of the sealed record.
    """

    workers: int
    ttl: float
    poll: float
    fetch: float
    record: int


class Counted(NamedTuple):
    """A small fleet: what it was, for how many seconds it was watched, and what passed.

    step: seconds of Redis's processor for one look at the version.
    """

    case: Case
    seconds: float
    traffic: Traffic
    step: float


def calculated(case: Case, seconds: float, step_cpu: float) -> Traffic:
    """What passes in so many seconds, for one issuer. step_cpu: seconds of Redis's for one step."""
    workers = case.workers
    # Each worker draws when it will refresh, ± 10 %: of many, the first is early.
    first = case.ttl * 0.8 * (1 - JITTER * (workers - 1) / (workers + 1))
    cycles = seconds / (first + case.fetch)
    # Whoever becomes due before the message comes asks for the lease, too.
    others = (workers - 1) * min(1.0, case.fetch / (2 * JITTER * 0.8 * case.ttl))
    acquires = 1 + others
    loads = workers * (first // case.poll) + workers + acquires
    steps = loads + acquires + 1
    received = loads * LOAD.asked + acquires * ACQUIRE.asked + SAVE.asked + case.record
    answered = loads * LOAD.answered + acquires * ACQUIRE.answered + SAVE.answered
    news = workers * MESSAGE + (workers - 1) * case.record
    return Traffic(
        fetches=cycles,
        steps=cycles * steps,
        messages=cycles * workers,
        received=cycles * received,
        sent=cycles * (answered + news),
        cpu=cycles * steps * step_cpu,
    )


def _command(*words: str) -> int:
    """The bytes of a command in RESP."""
    return len(f"*{len(words)}\r\n") + sum(len(f"${len(word)}\r\n{word}\r\n") for word in words)


class _Step(NamedTuple):
    """A Lua step: bytes of the command and of the answer, records not counted."""

    asked: int
    answered: int


def _step(keys: Sequence[str], *arguments: str, answered: str) -> _Step:
    words = ("EVALSHA", "f" * 40, str(len(keys)), *keys, *arguments)
    return _Step(_command(*words), len(answered))


_KEY = names(KeySource("https://id.example.com/", None))  # as long as that of any other source
_VERSION = "1" * 13  # milliseconds since the epoch
LOAD = _step([_KEY.record], _VERSION, answered=f"*3\r\n:{_VERSION}\r\n$-1\r\n:{_VERSION}\r\n")
ACQUIRE = _step(
    [_KEY.lease, _KEY.fence, _KEY.backoff, _KEY.scheduled, _KEY.record],
    *("h" * 32, "10000", _VERSION, "2", "30000", _VERSION),
    answered=f"*3\r\n$7\r\ngranted\r\n:{_VERSION}\r\n:1000\r\n",
)
SAVE = _step(
    [_KEY.record, _KEY.fence, _KEY.lease, _KEY.backoff],
    *(_VERSION, "", "3900000", "h" * 32, _KEY.changed),
    answered=":1\r\n",
)
MESSAGE = _command("message", _KEY.changed, _VERSION)


def count(workers: int, ttl: int, poll: float, seconds: float) -> Counted:
    """A real fleet of so many workers, watched for so long."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="scale-")))
        issuer = stack.enter_context(DemoIssuer(AUDIENCE, max_age=ttl))
        port = stack.enter_context(redis(directory))
        trusted = Issuer(issuer=issuer.url, audiences=(AUDIENCE,), jwks_url=issuer.jwks_url)
        options = Options(
            redis_url=f"redis://127.0.0.1:{port}",
            seal_keys=(bytes(32),),
            poll=poll,
            lifetimes=Lifetimes(ttl_min=1.0),
            limits=Limits(refill=1.0),  # keys that live for seconds may be fetched so often
            # This one process stands for many, and may be late where they would not be.
            redis_connect=5.0,
            redis_timeout=5.0,
        )
        client = stack.enter_context(Redis(port=port))
        traffic = asyncio.run(_watched(trusted, options, workers, issuer, client, seconds))
        step = asyncio.run(_step_cpu(trusted, options, client))
        record = int(client.hstrlen(names(trusted.source).record, "d"))
        return Counted(Case(workers, ttl, poll, FETCH, record), seconds, traffic, step)


async def _watched(  # noqa: PLR0913, PLR0917 - all that is looked at
    trusted: Issuer,
    options: Options,
    workers: int,
    issuer: DemoIssuer,
    client: Redis,
    seconds: float,
) -> Traffic:
    runtimes = [Runtime((trusted,), options) for _ in range(workers)]
    for runtime in runtimes:
        await runtime.open()
        await asyncio.sleep(SETTLE / workers)
    looks = []
    for pause in (0, seconds, 0):  # the last one shows what a look itself costs
        await asyncio.sleep(pause)
        looks.append(await asyncio.to_thread(_so_far, issuer, client, workers))
    await asyncio.gather(*(runtime.close() for runtime in runtimes))
    begun, ended, looked = looks
    passed = (later - sooner for sooner, later in zip(begun, ended, strict=True))
    itself = (later - sooner for sooner, later in zip(ended, looked, strict=True))
    own = Traffic(*itself)._replace(fetches=0, steps=0, messages=0, cpu=0)
    return Traffic(*(each - less for each, less in zip(passed, own, strict=True)))


async def _step_cpu(trusted: Issuer, options: Options, client: Redis) -> float:
    """Seconds of Redis's processor for one look at the version, of many, one after the other."""
    redis_client = RedisClient(options.redis_url or "", 5.0, 5.0, ignore)
    store = RedisStore(redis_client)
    version = (await store.load(trusted.source, 0)).version
    begun = _cpu(client.info("cpu"))
    for _ in range(STEPS):
        await store.load(trusted.source, version)
    spent = _cpu(client.info("cpu")) - begun
    await redis_client.aclose()
    return spent / STEPS


def _cpu(info: Mapping[str, float]) -> float:
    return info["used_cpu_user"] + info["used_cpu_sys"]


def _so_far(issuer: DemoIssuer, client: Redis, workers: int) -> Traffic:
    found = client.info("everything")
    steps = found.get("cmdstat_evalsha", {}).get("calls", 0)
    published = found.get("cmdstat_publish", {}).get("calls", 0)
    return Traffic(
        fetches=issuer.jwks_fetches,
        steps=steps,
        messages=published * workers,
        received=found["total_net_input_bytes"],
        sent=found["total_net_output_bytes"],
        cpu=_cpu(found),
    )


def counted(cases: Sequence[tuple[int, int, float, float]]) -> list[Counted]:
    """Each of these fleets: workers, TTL, POLL and for how long, in seconds; beside each other."""
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(lambda case: count(*case), cases))
