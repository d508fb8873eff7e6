"""What it costs to choose the rule of a request, and to judge the request by it.

    .venv/bin/python ops/bench/rules.py            all of it; writes RULES.md here
    .venv/bin/python ops/bench/rules.py --quick    few repeats, prints only

How it measures. Everything compared runs in one process, in turns: one batch of each subject makes
a repeat, and a ratio is formed within each repeat, so that a machine that slows down slows both
sides. Time is the processor's. Every request is a new object with new texts, as it is in a server,
and what it costs to make those is taken off.
"""

import argparse
import platform
import re
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from statistics import median
from time import thread_time
from typing import NamedTuple

from keycache.adapters.clock import SystemClock
from keycache.cache import KeyCache
from keycache.core.claims import Claims
from keycache.core.keys import SigningKey
from keycache.events import ignore
from keycache.guard import Guard, read_token
from keycache.issuer import Issuer
from keycache.rules import AUTHORIZATION, Access, Requirement, Rule, RuleTable
from keycache.token_cache import Accepted

HERE = Path(__file__).parent
ISSUER = Issuer(issuer="https://login.example.com/", audiences=("https://api.example.com",))
NUMBERS = (1, 20, 200)
MICROSECONDS = 3.0  # what the rules of a request may cost, at the last of these numbers
TOKEN = "Bearer " + "x" * 800  # as long as tokens are; it is not looked at
EMPTY, LOOKUP = "the loop alone", "a look into a dictionary"
FIRST, LAST, NONE = "the first rule", "the last rule", "no rule"
ODD, CAPITALS = "the last rule, a path with %20", "the last rule, a path with capitals"
SCAN = "the last rule, by regular expressions in turn"
READ, JUDGED = "the token is read", "the request is judged by the last rule, token and all"


class Scale(NamedTuple):
    """How much is measured: repeats, and requests in each."""

    repeats: int
    requests: int


FULL, QUICK = Scale(301, 200), Scale(3, 50)

Batch = Callable[[Sequence["Request"]], None]
Times = dict[str, list[float]]
"""Seconds for one request, by subject; the n-th of each were measured together."""


class Request:
    """Implements Sent."""

    __slots__ = ("fields", "method", "path")

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.fields = {"authorization": [TOKEN.encode().decode()]}

    def header(self, name: str) -> Sequence[str]:
        """See Sent."""
        return self.fields.get(name, ())

    def cookie(self, name: str) -> Sequence[str]:
        """See Sent."""
        return ()


class Known:
    """Implements Authenticates: every token is known, so that the guard alone is measured."""

    def __init__(self) -> None:
        claims = Claims({"iss": ISSUER.issuer, "scope": "things:read things:write"})
        key = SigningKey("key", "EC", ("ES256",), 256, "", None)
        cache = KeyCache(
            ISSUER.name,
            SystemClock(),
            ignore,
            wait=1.5,
            max_waiters=64,
            negative_ttl=30,
            negative_size=256,
        )
        self._accepted = Accepted(claims, -inf, inf, key, cache, b"")

    async def authenticate(self, text: str) -> Claims:
        """See Authenticates."""
        return self._accepted.claims

    def known(self, text: str) -> Accepted | None:
        """See Authenticates."""
        return self._accepted

    def still(self, accepted: Accepted) -> bool:
        """See Authenticates; nothing is found in a token cache here, so nobody asks."""
        return False

    def named(self, name: bytes) -> Accepted | None:
        """See `still`."""
        return None

    def name(self, accepted: Accepted, name: bytes) -> None:
        """See `still`."""


