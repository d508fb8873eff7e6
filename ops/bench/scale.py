"""What growth costs: more tokens, more issuers, more workers; and what one worker costs.

    .venv/bin/python ops/bench/scale.py            all; writes SCALE.md and scale.json here
    .venv/bin/python ops/bench/scale.py --quick    small numbers, a minute; prints only
    .venv/bin/python ops/bench/scale.py --only fleet    a part: flat, fleet or worker; prints only

Takes five minutes. Needs `.venv` as ops/test.sh makes it, and a Debian for the load generator. All
traffic is on 127.0.0.1, and every process ends with the run.
"""

import argparse
import json
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import scale_flat
import scale_fleet
import scale_worker
from bench_servers import end_within
from peers_install import InstallError, install
from peers_run import ContenderError
from scale_flat import Server
from scale_fleet import HOUR, Case, Counted
from verify import table

from app.cpus import available_cpus

HERE = Path(__file__).parent
LIMIT = 880  # seconds
PARTS = ("flat", "fleet", "worker")
FLEETS = (1, 100, 10_000)
TTL, POLL = 300.0, 5.0
"""Seconds: the defaults."""

FAR = 0.1
"""Seconds that a fetch takes in the calculation, with an issuer somewhere on the network."""

WITHIN = 0.05
"""How flat the cost of a request is to be."""


class Scale(NamedTuple):
    """How much is measured. fleets: workers, TTL, POLL and seconds; starts, cached: of workers."""

    flat: scale_flat.Sizes
    fleets: tuple[tuple[int, int, float, float], ...]
    starts: int
    cached: int


FULL = Scale(
    scale_flat.FULL,
    tuple((workers, 5, 1.0, 40.0) for workers in (1, 8, 64)),
    9,
    scale_worker.CACHED,
)
QUICK = Scale(scale_flat.QUICK, ((1, 5, 1.0, 9.0), (5, 5, 1.0, 9.0)), 1, 100)


# -- what more issuers and tokens cost -----------------------------------------------------------


def flat(found: Mapping[Server, list[float]]) -> str:
    """The table of the servers, each beside the smallest of its kind."""
    rows = []
    for server, samples in found.items():
        base = _base(found, server)
        change = scale_flat.ratio(found, server, base) - 1
        reached = "" if server.differing else _reached(abs(change) <= WITHIN)
        shown = ("", "") if server == base else (f"{change:+.1%}", reached)
        rows.append(
            (
                "/verify" if _varies_tokens(found, server) else "JWTAuth",
                f"{server.issuers:,}",
                f"{server.tokens:,}",
                f"known{', requests differ' * server.differing}"
                if server.kept
                else "verified each time",
                f"{median(samples):.0f} µs",
                *shown,
            )
        )
    head = ("", "issuers", "tokens", "tokens are", "a request", "beside the first", "within 5 %")
    return table(head, rows)


def _varies_tokens(found: Mapping[Server, list[float]], server: Server) -> bool:
    """Whether it is one of those that differ in their tokens, which all keep as many."""
    return server.kept == max(each.kept for each in found) and server.issuers == 1


def _base(found: Mapping[Server, list[float]], server: Server) -> Server:
    """The first of its kind."""
    alike = [
        each
        for each in found
        if _varies_tokens(found, each) == _varies_tokens(found, server) and each.kept == server.kept
    ]
    return alike[0]


def _reached(met: bool) -> str:  # noqa: FBT001 - it is the question
    return "yes" if met else "**no**"


# -- what more workers cost ----------------------------------------------------------------------


def step_cpu(counted: Sequence[Counted]) -> float:
    """Seconds of Redis's processor for a step, where it was disturbed least."""
    return min(fleet.step for fleet in counted)


def checked(counted: Sequence[Counted]) -> str:
    """What was counted, and what the calculation says of the same fleets."""
    rows = []
    for fleet in counted:
        real = fleet.traffic
        told = scale_fleet.calculated(fleet.case, fleet.seconds, step_cpu(counted))
        rows.append(
            (
                f"{fleet.case.workers}",
                *(
                    f"{getattr(real, field) / unit:,.0f} / {getattr(told, field) / unit:,.0f}"
                    for field, unit in (
                        ("fetches", 1),
                        ("messages", 1),
                        ("steps", 1),
                        ("received", 1000),
                        ("sent", 1000),
                    )
                ),
            )
        )
    head = ("workers", "fetches", "messages", "steps", "kB to Redis", "kB from Redis")
    return table(head, rows)


def hourly(counted: Sequence[Counted]) -> str:
    """What fleets of any size cost in an hour, with the defaults."""
    record, step = counted[-1].case.record, step_cpu(counted)
    rows = []
    for workers in FLEETS:
        case = Case(workers, TTL, POLL, FAR, record)
        told = scale_fleet.calculated(case, HOUR, step)
        rows.append(
            (
                f"{workers:,}",
                f"{told.fetches:.0f}",
                f"{told.messages:,.0f}",
                f"{told.steps:,.0f} ({told.steps / HOUR:,.1f}/s)",
                f"{told.received / 1e6:,.1f}",
                f"{told.sent / 1e6:,.1f}",
                f"{told.cpu / HOUR:.2%}",
                f"{1000 * workers * step:,.0f} ms, {workers * record / 1e6:,.1f} MB",
            )
        )
    head = (
        *("workers", "fetches", "messages", "steps", "MB to Redis", "MB from Redis"),
        *("of a core of Redis", "each new key set, at once"),
    )
    return table(head, rows)


