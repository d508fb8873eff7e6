"""PEERS.md and its plot, from what ops/bench/peers.py measured."""

import importlib
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

from peers_kinds import CHECK, JWTAUTH, KINDS, LOOP, OURS, VERIFY
from peers_run import CONNECTIONS, FIRST, MODES, Measured
from verify import table

from app.cpus import available_cpus

CACHING_ENVOY, ENVOY = "Envoy jwt_authn, token cache", "Envoy jwt_authn"
FAST_JWT = "Fastify + fast-jwt"
TITLES = {"hot": "one hot token", "rotation": "1,000 tokens in turns", "new": "every token new"}


def figure(found: Measured, name: str, cell: str, field: str = "cpu") -> float:
    """The median over the rounds. Raises KeyError when it was not measured."""
    return median(getattr(sample, field) for sample in found.samples[name][cell])


def paired(
    found: Measured, one: tuple[str, str], other: tuple[str, str], field: str = "cpu"
) -> float:
    """The median of the ratios within a round. Raises KeyError when one was not measured."""
    ours, theirs = (found.samples[name][cell] for name, cell in (one, other))
    return median(getattr(a, field) / getattr(b, field) for a, b in zip(ours, theirs, strict=True))


def _over_bare(found: Measured, new: str) -> float:
    """What a new token costs JWTAuth beyond bare Sanic, in signature checks."""
    subjects = (JWTAUTH, new), ("Sanic", FIRST), (CHECK, new), (LOOP, FIRST)
    samples = (found.samples[name][cell] for name, cell in subjects)
    return median(
        (ours.cpu - bare.cpu) / (check.cpu - loop.cpu)
        for ours, bare, check, loop in zip(*samples, strict=True)
    )


def targets(found: Measured) -> list[tuple[str, str, str]]:
    """Every figure to reach that could be measured: wanted, measured, reached."""
    hot, sanic = (VERIFY, FIRST), ("Sanic", FIRST)
    wanted: list[tuple[str, float, str, Callable[[], float]]] = [
        (
            "JWTAuth, hot: at most 1.06 × bare Sanic",
            *(1.06, "×", lambda: paired(found, (JWTAUTH, FIRST), sanic)),
        ),
        ("/verify, hot: at most 40 µs", 40, "µs", lambda: figure(found, *hot)),
        (
            "/verify, hot: p99 at most bare Sanic's",
            *(1, "×", lambda: paired(found, hot, sanic, "p99")),
        ),
    ]
    for peer in (CACHING_ENVOY, FAST_JWT):
        text = f"/verify, hot: at most ½ of {peer}"
        wanted.append((text, 0.5, "×", partial(paired, found, hot, (peer, FIRST))))
    for alg in _algorithms(found):
        new = f"{alg} new"
        text = f"JWTAuth, {new}: at most bare Sanic + 1.5 × the signature check"
        wanted.append((text, 1.5, "×", partial(_over_bare, found, new)))
        for peer in (ENVOY, CACHING_ENVOY):
            text = f"/verify, {new}: at most {peer}"
            wanted.append((text, 1, "×", partial(paired, found, (VERIFY, new), (peer, new))))
    rows = []
    for text, limit, unit, measure in wanted:
        with suppress(KeyError):  # not all were measured
            value = measure()
            rows.append((text, f"{value:.3g} {unit}", "yes" if value <= limit else "**no**"))
    return rows


def _algorithms(found: Measured) -> list[str]:
    return sorted(found.checks, reverse=True)


def cells(found: Measured) -> list[str]:
    """What was measured, in the order of the tables: `RS256 hot`, ..."""
    return [
        cell
        for alg in _algorithms(found)
        for mode in MODES
        if any((cell := f"{alg} {mode}") in each for each in found.samples.values())
    ]


def _written(name: str) -> str:
    if name in OURS:
        return f"**{name}**"
    return name if KINDS[name].bare else f"*{name}, bare*"