def rules(number: int) -> list[Rule]:
    """Rules as an API has them, of four kinds in turn."""
    read, write = Requirement(scopes=("things:read",)), Requirement(scopes=("things:write",))
    found: list[Rule] = []
    for place in range((number + 3) // 4):
        tenants = f"/api/tenants/*/things{place}/**"
        found += (
            Rule(path=tenants, methods=("GET",), requirement=read),
            Rule(path=tenants, requirement=write),
            Rule(path=f"/docs/things{place}/**", access=Access.ANONYMOUS),
            Rule(path=f"/api/status/*/things{place}/now", methods=("GET",), requirement=read),
        )
    return found[:number]


def expression(rule: Rule) -> re.Pattern[str]:
    """The pattern of a rule, as it would be written in a server's configuration."""
    return re.compile(rule.path.replace("/**", "(?:/.*)?").replace("/*", "/[^/]+"))


# -- what is compared ----------------------------------------------------------------------------


def loop(requests: Sequence[Request]) -> None:
    """What every subject does as well."""
    for request in requests:
        request.method, request.path  # noqa: B018


def look_up(table: RuleTable) -> Batch:
    """One look into a dictionary of the requests that there are."""
    by_request = {("GET", _path(rule)): rule for rule in table.rules}

    def run(requests: Sequence[Request]) -> None:
        for request in requests:
            by_request.get((request.method, request.path))

    return run


def choose(table: RuleTable, expected: Rule | None) -> Batch:
    """What is wanted: the rule of each request."""

    def run(requests: Sequence[Request]) -> None:
        chosen = expected
        for request in requests:
            chosen = table.choose(request.method, request.path)
        if chosen is not expected:
            raise AssertionError("another rule was chosen")

    return run


def scan(table: RuleTable) -> Batch:
    """The same without the automaton, and without a thought of other readings."""
    patterns = [(rule.all_methods, expression(rule)) for rule in table.rules]

    def run(requests: Sequence[Request]) -> None:
        for request in requests:
            for methods, pattern in patterns:
                if (not methods or request.method in methods) and pattern.fullmatch(request.path):
                    break
            else:
                raise AssertionError("no rule was found")

    return run


def read(requests: Sequence[Request]) -> None:
    """Read the token."""
    for request in requests:
        read_token(AUTHORIZATION, request)


def judge(guard: Guard) -> Batch:
    """Everything but the verification."""

    def run(requests: Sequence[Request]) -> None:
        for request in requests:
            guard.known(request)

    return run


def subjects(number: int) -> dict[str, tuple[str, Batch]]:
    """What is measured with so many rules: by name, the path asked for, and how."""
    table = RuleTable(rules(number), issuers=(ISSUER,))
    first, last = table.rules[0], table.rules[-1]
    path = _path(last)
    return {
        EMPTY: (path, loop),
        LOOKUP: (path, look_up(table)),
        FIRST: (_path(first), choose(table, first)),
        LAST: (path, choose(table, last)),
        NONE: ("/nothing/4711/at/all", choose(table, None)),
        CAPITALS: (path.replace("4711", "ACME-4711"), choose(table, last)),
        ODD: (path.replace("4711", "4%2011"), choose(table, last)),
        SCAN: (path, scan(table)),
        READ: (path, read),
        JUDGED: (path, judge(Guard(table, Known()))),
    }


def _path(rule: Rule) -> str:
    return rule.path.replace("**", "5f2c/items").replace("*", "4711")


def measure(number: int, scale: Scale) -> Times:
    """Run every subject once to warm up, then all in turns, the order reversed each time."""
    found = subjects(number)
    times: Times = {name: [] for name in found}
    order = list(found)
    for repeat in range(scale.repeats + 1):
        for name in order:
            path, run = found[name]
            sent = [Request("GET", path.encode().decode()) for _ in range(scale.requests)]
            started = thread_time()
            run(sent)
            if repeat:
                times[name].append((thread_time() - started) / scale.requests)
        order.reverse()
    return times


def over(times: Times, name: str) -> list[float]:
    """Seconds of a subject in each repeat, without those of the loop."""
    return [a - b for a, b in zip(times[name], times[EMPTY], strict=True)]


def cell(times: Times, name: str) -> str:
    """A subject in multiples of a look into a dictionary, and in microseconds."""
    pairs = zip(over(times, name), over(times, LOOKUP), strict=True)
    ratio = median(seconds / max(base, 1e-9) for seconds, base in pairs)
    return f"{ratio:.3g} × ({median(over(times, name)) * 1e6:.2f} µs)"


def report(scale: Scale, times: dict[int, Times]) -> str:
    """The whole page."""
    named = [name for name in times[NUMBERS[0]] if name != EMPTY]
    worst = max(median(over(times[NUMBERS[-1]], name)) for name in (FIRST, LAST, NONE)) * 1e6
    met = "yes" if worst < MICROSECONDS else "**no**"
    lines = [
        f"| {name} | " + " | ".join(cell(times[number], name) for number in NUMBERS) + " |"
        for name in named
    ]
    heads = " | ".join(f"{number} rule{'s' if number > 1 else ''}" for number in NUMBERS)
    return f"""\
# What the rules cost

Made by `ops/bench/rules.py` from {scale.repeats} paired repeats of {scale.requests} requests of
each kind, Python {platform.python_version()}. Ratios are to one look into a dictionary that has the
method and path of every request, and are the medians of the ratios within a repeat. The times in
brackets are of one machine.

| wanted | measured | reached |
|--------|----------|---------|
| choosing among {NUMBERS[-1]} rules: less than {MICROSECONDS:g} µs | {worst:.2f} µs | {met} |

| | {heads} |
|-|{"-|" * len(NUMBERS)}
{chr(10).join(lines)}

A request is judged with a token that is known: its rule is chosen, its token read, the scopes that
the rule asks for are looked for; what a verification costs is in VERIFY.md. A path that may be read
in more than one way is read in all of them, which is what `%20` costs; capitals are read twice.
"""


def main() -> None:
    """Print the page; unless --quick, write it beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="few repeats, print only")
    quick = arguments.parse_args().quick
    scale = QUICK if quick else FULL
    page = report(scale, {number: measure(number, scale) for number in NUMBERS})
    print(page)
    if not quick:
        (HERE / "RULES.md").write_text(page)


if __name__ == "__main__":
    main()
