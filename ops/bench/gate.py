"""The hot paths in multiples of yardsticks: what tests/ops/test_performance_gate.py judges.

    .venv/bin/python ops/bench/gate.py    a row for each path, two seconds

A yardstick is the least that a path cannot do without, and of the same kind of work: the signature
check alone for a new token, a digest and a look-up for a known one. Path and yardstick take short
turns, and a ratio is formed of neighbours, so that a busy machine slows down both. The lower
quartile of many is judged: what else goes on can spoil some pairs, and hardly most.

`typical` is the ratio when nothing else is done, `limit` lies between that and its double: noise
stays below, a path that became twice as slow does not. Who makes a path faster or slower for a good
reason changes its number here.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from statistics import quantiles
from time import perf_counter, thread_time, time
from typing import NamedTuple

import msgspec
import rules
from sanic.http import Http
from verify import AUDIENCE, ISSUER, Signer, authenticator, fresh

from app.web.fast import Desk
from app.web.forward_auth import Answer, ForwardAuth
from app.web.question import parse
from keycache.core.token import parse_token
from keycache.core.verifier import judge
from keycache.errors import TokenError, UnavailableError
from keycache.events import Observer, Tier, Verified, ignore
from keycache.events import Path as DecidedBy
from keycache.issuer import Issuer
from keycache.rules import RuleTable
from metrics import multiproc_dir

PAIRS = 60
FEW, MANY = 5, 100
"""Operations in a turn: of signature checks, of anything else."""

SLACK = 1.6
"""The limit, in multiples of what is typical."""

Turn = Callable[[], None]


class Path(NamedTuple):
    """A hot path and its yardstick: turns of as many operations each."""

    run: Turn
    yardstick: Turn
    typical: float


def _each(operation: Callable[[str], object], texts: Sequence[str]) -> Turn:
    def run() -> None:
        for text in texts:
            operation(text)

    return run


def _again(operation: Callable[[], object]) -> Turn:
    def run() -> None:
        for _ in range(MANY):
            operation()

    return run


def _new(alg: str, typical: float) -> Path:
    """A token that was not seen before, and its signature check."""
    signer = Signer(alg)
    texts = [signer.token(number) for number in range(FEW)]
    checks = [signer.bare(text) for text in texts]

    def bare() -> None:
        for check in checks:
            check()

    return Path(_each(authenticator([signer], ignore, 0).known, fresh(texts)), bare, typical)


def _claims(texts: Sequence[str]) -> Path:
    """All of a new token but its signature and its key; and to read its two documents."""
    issuer = Issuer(issuer=ISSUER, audiences=(AUDIENCE,))
    now = time()

    def read(text: str) -> None:
        header, payload, signature = text.split(".")
        for part in (header, payload):
            msgspec.json.decode(base64.urlsafe_b64decode(part + "=="))
        base64.urlsafe_b64decode(signature + "==")

    return Path(
        _each(lambda text: judge(parse_token(text, 8192, 128), issuer, now), texts),
        _each(read, texts),
        1.45,
    )


def _remembered(texts: Sequence[str]) -> Callable[[str], object]:
    """The least that a cache of tokens does: the entry by the digest, and whether it holds."""
    entries = {sha256(text.encode()).digest(): (time() - 60, time() + 3600) for text in texts}

    def find(text: str) -> bool:
        started, now = perf_counter(), time()
        entry = entries.get(sha256(text.encode()).digest())
        return entry is not None and entry[0] <= now < entry[1] and perf_counter() > started

    return find


def _forward_auth(known: object, token: str) -> Path:
    """The answer of `/verify`; and to read the request's lines, and the least for its token."""
    forward = ForwardAuth(RuleTable((), issuers=[rules.ISSUER]), _refuse)
    forward.open(known)  # type: ignore[arg-type] # an Authenticator
    request = (
        "GET /verify HTTP/1.1\r\nHost: api.example.com\r\nX-Forwarded-For: 10.1.2.3\r\n"
        f"Accept: */*\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    find = _remembered([token])

    def ask() -> None:
        question = parse(request, 16384, trusted=False)
        answer = forward.decide(question) if question else None
        if answer is None or answer.status != 200:
            raise AssertionError("a good token was not let in")

    def read() -> None:
        lines = request.decode("ascii").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        find(fields["authorization"][7:])

    return Path(_again(ask), _again(read), 1.35)


def _same_request(known: object, token: str) -> Path:
    """The answer of `/verify` to a request that came before, to the last byte; and to look that up,
    with what time it is and how long it took.
    """
    forward = ForwardAuth(RuleTable((), issuers=[rules.ISSUER]), _refuse)
    forward.open(known)  # type: ignore[arg-type] # an Authenticator
    Http.HEADER_MAX_SIZE = 16384  # as a server that starts sets it
    desk = Desk(forward, trusted=False)
    head = b"GET /verify HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer "
    rest = token.encode() + b"\r\n\r\n"
    wanted = [desk.answer(head + rest) for _ in range(3)][-1]
    if not wanted.startswith(b"HTTP/1.1 200 "):
        raise AssertionError("a good token was not let in")
    remembered, sums = {head + rest: wanted}, [0.0]

    def ask() -> None:
        if desk.answer(head + rest) is not wanted:  # each time bytes whose hash nobody knows yet
            raise AssertionError("the answer is not the one that was kept")

    def look_up() -> None:
        started = perf_counter()
        if remembered[head + rest] and time() > 0:
            sums[0] += perf_counter() - started

    return Path(_again(ask), _again(look_up), 3.0)


def _refuse(_: object, error: TokenError | UnavailableError) -> Answer:
    raise error


def _choosing() -> Path:
    """The last of two hundred rules; and to look the segments of the path up one by one."""
    table = RuleTable(rules.rules(200), issuers=(rules.ISSUER,))
    path = table.rules[-1].path.replace("**", "5f2c/items").replace("*", "4711")
    segments = {segment: len(segment) for segment in path.split("/")}

    def choose() -> None:
        if table.choose("GET", path) is None:
            raise AssertionError("no rule was chosen")

    def look_up() -> None:
        for segment in path.split("/"):
            segments.get(segment)

    return Path(_again(choose), _again(look_up), 2.25)


def _counting(observer: Observer) -> Path:
    """A fact that is told, and counted; and to add to a number for its labels and its time."""
    fact = Verified("bench", DecidedBy.CACHED, 2e-6, Tier.TOKEN_CACHE)
    sums: dict[tuple[str, str], float] = {}

    def add() -> None:
        label = (fact.issuer, fact.path)
        sums[label] = sums.get(label, 0.0) + fact.seconds

    return Path(_again(lambda: observer(fact)), _again(add), 2.8)


def paths(observer: Observer) -> dict[str, Path]:
    """All that is measured, by name."""
    signer = Signer("ES256")
    texts = [signer.token(number) for number in range(MANY)]
    plain, counting = (authenticator([signer], told, MANY) for told in (ignore, observer))
    return {
        "a new RS256 token": _new("RS256", 1.5),
        "a new ES256 token": _new("ES256", 1.25),
        "a new token, but for its signature": _claims(texts),
        "a known token": Path(
            _each(plain.known, fresh(texts)), _each(_remembered(texts), fresh(texts)), 1.47
        ),
        "a known token, counted": Path(
            _each(counting.known, fresh(texts)), _each(_remembered(texts), fresh(texts)), 1.95
        ),
        "a fact counted": _counting(observer),
        "/verify, a known token": _forward_auth(plain, texts[0]),
        "/verify, a request again": _same_request(plain, texts[1]),
        "a rule of 200": _choosing(),
    }


def ratio(path: Path) -> float:
    """The lower quartile of the ratios of neighbours."""
    found = []
    for _ in range(PAIRS):
        begun = thread_time()
        path.run()
        between = thread_time()
        path.yardstick()
        found.append((between - begun) / (thread_time() - between))
    return quantiles(found[PAIRS // 10 :])[0]  # the first ones warm up


async def measure() -> dict[str, dict[str, float]]:
    """The ratio of each path, with what is typical and what is the limit.

    In an event loop, by whose timer the metrics are written; nothing here awaits it.
    """
    directory = multiproc_dir.create()
    multiproc_dir.use(directory, "gate")
    try:
        # After the directory of the metrics has been named, not before.
        from metrics.observer import PrometheusObserver  # noqa: PLC0415

        return {
            name: {"ratio": ratio(path), "typical": path.typical, "limit": SLACK * path.typical}
            for name, path in paths(PrometheusObserver(["bench"])).items()
        }
    finally:
        multiproc_dir.remove(directory)


if __name__ == "__main__":
    rows = asyncio.run(measure())
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(rows))
    else:
        for name, row in rows.items():
            print(f"{name:36} {row['ratio']:6.2f} of {row['limit']:.2f}")
