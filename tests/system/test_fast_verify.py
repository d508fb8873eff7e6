"""The shorter way of `/verify` beside Sanic's own: two services, one with it and one without.

Every exchange is sent to both, byte for byte, and what comes back must be the same, byte for byte.
"""

import json
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from math import inf
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential.mutations import CLASSES, mutated, payload
from tests.keycache.core import forge
from tests.system.service import Service, eventually, request

ALGORITHMS = ("RS256", "ES256", "EdDSA")
RULES = """
trusted_proxies = ["127.0.0.1"]

[[rules]]
path = "/public/**"
access = "anonymous"

[[rules]]
path = "/admin/**"
scopes = ["admin"]

[[rules]]
path = "/**"
methods = ["GET", "POST", "PUT"]

[[token_sources]]
header = "Authorization"

[[token_sources]]
cookie = "session"
"""

LATER = int(time.time()) + 3600
SECONDS = 20.0  # for an answer, on a machine that is busy
QUIET = 0.05  # nothing more comes, when what came so far agrees
LAST = b"GET /verify HTTP/1.1\r\nX-Request-ID: last\r\nConnection: close\r\n\r\n"

Chunks = Sequence[bytes]


class Conversation:
    """A connection, and what came back on it."""

    def __init__(self, service: Service) -> None:
        where = urlsplit(service.url)
        self._socket = socket.create_connection((where.hostname, where.port), SECONDS)
        self.received = b""
        self.closed = False

    def say(self, data: bytes) -> None:
        with suppress(OSError):  # it may have been closed
            self._socket.sendall(data)

    def hear(self) -> None:
        """Take what has come."""
        while not self.closed and select.select([self._socket], [], [], 0)[0]:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                data = b""
            self.closed = not data
            self.received += data

    def end(self) -> None:
        self._socket.close()

    @property
    def state(self) -> tuple[bytes, bool]:
        """What came, less what differs between any two processes, and whether it was closed."""
        made_up = rb"X-Request-ID: [0-9a-f]{32}\r\n|Allow: [A-Z, ]+\r\n"
        return re.sub(made_up, b"", self.received), self.closed


class Pair:
    """The two services."""

    def __init__(self, fast: Service, slow: Service) -> None:
        self.fast, self.slow = fast, slow

    def exchange(
        self, *chunks: bytes, one_each: bool = False
    ) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        """What both said to these chunks, and to a last request on the same connection.

        one_each: every chunk has one answer, so there is no need to wait for a second.
        """
        both = [Conversation(self.fast), Conversation(self.slow)]
        for number, chunk in enumerate((*chunks, LAST), 1):
            for each in both:
                each.say(chunk)
            self._listen(both, number if one_each else inf)
            if both[0].state != both[1].state:
                break
        for each in both:
            each.end()
        return both[0].state, both[1].state

    def _listen(self, both: list[Conversation], answers: float) -> None:
        """Until both have said the same: so many answers, or no more for a moment."""
        deadline = time.monotonic() + SECONDS
        quiet_since = time.monotonic()
        while time.monotonic() < deadline:
            before = [each.state for each in both]
            for each in both:
                each.hear()
            now = time.monotonic()
            if [each.state for each in both] != before:
                quiet_since = now
            enough = both[0].closed or both[0].received.count(b"HTTP/1.1 ") >= answers
            if both[0].state == both[1].state and (enough or now > quiet_since + QUIET):
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        made = {}
        for fast in (1, 0):
            directory = tmp_path_factory.mktemp("service")
            made[fast] = stack.enter_context(service(directory, FAST_VERIFY=fast))
        yield Pair(made[1].wait_until_ready(), made[0].wait_until_ready())


