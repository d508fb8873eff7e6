"""The scripted tour: one step after the other, each with what was expected and what came."""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from app.demo.issuer import ALGORITHMS, DemoIssuer
from app.demo.service import Reply, Service, command_line, environment
from metrics.exposition import parse

AT_ONCE = 20  # requests, each on a connection of its own, so that every worker gets some
METRICS_LAG = 3.0  # seconds; workers write their counts several times a second
WARM_TIMEOUT = 30.0  # seconds


class Step(NamedTuple):
    """What was tried, what was expected, and what came."""

    tried: str
    expected: str
    came: str

    @property
    def agrees(self) -> bool:
        """Whether the two are the same."""
        return self.expected == self.came


class Tour:
    """The steps, against a running service that trusts `issuer`.

    settings: the service's settings, for the commands that an operator runs beside it.
    """

    def __init__(self, service: Service, issuer: DemoIssuer, settings: Mapping[str, str]) -> None:
        self._service = service
        self._issuer = issuer
        self._settings = settings
        self._presented = 0

    def steps(self) -> Iterator[Step]:
        """Take the steps, in an order in which each builds on the ones before."""
        yield Step("no token", "401 No token provided", str(self._service.get("/protected")))
        yield from self._valid_tokens()
        yield from self._bad_tokens()
        yield from self._rotation()
        yield from self._removed_key()
        yield self._metrics()

    def _valid_tokens(self) -> Iterator[Step]:
        for alg in ALGORITHMS:
            reply = self._ask(self._issuer.mint(alg=alg))
            yield Step(f"valid token, {alg}", "200 Access granted", str(reply))
        reply = self._ask(self._issuer.mint(sub="ada"), "/verify")
        came = f"{reply.status} for {reply.headers.get('X-Auth-Subject')}"
        yield Step("valid token, for a proxy", "200 for ada", came)
        # Each worker asks on its own; one of them has fetched for all.
        yield Step("key set fetched", "1 time", _times(self._issuer.jwks_fetches))

    def _bad_tokens(self) -> Iterator[Step]:
        mint, forge = self._issuer.mint, self._issuer.forge
        known_kid = self._issuer.kids("RS256")[-1]
        for tried, token, expected in (
            ("expired token", mint(exp=int(time.time()) - 3600), "401 expired"),
            ("token for another audience", mint(aud="another-api"), "401 wrong_audience"),
            ("token of an unknown issuer", mint(iss="https://id.invalid"), "401 unknown_issuer"),
            ("no token but words", "not-a-token", "401 malformed"),
            ("forged signature", forge(alg="RS256", kid=known_kid), "401 bad_signature"),
            ("forged kid", forge(), "401 unknown_key"),
        ):
            yield Step(tried, expected, str(self._ask(token)))

    def _rotation(self) -> Iterator[Step]:
        old_token = self._issuer.mint()
        before = self._issuer.jwks_fetches
        self._issuer.rotate()
        came = self._ask_many(self._issuer.mint())
        yield Step("rotated key, first requests", f"{AT_ONCE} x 200 Access granted", came)
        fetches = _times(self._issuer.jwks_fetches - before)
        yield Step("key set fetched for that", "1 time", fetches)
        yield Step("token of the key before", "200 Access granted", str(self._ask(old_token)))

    def _removed_key(self) -> Iterator[Step]:
        token = self._issuer.mint(alg="ES256")
        came = self._ask_many(token)
        yield Step("token of a key not yet removed", f"{AT_ONCE} x 200 Access granted", came)
        self._issuer.remove(self._issuer.kids("ES256")[-1])
        warm = subprocess.run(  # noqa: S603 - our own words
            command_line("warm", "--force"),
            env=environment(self._settings),
            capture_output=True,
            timeout=WARM_TIMEOUT,
            check=False,
        )
        yield Step(
            "key removed; keycache warm --force", "exit code 0", f"exit code {warm.returncode}"
        )
        came = self._ask_many(token)
        yield Step("token of the removed key", f"{AT_ONCE} x 401 unknown_key", came)

    def _metrics(self) -> Step:
        """Every worker's page must hold the sum over all workers."""
        expected = f"{self._presented} tokens on each of {self._service.workers * 2} pages"
        deadline = time.monotonic() + METRICS_LAG
        while True:
            pages = [
                _verifications(self._service.metrics()) for _ in range(self._service.workers * 2)
            ]
            counts = " and ".join(f"{count:.0f}" for count in sorted(set(pages)))
            came = f"{counts} tokens on each of {len(pages)} pages"
            if came == expected or time.monotonic() > deadline:
                return Step("tokens counted over all workers", expected, came)
            time.sleep(0.1)

    def _ask(self, token: str, path: str = "/protected") -> Reply:
        self._presented += 1
        return self._service.get(path, token)

    def _ask_many(self, token: str) -> str:
        """Ask AT_ONCE times at the same time; `20 x 200 Access granted` when all say the same."""
        self._presented += AT_ONCE
        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = pool.map(
                lambda _: str(self._service.get("/protected", token)), range(AT_ONCE)
            )
            counts = Counter(replies)
        return ", ".join(f"{count} x {reply}" for reply, count in sorted(counts.items()))


def _times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"


def _verifications(page: str) -> float:
    return sum(s.value for s in parse(page) if s.name == "keycache_verifications_total")