def costs(found: Measured) -> str:
    """Processor time for a request, and how much of it is the price of auth."""
    columns = cells(found)
    rows = []
    for name in _ranked(found):
        measured = found.samples[name]
        row = [f"{figure(found, name, cell):.0f}" if cell in measured else "" for cell in columns]
        bare = KINDS[name].bare
        price = ""
        if bare in found.samples:
            price = f"{figure(found, name, FIRST) - figure(found, bare, FIRST):+.0f}"
        rows.append((_written(name), *row, price))
    return table(("µs for a request", *columns, "hot, beyond its bare"), rows)


def _ranked(found: Measured) -> list[str]:
    return [name for name in KINDS if name in found.samples]


def client(found: Measured, cell: str) -> str:
    """What a client sees of one kind of load."""
    rows = []
    for name in _ranked(found):
        if cell not in found.samples[name]:
            continue
        fields = ("per_second", "p50", "p99", "p999", "rss", "fetches")
        values = [figure(found, name, cell, field) for field in fields]
        shown = [f"{values[0]:,.0f}", *(f"{each:.2f}" for each in values[1:4])]
        rows.append((_written(name), *shown, f"{values[4]:.0f}", f"{values[5]:.0f}"))
    head = ("", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "RSS MiB", "fetches")
    return table(head, rows)


def losses(found: Measured) -> str:
    """Where another is better than ours, as a list."""
    lines = []
    for ours in OURS:
        for cell in cells(found):
            for field in ("cpu", "p99", "rss"):
                line = _loss(found, ours, cell, field)
                if line and (field == "cpu" or cell == FIRST):
                    lines.append(f"- {ours.partition(': ')[2]}, {cell}, {line}")
    return "\n".join(lines) or "- Nowhere in this run."


def _loss(found: Measured, ours: str, cell: str, field: str) -> str:
    if cell not in found.samples.get(ours, {}):
        return ""
    value = figure(found, ours, cell, field)
    what, unit, form = {
        "cpu": ("processor time", "µs", ".0f"),
        "p99": ("p99", "ms", ".2f"),
        "rss": ("memory", "MiB", ".0f"),
    }[field]
    better = [
        f"{name} {figure(found, name, cell, field):{form}}"
        for name in _ranked(found)
        if name not in OURS and KINDS[name].bare and KINDS[name].judges
        if cell in found.samples[name]
        if figure(found, name, cell, field) < value
    ]
    return f"{what} {value:{form}} {unit}; less: {', '.join(better)}" if better else ""


def _checks(found: Measured) -> str:
    try:
        return ", ".join(
            f"{alg} {figure(found, CHECK, f'{alg} new') - figure(found, LOOP, FIRST):.0f} µs"
            for alg in found.checks
        )
    except KeyError:
        return "not measured"


def _statuses(found: Measured) -> str:
    others = [
        f"{name} answers {status} to {what}"
        for name, statuses in found.statuses.items()
        for what, status in statuses.items()
        if status != 401
    ]
    return f" ({'; '.join(others)})" if others else ""


def _missing(found: Measured) -> str:
    if not found.missing:
        return ""
    lines = [f"- **{name}**: {' '.join(why.split())[:400]}" for name, why in found.missing.items()]
    return "\n## NOT measured\n\n" + "\n".join(lines) + "\n"


def _load_share(found: Measured) -> str:
    samples = [each for cell in found.samples.values() for every in cell.values() for each in every]
    busiest = max(each.load_cpu * each.per_second / 1e6 for each in samples)
    return (
        f"It took {median(each.load_cpu for each in samples):.0f} µs of its own for a request, "
        f"and never more than {busiest:.0%} of a core"
    )