def service(directory: Path, **more: object) -> Service:
    """A service that trusts the tokens of `forge`."""
    (directory / "keycache.toml").write_text(RULES)
    keys = [forge.jwk(alg) for alg in ALGORITHMS]
    (directory / "jwks.json").write_text(json.dumps({"keys": keys}))
    ours = {
        "ISSUER": forge.issuer().issuer,
        "AUDIENCE": "api",
        "JWKS_FILE": directory / "jwks.json",
        "CONFIG": directory / "keycache.toml",
        "WORKERS": 1,
        "BUDGET": 1000,
        "BACKOFF_MAX": 1,
        "LOG": "json",
    }
    return Service(directory / "log", ours | more)


def token(alg: str = "ES256", **claims: object) -> str:
    return forge.token(alg, None, forge.claims(**{"exp": LATER, **claims}))


def head(*lines: str, line: str = "GET /verify HTTP/1.1", about: str | None = "/orders/7") -> bytes:
    """A request without a body, as nginx asks."""
    asked = [] if about is None else ["X-Original-Method: GET", f"X-Original-URI: {about}"]
    whole = [line, "Host: h", "X-Request-ID: r-1", *asked, *lines, "", ""]
    return "\r\n".join(whole).encode("utf-8", "surrogateescape")


GOOD = f"Authorization: Bearer {token(sub='José', scope='read')}"
ADMIN = f"Authorization: Bearer {token(scope='admin')}"
BODY = b'{"a": 1}'