# -- telling -------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What was measured of each part; none of a part that was not wanted."""

    flat: dict[Server, list[float]]
    fleet: list[Counted]
    worker: scale_worker.Costs | None


def sections(found: Found) -> list[str]:
    """A section for each part."""
    pages = []
    if found.worker is not None:
        rows = scale_worker.rows(found.worker)
        pages.append(f"""\
## One worker

{table(("wanted", "measured", "reached"), rows)}

The start is that of the process that `keycache serve` runs, from behind its own imports until it
accepts requests with its keys in memory. Memory is the resident set of the larger of two workers
after {found.worker.cached:,} ES256 tokens, beside a bare Sanic that was sent as many.
""")
    if found.flat:
        pages.append(f"""\
## More tokens, more issuers

{flat(found.flat)}

Processor time of one worker for a request over HTTP, its kernel's part included, with tokens drawn
at random; the last columns are medians of ratios within a round. *known*: every token is in the
token cache, which is as large as it needs to be (`TOKEN_CACHE`; its default is 10,000: tokens
beyond that are verified again, and cost what the others do that are *verified each time*). Nothing
is searched anywhere; what grows is what the processor's own caches do not hold. A request
of a known token was sent before, to the last byte: `/verify` knows it by its digest, and `JWTAuth`
the header fields of some two thousand. Where *requests differ*, each has a number of its own, as
behind a proxy that gives it one, and is read.
""")
    if found.fleet:
        ttl, poll = found.fleet[0].case.ttl, found.fleet[0].case.poll
        pages.append(f"""\
## More workers

In an hour, for one issuer, with the defaults (TTL {TTL:.0f} s, POLL {POLL:.0f} s) and a record of
{found.fleet[-1].case.record:,} bytes. Calculated; all is proportional to the number of issuers.

{hourly(found.fleet)}

- *fetches*: what the issuer sees, however many workers there are. The first of many is a little
  early, by the jitter, so a large fleet asks a tenth more often than one worker.
- *steps*: Lua steps, of which nearly all are looks at the version: one each POLL seconds for each
  worker and issuer. They are what a large fleet costs; `POLL` only bounds how long a lost message
  goes unnoticed, so that 60 is as good for ten thousand workers as 5 is for a hundred.
- *each new key set, at once*: all workers load a new record when they hear of it. A Redis that
  needs longer for that than REDIS_TIMEOUT is asked again by those that were too late.
- Bytes are those of the protocol; TCP and TLS come on top.

Counted / calculated, for small fleets on a real Valkey with TTL {ttl:.0f} s and POLL {poll:.0f} s,
in {found.fleet[0].seconds:.0f} s, of which an interval more or less changes a little:

{checked(found.fleet)}
""")
    return pages


def document(found: Found) -> str:
    """SCALE.md."""
    return f"""\
# What growth costs

Made by `ops/bench/scale.py` on {available_cpus()} cores, Python {platform.python_version()};
`scale.json` holds the raw samples.

{chr(10).join(sections(found))}
## Reproduce

    ops/test.sh tests/ops/test_bench_scale.py        that it measures what it says
    .venv/bin/python ops/bench/scale.py              everything above, five minutes
"""


def raw(found: Found) -> dict[str, object]:
    """Everything that was measured, for scale.json."""
    return {
        "flat": [{**server._asdict(), "microseconds": each} for server, each in found.flat.items()],
        "fleet": [
            {**fleet.case._asdict(), "seconds": fleet.seconds, **fleet.traffic._asdict()}
            for fleet in found.fleet
        ],
        "worker": found.worker._asdict() if found.worker else None,
    }


def main() -> None:
    """Measure what is asked for, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers; prints only")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure these parts only")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    words = parser.parse_args()
    parts = words.only or PARTS
    scale = QUICK if words.quick else FULL
    install(())
    end_within(LIMIT)
    found = Found(
        scale_flat.measure(scale.flat) if "flat" in parts else {},
        scale_fleet.counted(scale.fleets) if "fleet" in parts else [],
        scale_worker.measure(scale.starts, scale.cached) if "worker" in parts else None,
    )
    signal.alarm(0)
    text = json.dumps(raw(found), indent=1) + "\n"
    if words.json:
        words.json.write_text(text)
    if not words.quick and not words.only:
        (HERE / "scale.json").write_text(text)
        (HERE / "SCALE.md").write_text(document(found))
    print("\n".join(sections(found)))


if __name__ == "__main__":
    try:
        main()
    except (ContenderError, InstallError, TimeoutError) as error:
        sys.exit(f"scale.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("scale.py: ended")