def document(found: Measured, versions: Mapping[str, str]) -> str:
    """PEERS.md."""
    rounds = max(len(each) for cell in found.samples.values() for each in cell.values())
    alone = ", ".join(f"{alg} {median(took):.0f} µs" for alg, took in found.checks.items())
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    views = "\n\n".join(
        f"### {cell.split()[0]}, {TITLES[cell.split()[1]]}\n\n{client(found, cell)}"
        for cell in cells(found)
    )
    return f"""\
# The price of a verified token, beside what people use today

Made by `ops/bench/peers.py`: the median of {rounds} interleaved rounds on {available_cpus()} cores,
Python {platform.python_version()}, {CONNECTIONS} connections, two workers each; `peers.json` holds
the raw samples. Before that, each let good tokens of RS256 and ES256 in, and answered 401 to none,
to a bad signature, an expired one, a wrong audience and a wrong issuer{_statuses(found)}.

The figure to quote is the processor time: what all processes of a server spent on a request, the
kernel's part included. Requests a second and latencies are of one small machine that also runs the
load generator, and say what two cores share. Loopback, no TLS, no logs of requests; metrics are on
where they are part of the product (`/verify`).

Versions: {used}.
{_missing(found)}
## Figures to reach

Ratios are the medians of those within a round. *The signature check* is what it adds to the bare
loop under the same load: {_checks(found)}. By itself, when nothing else is done: {alone}.

{table(("wanted", "measured", "reached"), targets(found))}

## Processor time

{costs(found)}

- *bare* is the same kind of server without auth; the last column is what auth adds to it. `/verify`
  stands beside bare Sanic because it is a Sanic application.
- Caches of verified tokens hold 10,000 entries in each worker where that can be set; mod_oauth2's,
  which all its workers share, its default of 1,000. JWTAuth has no Redis here, `/verify` has its
  embedded Valkey, whose time is counted.
- "Sanic, published code" makes a PyJWKClient for each request, as tutorials print it; "one
  PyJWKClient" makes it once.
- Load: wrk. {_load_share(found)}; what it took is in no figure but the requests a second.

## As a client sees it

*fetches*: of the key set, in the load of a second; mod_auth_openidc's, over TLS, are not counted.
RSS adds up all processes, and counts what they share for each of them: Sanic runs a supervisor, and
Python processes share little. Latencies are of a closed loop: all {CONNECTIONS} connections ask
again at once, so a server that is twice as fast waits half as long.

{views}

## Where we lose

{losses(found)}
- An Envoy or an Apache needs one process to protect any upstream; ours is a second one beside the
  proxy, or a library for Sanic alone.

## Reproduce

    ops/test.sh tests/ops/test_bench_peers.py        that it measures what it says
    .venv/bin/python ops/bench/peers.py              everything above, thirteen minutes
    .venv/bin/python ops/bench/peers.py --quick      less than three

![processor time for a request](peers.png)
"""


def raw(found: Measured, versions: Mapping[str, str]) -> dict[str, object]:
    """Everything that was measured, for peers.json."""
    return {
        "versions": dict(versions),
        "missing": found.missing,
        "statuses": found.statuses,
        "bare_check_microseconds": found.checks,
        "samples": {
            name: {cell: [sample._asdict() for sample in all_] for cell, all_ in each.items()}
            for name, each in found.samples.items()
        },
    }


def draw(found: Measured, path: Path) -> None:
    """The processor times as bars, on a logarithmic scale, one panel for an algorithm."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    names = [name for name in _ranked(found) if KINDS[name].bare]
    algorithms = _algorithms(found)
    figure_, panels = pyplot.subplots(
        1, len(algorithms), figsize=(13, 7), layout="constrained", sharey=True, squeeze=False
    )
    for axes, alg in zip(panels[0], algorithms, strict=True):
        for place, mode in enumerate(MODES):
            cell = f"{alg} {mode}"
            present = [(at, name) for at, name in enumerate(names) if cell in found.samples[name]]
            bars = axes.barh(
                [at + (place - 1) * 0.28 for at, _ in present],
                [figure(found, name, cell) for _, name in present],
                height=0.26,
                label=TITLES[mode],
            )
            axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=6)
        for at, name in enumerate(names):
            bare = KINDS[name].bare
            if bare in found.samples:
                value = figure(found, bare, FIRST)
                axes.plot([value, value], [at - 0.45, at + 0.45], color="black", linewidth=1.4)
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("log")
        axes.set_xlabel(f"{alg}: µs of processor time for a request (logarithmic)")
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    panels[0][0].plot([], [], color="black", linewidth=1.4, label="the same server without auth")
    panels[0][0].legend(fontsize=8)
    figure_.savefig(path, dpi=100, metadata={"Software": None})