PLAIN: dict[str, Chunks] = {
    "good": [head(GOOD)],
    "good, again and again": [head(GOOD), head(ADMIN), head(GOOD)],
    "nothing": [head()],
    "another scheme": [head("Authorization: Basic eDp5")],
    "scheme in another case": [head(GOOD.replace("Bearer", "bEARER"))],
    "no token": [head("Authorization: Bearer"), head("Authorization: Bearer  ")],
    "two in one field": [head(f"{GOOD}, {GOOD}"), head(f"{GOOD} x")],
    "two fields": [head(GOOD, GOOD), head(GOOD, "authorization: x")],
    "expired": [head(f"Authorization: Bearer {token(exp=1)}")],
    "too large": [head("Authorization: Bearer " + "a" * 9000)],
    "cookie": [head(f"Cookie: a=b; session={GOOD[22:]}; c"), head(GOOD, f"Cookie: session={GOOD}")],
    "cookies": [head(f"Cookie: session={GOOD[22:]}", f"Cookie: session={GOOD[22:]}")],
    "nobody's rule": [head(GOOD, about="*"), head(GOOD, line="GET /verify/%2e%2e/admin HTTP/1.1")],
    "anonymous": [head(about="/public/x"), head(GOOD, about="/public/x")],
    "too little": [head(GOOD, about="/admin/x?y"), head(ADMIN, about="/admin/x?y")],
    "about nothing": [head(GOOD, about=None), head(about=None)],
    "two stories": [head(GOOD, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /public")],
    "ambiguous": [head(GOOD, about="/public/../admin"), head(GOOD, about="/public#/admin")],
    "below": [
        head(GOOD, line=f"{method} /verify/orders/7?a=/b HTTP/1.1", about=None)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    ],
    "below, as Envoy has it": [
        head(GOOD, "Content-Length: 0", line="PUT /verify/orders/7 HTTP/1.1", about=None)
    ],
    "root": [head(GOOD, line="GET /verify/ HTTP/1.1", about=None)],
    "no request id": [head(GOOD).replace(b"X-Request-ID: r-1\r\n", b"")],
    "request id of another form": [head("X-Request-ID: é"), head().replace(b"r-1", b"r 1")],
    "request id that is a piece of the token": [head(GOOD, f"X-Request-ID: {GOOD[-40:]}")],
    "white space behind": [
        head(GOOD, about="/orders/7 "),
        head(GOOD + "\t", about="/orders/7\x0b"),
    ],
    "keep-alive": [head(GOOD, "Connection: Keep-Alive"), head(GOOD, "connection:keep-alive")],
    "query": [
        head(GOOD, line=f"GET /verify?{query} HTTP/1.1") for query in ("", "a=b&c", "?", "/")
    ],
}

ODD: dict[str, Chunks] = {
    "in two pieces": [head(GOOD)[:40], head(GOOD)[40:]],
    "byte by byte": [bytes([byte]) for byte in b"GET /verify HTTP/1.1\r\nA: b\r\n\r\n"],
    "without its last byte": [head(GOOD)[:-1], b"\n"],
    "pipelined": [head(GOOD) + head() + head(ADMIN)],
    "pipelined and cut": [head(GOOD) + head()[:30], head()[30:] + head(ADMIN)],
    "with a body": [head(GOOD, f"Content-Length: {len(BODY)}") + BODY, head(GOOD)],
    "body later": [head(GOOD, "Content-Length: 8"), BODY, head(GOOD)],
    "body that looks like a request": [
        head(GOOD, f"Content-Length: {len(head(ADMIN, about='/admin'))}"),
        head(ADMIN, about="/admin"),
        head(),
    ],
    "body of a request that is not found": [
        head(line="POST /nowhere HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: 200\r\n\r\n"
        ),
        head(GOOD)[:200],
    ],
    "body of a wrong method": [
        head(f"Content-Length: {len(head(GOOD))}", line="POST /verify HTTP/1.1"),
        head(GOOD),
        head(GOOD),
    ],
    "chunked": [head(GOOD, "Transfer-Encoding: chunked"), b"8\r\n" + BODY + b"\r\n0\r\n\r\n"],
    "chunked and a length": [head(GOOD, "Transfer-Encoding: chunked", "Content-Length: 0")],
    "unknown coding": [head(GOOD, "Transfer-Encoding: x")],
    "two lengths": [head(GOOD, "Content-Length: 0", "Content-Length: 0")],
    "no length": [head(GOOD, "Content-Length: "), head(GOOD, "Content-Length: +0")],
    "space before the colon": [head(GOOD, "Content-Length : 8"), head(GOOD.replace(":", " :"))],
    "expect": [head(GOOD, "Expect: 100-continue"), head(GOOD, "Expect: miracles")],
    "expect and a body": [head(GOOD, "Expect: 100-continue", "Content-Length: 8"), BODY],
    "upgrade": [
        head(GOOD, "Connection: Upgrade", "Upgrade: websocket"),
        head(GOOD, "Upgrade: h2c"),
    ],
    "close": [head(GOOD, "Connection: close"), head(GOOD)],
    "close and keep-alive": [head(GOOD, "Connection: close", "Connection: keep-alive"), head(GOOD)],
    "list of connections": [head(GOOD, "Connection: keep-alive, x"), head(GOOD)],
    "HTTP/1.0": [head(GOOD, line="GET /verify HTTP/1.0"), head(GOOD)],
    "HTTP/1.0 that stays": [
        head(GOOD, "Connection: keep-alive", line="GET /verify HTTP/1.0"),
        head(GOOD),
    ],
    "HTTP/2.0": [head(GOOD, line="GET /verify HTTP/2.0")],
    "absolute": [head(GOOD, line="GET http://elsewhere/verify HTTP/1.1"), head(GOOD)],
    "absolute, below": [head(GOOD, line="GET http://h/verify/admin#x HTTP/1.1", about=None)],
    "HEAD": [head(GOOD, line="HEAD /verify HTTP/1.1"), head(line="HEAD /verify HTTP/1.1")],
    "HEAD, below": [
        head(*more, line="HEAD /verify/orders HTTP/1.1", about=None) for more in ([GOOD], [])
    ],
    "POST": [head(GOOD, line="POST /verify HTTP/1.1"), head(GOOD)],
    "unknown method": [head(GOOD, line="BREW /verify/tea HTTP/1.1"), head(GOOD)],
    "method in small letters": [head(GOOD, line="get /verify HTTP/1.1"), head(GOOD)],
    "folded": [head(GOOD.replace("Bearer ", "Bearer\r\n ")), head(GOOD)],
    "line without a colon": [head(GOOD, "nothing"), head(GOOD)],
    "empty lines before": [b"\r\n" + head(GOOD)],
    "line feeds alone": [head(GOOD).replace(b"\r\n", b"\n"), head(GOOD)],
    "line feed in a value": [head(GOOD + "\nX-Original-URI: /admin"), head("A: b\rc", GOOD)],
    "zero octets": [
        head(GOOD + "\0"),
        head(GOOD, "A\0: b"),
        head(GOOD, line="GET /verify\0 HTTP/1.1"),
    ],
    "white space": [head(GOOD + " \t"), head(GOOD.replace(": ", ":\t \x0b")), head(" " + GOOD)],
    "octets beyond ASCII": [head(GOOD, "A: é"), head(GOOD + "é"), head(GOOD, "A: \udcff")],
    "target beyond ASCII": [head(GOOD, line="GET /verify?é HTTP/1.1"), head(GOOD)],
    "fragment": [
        head(GOOD, line="GET /verify#x HTTP/1.1"),
        head(GOOD, line="GET /verify?#x HTTP/1.1"),
    ],
    "odd queries": [head(GOOD, line=f"GET /verify?{c} HTTP/1.1") for c in "\"<>\\^`{|}~'\x7f"],
    "odd paths": [
        head(GOOD, line=f"GET /verify/{c} HTTP/1.1", about=None) for c in "\"<>\\^`{|}~'\x7f"
    ],
    "other paths": [
        head(GOOD, line=f"GET {path} HTTP/1.1") for path in ("/verifyx", "//verify", "/")
    ],
    "protected": [head(GOOD, line="GET /protected HTTP/1.1"), head(GOOD)],
    "words in the request line": [head(GOOD, line="GET /verify  HTTP/1.1"), head(GOOD)],
    "largest head": [head(GOOD, "A: " + "b" * (16384 - len(head(GOOD, "A: ")))), head(GOOD)],
    "head of the limit": [head("A: " + "b" * (16388 - len(head("A: ")) - over)) for over in (1, 0)],
    "head beyond the limit": [head("A: " + "b" * 20000)],
    "many fields": [head(GOOD, *(f"A{n}: b" for n in range(500))), head(GOOD)],
    "no fields": [b"GET /verify HTTP/1.1\r\n\r\n"],
    "nothing at all": [b""],
    "rubbish": [b"\x16\x03\x01\x02\x00\x01\r\n\r\n"],
}


def refusals(service: Service) -> Counter[str]:
    """The lines of refusals in the log, less what differs in every run."""
    lines = (json.loads(line) for line in service.log().splitlines() if '"refused"' in line)
    varying = ("time", "process", "request_id")
    return Counter(
        json.dumps({name: line[name] for name in line if name not in varying}) for line in lines
    )


def test_refusals_are_logged_alike(pair: Pair) -> None:
    # The first test: later, there have been too many of each reason to log all of them.
    for name in ("nothing", "expired", "two fields", "too little", "two stories", "ambiguous"):
        pair.exchange(*PLAIN[name], one_each=True)
    fast, slow = refusals(pair.fast), refusals(pair.slow)
    assert slow == fast
    assert len(slow) >= 6


@pytest.mark.parametrize("chunks", PLAIN.values(), ids=PLAIN)
def test_plain_question_has_the_same_answer(pair: Pair, chunks: Chunks) -> None:
    often = [*chunks] * 4  # what comes again is remembered, after the second time
    fast, slow = pair.exchange(*often, one_each=True)
    assert slow == fast
    assert fast[0].count(b"HTTP/1.1 ") == len(often) + 1


@pytest.mark.parametrize("chunks", ODD.values(), ids=ODD)
def test_odd_question_has_the_same_answer(pair: Pair, chunks: Chunks) -> None:
    fast, slow = pair.exchange(*chunks)
    assert slow == fast
    assert fast[0]


@pytest.mark.parametrize("of", CLASSES)
def test_hostile_token_has_the_same_answer(pair: Pair, of: str) -> None:
    for mutation in CLASSES[of]:
        sent = mutated("ES256", payload(exp=LATER), mutation)
        fast, slow = pair.exchange(head(f"Authorization: Bearer {sent}"), one_each=True)
        assert slow == fast


CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "token"


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.name)
def test_token_of_the_fuzzers_corpus_has_the_same_answer(pair: Pair, file: Path) -> None:
    field = b"Authorization: Bearer " + file.read_bytes() + b"\r\n\r\n"
    fast, slow = pair.exchange(head(line="GET /verify HTTP/1.1")[:-2] + field)
    assert slow == fast


def requests() -> st.SearchStrategy[bytes]:
    """Requests that are nearly plain: a few things about each are odd."""
    texts = st.text(st.characters(max_codepoint=0x17F, exclude_characters="\r\n"), max_size=8)
    lines = st.sampled_from(
        [
            *["GET /verify HTTP/1.1"] * 6,
            *("GET /verify/orders HTTP/1.1", "PUT /verify/admin/x HTTP/1.1"),
            *("POST /verify HTTP/1.1", "HEAD /verify HTTP/1.1", "GET /verify HTTP/1.0"),
            *("GET http://h/verify HTTP/1.1", "GET /protected HTTP/1.1", "GET /verify\tHTTP/1.1"),
        ]
    ) | texts.map("GET /verify?{} HTTP/1.1".format)
    values = st.sampled_from(
        ["0", "5", "close", "keep-alive", "chunked", "websocket", "100-continue"]
    )
    odd = st.builds(
        "{}{}{}{}".format,
        st.sampled_from(
            [
                *("Connection", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "TE"),
                *("Authorization", "authorization", "X-Original-URI", "X-Forwarded-Uri", "Cookie"),
                *("X-Request-ID", "Host", "A", " B", "C ", "", "\tD"),
            ]
        ),
        st.sampled_from([": ", ":", " : ", ":\t", " "]),
        values | texts,
        st.sampled_from(["", " ", "\t", "\r", "\n", "\r\n x"]),
    )
    usual = st.sampled_from([[GOOD], [ADMIN], [], [GOOD, "Accept: */*"]])
    return st.builds(
        lambda line, fields, more: head(*fields, *more, line=line),
        lines,
        usual,
        st.lists(odd, max_size=2),
    )


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(1, 200), max_size=2))
def test_any_requests_have_the_same_answers(
    pair: Pair, requests: list[bytes], cuts: list[int]
) -> None:
    whole, chunks = b"".join(requests), list(requests)
    if cuts:
        places = [0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]
        chunks = [whole[start:end] for start, end in pairwise(places)]
    fast, slow = pair.exchange(*chunks)
    assert slow == fast


def counted(service: Service) -> dict[str, float]:
    """What the metrics page says of tokens."""
    page = request(service.admin, "/metrics").body.decode()
    wanted = r"^(keycache_(?:verif\w+|lookups)_(?:total|count)\S*) (\S+)$"
    return {name: float(value) for name, value in re.findall(wanted, page, re.MULTILINE)}


def test_metrics_count_the_same(pair: Pair) -> None:
    before = [counted(each) for each in (pair.fast, pair.slow)]
    for chunks in PLAIN.values():
        pair.exchange(*chunks, one_each=True)

    def differences() -> list[Counter[str]]:
        after = [counted(each) for each in (pair.fast, pair.slow)]
        return [
            Counter({name: value - was[name] for name, value in now.items() if value != was[name]})
            for was, now in zip(before, after, strict=True)
        ]

    eventually(lambda: (found := differences())[0] == found[1] and bool(found[0]), 10)
