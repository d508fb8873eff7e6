"""keycache.js, in the Express example: what it asks, and that nothing but keycache's yes is one."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.system.examples.examples import NODE, SHIPPED, Around, Example
from tests.system.proxies.upstream import Received, Recorder, Reply

IDENTITY = {"X-Auth-Subject": "alice", "X-Auth-Issuer": "https://id.example", "X-Auth-Scope": "a"}
YES = Reply(200, IDENTITY)
DEADLINE = 3.0


def always(reply: Reply) -> Callable[[Received], Reply]:
    return lambda _: reply


@pytest.fixture(scope="module")
def keycache() -> Iterator[Recorder]:
    """What stands at keycache's address."""
    with Recorder(always(YES)) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def running(keycache: Recorder) -> Iterator[Example]:
    with Example("express", Around(keycache.port)) as example:
        example.wait(lambda: _lets_in(example))
        yield example


@pytest.fixture
def example(running: Example, keycache: Recorder) -> Example:
    """The running example, whose verifier has seen nothing yet and says yes."""
    keycache.reply = always(YES)
    keycache.received.clear()
    return running


def _lets_in(example: Example) -> bool:
    try:
        return example.get("t").status == 200
    except OSError:
        return False


def test_only_authorization_is_passed_on(example: Example, keycache: Recorder) -> None:
    example.get("t", Cookie="a=b", **{"X-Auth-Subject": "root", "X-Original-URI": "/public"})
    (asked,) = keycache.received
    assert {"host", "connection", "authorization", "x-original-method", "x-original-uri"} == {
        name.lower() for name, _ in asked.fields
    }
    assert ["Bearer t"] == asked.values("Authorization")
    assert ["/protected"] == asked.values("X-Original-URI")


def test_one_connection_serves_many_requests(example: Example, keycache: Recorder) -> None:
    before = keycache.connections
    for _ in range(20):
        assert example.get("t").status == 200
    assert before + 1 >= keycache.connections


def test_no_verdict_is_kept(example: Example, keycache: Recorder) -> None:
    assert 200 == example.get("t").status
    keycache.reply = always(Reply(401, body=b'{"error": "Invalid token"}'))
    assert 401 == example.get("t").status


def test_stranger_whom_a_rule_lets_in_is_no_user(example: Example, keycache: Recorder) -> None:
    keycache.reply = always(Reply(200, dict.fromkeys(IDENTITY, "")))
    assert (200, None) == (example.get().status, example.get().json()["user"])


def test_403_its_scope_and_its_body_reach_the_client(example: Example, keycache: Recorder) -> None:
    fields = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="admin"'}
    body = {"error": "Insufficient scope"}
    keycache.reply = always(Reply(403, fields, json.dumps(body).encode()))
    answer = example.get("t")
    assert (403, body) == (answer.status, answer.json())
    assert fields["WWW-Authenticate"] == answer.headers["www-authenticate"]


NOT_KEYCACHE = {
    "200 without an identity": Reply(200),
    "200 without a subject": Reply(200, {"X-Auth-Issuer": "i", "X-Auth-Scope": "a"}),
    "200 without an issuer": Reply(200, {"X-Auth-Subject": "alice", "X-Auth-Scope": "a"}),
    "200 with an identity that cannot be decoded": Reply(200, IDENTITY | {"X-Auth-Subject": "%ff"}),
    "200 that is too long": Reply(200, IDENTITY, b"x" * 200_000),
    "204": Reply(204, IDENTITY),
    "redirect": Reply(302, IDENTITY | {"Location": "/"}),
    "401 of something else": Reply(401, {"Content-Type": "text/html"}, b"<h1>Log in</h1>"),
    "404": Reply(404, IDENTITY, b'{"error": "Not found"}'),
    "500": Reply(500, IDENTITY, b'{"error": "Not found"}'),
    "502": Reply(502, IDENTITY, b'{"error": "Not found"}'),
    "too slow": Reply(200, IDENTITY, seconds=2 * DEADLINE),
}


@pytest.mark.parametrize("reply", NOT_KEYCACHE.values(), ids=NOT_KEYCACHE.keys())
def test_what_keycache_would_not_say_lets_nobody_in(
    reply: Reply, example: Example, keycache: Recorder
) -> None:
    keycache.reply = always(reply)
    started = time.monotonic()
    answer = example.get("t")
    took = time.monotonic() - started
    assert (503, "1") == (answer.status, answer.headers["retry-after"])
    assert took < 2 * DEADLINE


FIELDS = "".join(f"{name}: {value}\r\n" for name, value in IDENTITY.items())
YES_AT_ONCE = f"HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: 0\r\n\r\n".encode()
YES_HALF = f"HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: 9\r\n\r\nhal".encode()


class OneAnswerEach:
    """A verifier that answers the first request of each connection, and closes it at the second."""

    def __init__(self) -> None:
        self.answer = YES_AT_ONCE
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.requests = 0

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for answer in (self.answer, b""):
                self.requests += bool(connection.recv(65536))
                connection.sendall(answer)


@pytest.fixture(scope="module")
def verifier() -> Iterator[OneAnswerEach]:
    verifier = OneAnswerEach()
    with verifier.listener:
        threading.Thread(target=verifier.serve, daemon=True).start()
        yield verifier


@pytest.fixture(scope="module")
def with_verifier(verifier: OneAnswerEach) -> Iterator[Example]:
    with Example("express", Around(verifier.port)) as example:
        example.wait(lambda: _lets_in(example))
        yield example


def test_connection_that_is_closed_when_it_is_used_again_costs_no_request(
    with_verifier: Example, verifier: OneAnswerEach
) -> None:
    before = verifier.requests
    assert [200] * 10 == [with_verifier.get("t").status for _ in range(10)]
    assert 20 == verifier.requests - before  # each was asked on an old connection, and on a new one


def test_yes_that_stops_halfway_lets_nobody_in(
    with_verifier: Example, verifier: OneAnswerEach
) -> None:
    verifier.answer = YES_HALF
    started = time.monotonic()
    assert 503 == with_verifier.get("t").status
    assert DEADLINE - 0.5 < time.monotonic() - started < 2 * DEADLINE


VERIFY_WHAT_CANNOT_BE_SENT = """
const { Keycache } = require("./keycache.js");
new Keycache("http://127.0.0.1:9/verify", { deadline: 10 })
  .verify({ method: "GET", url: "/", headers: { authorization: "Bearer a\\nb" } })
  .then((verdict) => console.log(verdict.status));
"""


def test_field_that_cannot_be_passed_on_lets_nobody_in_and_ends_nothing() -> None:
    command = [str(NODE), "-e", VERIFY_WHAT_CANNOT_BE_SENT]
    asked = subprocess.run(command, cwd=SHIPPED, capture_output=True, timeout=60, check=False)
    assert (0, b"503\n", b"") == (asked.returncode, asked.stdout, asked.stderr)
