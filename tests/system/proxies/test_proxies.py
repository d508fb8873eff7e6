"""Every proxy with its shipped file, before an API, asking a real `keycache serve`."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.processes import workers
from tests.system.proxies.conftest import port
from tests.system.proxies.proxies import Proxy
from tests.system.proxies.upstream import Received, Recorder, Reply
from tests.system.service import Answer, Service, eventually, request

IDENTITY = ("X-Auth-Subject", "X-Auth-Issuer", "X-Auth-Scope")
# All that RFC 9110 section 5.6.2 allows in a name besides letters and digits.
SEPARATORS = "!#$%&'*+-.^_`|~"
UNAVAILABLE = {502, 503, 504}
LONGEST = 5.0  # seconds; every proxy gives keycache up after three

Start = Callable[[Sequence[int]], Proxy]
StartKeycache = Callable[..., Service]


def said(answer: Answer) -> tuple[int, str | None, str | None, bytes]:
    """What a refused client reads. Retry-After counts down, so not its number."""
    retry = "a number" if "retry-after" in answer.headers else None
    return answer.status, answer.headers.get("www-authenticate"), retry, answer.body


def send(proxy: Proxy, head: str, body: bytes = b"") -> bytes:
    """Send these bytes as they are; returns the answers, until nothing comes for a moment."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
        connection.settimeout(0.7)
        answers = b""
        try:
            while received := connection.recv(65536):
                answers += received
        except (TimeoutError, ConnectionResetError):
            pass
    return answers


def identity(received: Received) -> dict[str, str]:
    """The identity as the API reads it: a field that is empty is like one that is not there."""
    return {name: ", ".join(received.values(name)) for name in IDENTITY}


def names_read_as_identity(received: Received) -> list[str]:
    """The field names that CGI, WSGI or PHP would read as one of the identity's."""
    expected = {name.lower().replace("-", "_") for name in IDENTITY}
    return [
        name
        for name, _ in received.fields
        if "".join(char if char.isalnum() else "_" for char in name.lower()) in expected
    ]


# Who gets through, and as whom ----------------------------------------------------------------


def test_api_reads_who_calls(proxy: Proxy, api: Recorder, issuer: DemoIssuer) -> None:
    token = issuer.mint(sub="José", scope="write read")
    assert request(proxy.url, "/", token).status == 200
    expected = {
        "X-Auth-Subject": "Jos%C3%A9",
        "X-Auth-Issuer": issuer.url,
        "X-Auth-Scope": "read write",
    }
    assert expected == identity(api.received[-1])


def test_api_gets_the_request_as_it_was_sent(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=15)
    headers = {"Authorization": f"Bearer {issuer.mint()}", "Cookie": "a=b"}
    connection.request("PUT", "/reports/1?page=2", body=b"a report", headers=headers)
    answer = connection.getresponse().read()
    connection.close()
    got = api.received[-1]
    assert b"from the API" == answer
    expected = ("PUT", "/reports/1?page=2", b"a report", ["a=b"])
    assert expected == (got.method, got.target, got.body, got.values("Cookie"))


def test_body_sent_in_chunks_reaches_the_api(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=15)
    headers = {"Authorization": f"Bearer {issuer.mint()}"}
    chunks = iter([b"a ", b"report"])
    connection.request("POST", "/", body=chunks, headers=headers, encode_chunked=True)
    connection.getresponse().read()
    connection.close()
    assert b"a report" == api.received[-1].body


REFUSED: dict[str, Callable[[DemoIssuer], str]] = {
    "malformed": lambda _: "Bearer not.a.token",
    "expired": lambda issuer: f"Bearer {issuer.mint(exp=1)}",
    "for another audience": lambda issuer: f"Bearer {issuer.mint(aud='other')}",
    "with a forged kid": lambda issuer: f"Bearer {issuer.forge()}",
    "too large": lambda _: "Bearer " + 9000 * "a",
    "none": lambda _: "Basic YTpi",
    "two in one field": lambda issuer: f"Bearer {issuer.mint()} {issuer.mint()}",
    "empty": lambda _: "Bearer",
}


@pytest.mark.parametrize("token", REFUSED)
def test_client_reads_why_in_the_words_of_keycache(
    token: str, proxy: Proxy, api: Recorder, keycache: Service, issuer: DemoIssuer
) -> None:
    headers = {"Authorization": REFUSED[token](issuer)}
    expected = request(keycache.url, "/verify", **headers)
    answer = request(proxy.url, "/", **headers)
    assert expected.status in {400, 401}
    assert said(expected) == said(answer)
    assert "application/json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    assert [] == api.received


def test_without_a_token_there_is_a_challenge(proxy: Proxy, api: Recorder) -> None:
    answer = request(proxy.url, "/")
    expected = (401, 'Bearer realm="api"', None, b'{"error":"No token provided"}')
    assert expected == said(answer)
    assert [] == api.received


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_refusal_reads_the_same_for_every_method(
    method: str, proxy: Proxy, api: Recorder, keycache: Service
) -> None:
    answer = request(proxy.url, "/", "not.a.token", method=method)
    assert said(request(keycache.url, "/verify", "not.a.token")) == said(answer)
    assert [] == api.received


def test_two_authorization_fields_are_no_valid_request(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    field = f"Authorization: Bearer {issuer.mint()}\n"
    answer = send(proxy, f"GET / HTTP/1.1\nHost: h\n{field}{field}Connection: close\n\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b'error="invalid_request"' in head
    assert "Invalid request" == json.loads(body)["error"]
    assert [] == api.received


def test_token_in_the_query_is_never_used(proxy: Proxy, api: Recorder, issuer: DemoIssuer) -> None:
    answer = request(proxy.url, f"/?access_token={issuer.mint()}")
    assert (401, []) == (answer.status, api.received)


def test_no_log_of_the_proxy_has_a_token(proxy: Proxy, issuer: DemoIssuer) -> None:
    good, bad = issuer.mint(), issuer.forge()
    request(proxy.url, f"/?access_token={good}", good)
    request(proxy.url, f"/?access_token={bad}", bad)
    log = proxy.log()
    assert [False, False] == [token[-40:] in log for token in (good, bad)]


def test_403_and_its_scope_reach_the_client(proxy_that_asks: Start, api: Recorder) -> None:
    challenge = 'Bearer realm="api", error="insufficient_scope", scope="admin"'
    body = b'{"error":"Insufficient scope"}'
    fields = {"WWW-Authenticate": challenge, "Content-Type": "application/json"}
    with Recorder(for_tokens(Reply(403, fields, body))) as verifier:
        answer = request(proxy_that_asks([verifier.port]).url, "/", "t")
    assert (403, challenge, None, body) == said(answer)
    assert [] == api.received


def test_503_of_keycache_and_its_retry_after_reach_the_client(
    proxy_that_asks: Start,
    api: Recorder,
    silent_issuer: DemoIssuer,
    keycache_without_keys: Service,
) -> None:
    token = silent_issuer.mint()
    expected = request(keycache_without_keys.url, "/verify", token)
    answer = request(proxy_that_asks([port(keycache_without_keys)]).url, "/", token)
    assert (503, "a number") == (expected.status, said(expected)[2])
    assert said(expected) == said(answer)
    assert [] == api.received


# Who claims to be somebody --------------------------------------------------------------------


def claims_to_be_root() -> str:
    """The identity's fields, in every spelling that somebody might read as such."""
    names = [f"X{one}Auth{two}Subject" for one in SEPARATORS for two in SEPARATORS]
    names += ["X-AUTH-SCOPE", "x-auth-issuer", "X_AUTH_SCOPE", "X-Auth-Scope", "X_Auth-Issuer"]
    return "".join(f"{name}: root\n" for name in names)


def test_nobody_brings_an_identity(proxy: Proxy, api: Recorder, issuer: DemoIssuer) -> None:
    token = issuer.mint(sub="alice", scope="read")
    # As many as there are do not fit into one head.
    lines = claims_to_be_root().splitlines(keepends=True)
    for part in (lines[n : n + 60] for n in range(0, len(lines), 60)):
        fields = "".join(part) + "Connection: close\n"
        head = f"GET / HTTP/1.1\nHost: h\nAuthorization: Bearer {token}\n{fields}\n"
        assert send(proxy, head).startswith(b"HTTP/1.1 200 ")
        expected = {
            "X-Auth-Subject": "alice",
            "X-Auth-Issuer": issuer.url,
            "X-Auth-Scope": "read",
        }
        assert expected == identity(api.received[-1])
        assert sorted(name.lower() for name in IDENTITY) == sorted(
            name.lower() for name in names_read_as_identity(api.received[-1])
        )


def test_scope_that_the_token_does_not_have_is_not_the_clients_to_give(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    request(proxy.url, "/", issuer.mint(scope=None), **{"X-Auth-Scope": "admin"})
    assert "" == identity(api.received[-1])["X-Auth-Scope"]


def test_internal_token_is_not_the_clients_to_give(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    request(proxy.url, "/", issuer.mint(), **{"X-Auth-Token": "forged"})
    assert "" == "".join(api.received[-1].values("X-Auth-Token"))


def test_internal_token_reaches_the_api(proxy_that_asks: Start, api: Recorder) -> None:
    fields = dict.fromkeys(IDENTITY, "") | {"X-Auth-Token": "a.b.c"}
    with Recorder(for_tokens(Reply(200, fields))) as verifier:
        request(proxy_that_asks([verifier.port]).url, "/", "t")
    assert ["a.b.c"] == api.received[-1].values("X-Auth-Token")


def test_verifier_that_forgets_the_identity_lets_the_client_bring_none(
    proxy_that_asks: Start, api: Recorder
) -> None:
    with Recorder(for_tokens(Reply(200))) as verifier:
        proxy = proxy_that_asks([verifier.port])
        request(proxy.url, "/", "t", **dict.fromkeys(IDENTITY, "root"))
    assert dict.fromkeys(IDENTITY, "") == identity(api.received[-1])


@pytest.mark.parametrize("connection", ["close, {}", "{}", "keep-alive, {}, Authorization"])
def test_connection_field_takes_no_identity_away(
    connection: str, proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    field = connection.format(", ".join(IDENTITY))
    send(
        proxy,
        f"GET / HTTP/1.1\nHost: h\nAuthorization: Bearer {issuer.mint(sub='alice')}\n"
        f"Connection: {field}\n\n",
    )
    # Refused, or passed on whole; and no next proxy is asked to do it either.
    for received in api.received:
        assert "alice" == identity(received)["X-Auth-Subject"]
        assert "x-auth" not in ",".join(received.values("Connection")).lower()


FRAMINGS = {
    "length-and-chunks": "Content-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n",
    "chunks-and-length": "Transfer-Encoding: chunked\nContent-Length: 6\n\n0\n\n",
    "two-lengths": "Content-Length: 0\nContent-Length: 77\n\n",
    "list-of-lengths": "Content-Length: 0, 77\n\n",
    "signed-length": "Content-Length: +0\n\n",
    "unknown-coding": "Transfer-Encoding: xchunked\nContent-Length: 77\n\n",
    "two-codings": "Transfer-Encoding: identity, chunked\n\n0\n\n",
    "chunked-twice": "Transfer-Encoding: chunked, chunked\n\n0\n\n",
    "space-before-colon": "Transfer-Encoding : chunked\nContent-Length: 6\n\n0\n\n",
    "tab-in-value": "Transfer-Encoding:\tchunked\nContent-Length: 6\n\n0\n\n",
    "folded": "Transfer-Encoding:\n chunked\nContent-Length: 6\n\n0\n\n",
    "bad-chunk-size": "Transfer-Encoding: chunked\n\n0x0\n\n",
    "no-body": "Content-Length: 0\n\n",
}


def test_no_second_request_comes_in_with_a_first(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    def smuggle(framing: str) -> None:
        send(
            proxy,
            f"POST / HTTP/1.1\nHost: h\nAuthorization: Bearer {issuer.mint()}\n"
            f"{FRAMINGS[framing]}GET /{framing} HTTP/1.1\nHost: h\nX-Auth-Subject: root\n\n",
        )

    with ThreadPoolExecutor(len(FRAMINGS)) as pool:
        list(pool.map(smuggle, FRAMINGS))  # together, because each waits for what may still come
    assert {"/"} == set(api.targets())


def test_websocket_goes_on(proxy: Proxy, issuer: DemoIssuer) -> None:
    assert b"101" == send(proxy, upgrade("websocket", issuer.mint()))[9:12]


def test_no_connection_becomes_one_that_nobody_verifies(
    proxy: Proxy, api: Recorder, issuer: DemoIssuer
) -> None:
    answer = send(proxy, upgrade("h2c", issuer.mint()))
    assert b"101" != answer[9:12]
    assert [] == [value for received in api.received for value in received.values("Upgrade")]


def upgrade(protocol: str, token: str) -> str:
    return (
        f"GET / HTTP/1.1\nHost: h\nAuthorization: Bearer {token}\n"
        f"Connection: Upgrade\nUpgrade: {protocol}\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
    )


# What keycache is told, and what happens without it -------------------------------------------


def for_tokens(reply: Reply) -> Callable[[Received], Reply]:
    """A verifier that says this of every token, and 401 when there is none (so it is healthy)."""
    return lambda received: reply if received.values("Authorization") else Reply(401)


def test_verifier_is_told_of_the_request_but_not_its_body(proxy_that_asks: Start) -> None:
    with Recorder(for_tokens(Reply(200, dict.fromkeys(IDENTITY, "")))) as verifier:
        proxy = proxy_that_asks([verifier.port])
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=15)
        headers = {"Authorization": "Bearer t", "Cookie": "a=b", "X-Forwarded-Method": "lie"}
        connection.request("POST", "/reports?page=2", body=b"secret", headers=headers)
        connection.getresponse().read()
        connection.close()
    (asked,) = [it for it in verifier.received if it.values("Authorization")]
    assert ("GET", "/verify", b"") == (asked.method, asked.target, asked.body)
    assert ["Bearer t"] == asked.values("Authorization")
    assert [] == asked.values("Cookie")
    method = asked.values("X-Original-Method") or asked.values("X-Forwarded-Method")
    uri = asked.values("X-Original-URI") or asked.values("X-Forwarded-Uri")
    assert (["POST"], ["/reports?page=2"]) == (method, uri)


def test_rules_judge_the_clients_own_method_and_path(
    proxy_that_asks: Start,
    api: Recorder,
    issuer: DemoIssuer,
    start_keycache: StartKeycache,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rules = tmp_path_factory.mktemp("rules") / "keycache.toml"
    rules.write_text(
        'trusted_proxies = ["127.0.0.1"]\n[[rules]]\npath = "/orders/*"\nmethods = ["PUT"]\n'
    )
    proxy = proxy_that_asks([port(start_keycache(CONFIG=rules))])
    lies = dict.fromkeys(("X-Original-URI", "X-Forwarded-Uri"), "/orders/7")
    lies |= dict.fromkeys(("X-Original-Method", "X-Forwarded-Method"), "PUT")
    token = issuer.mint()
    asked = [("PUT", "/orders/7?a=b"), ("GET", "/orders/7"), ("PUT", "/users")]
    plain = [request(proxy.url, path, token, method=method) for method, path in asked]
    lying = [request(proxy.url, path, token, method=method, **lies) for method, path in asked[1:]]
    assert [200, 403, 403] == [answer.status for answer in plain]
    assert ["no_rule", "no_rule"] == [answer.json()["reason"] for answer in plain[1:]]
    assert {400, 403} >= {answer.status for answer in lying}
    assert ["/orders/7?a=b"] == api.targets()


def test_slow_verifier_lets_nobody_through(proxy_that_asks: Start, api: Recorder) -> None:
    slow = Reply(200, dict.fromkeys(IDENTITY, "s"), seconds=LONGEST + 1)
    with Recorder(for_tokens(slow)) as verifier:
        proxy = proxy_that_asks([verifier.port])
        started = time.monotonic()
        answer = request(proxy.url, "/", "t")
        took = time.monotonic() - started
    assert answer.status in UNAVAILABLE
    assert took < LONGEST
    assert [] == api.received


def test_without_keycache_nobody_gets_through_until_it_is_back(
    kind: str,
    proxy_that_asks: Start,
    api: Recorder,
    issuer: DemoIssuer,
    start_keycache: StartKeycache,
) -> None:
    keycache = start_keycache()
    proxy = proxy_that_asks([port(keycache)])
    assert request(proxy.url, "/", issuer.mint()).status == 200
    api.received.clear()

    for pid in (keycache.process.pid, *workers(keycache)):
        os.kill(pid, signal.SIGKILL)
    keycache.process.wait()
    answers = [request(proxy.url, "/", issuer.mint()) for _ in range(3)]
    assert {answer.status for answer in answers} <= UNAVAILABLE
    # In keycache's form, except for Traefik, which has words of its own.
    in_form = {answer.headers.get("content-type") for answer in answers} == {"application/json"}
    assert (kind != "traefik") == in_form
    assert [] == api.received

    start_keycache(PORT=port(keycache))
    eventually(lambda: request(proxy.url, "/", issuer.mint()).status == 200, 10)


def test_restart_of_one_keycache_of_two_loses_no_request(
    proxy_that_asks: Start,
    keycache: Service,
    issuer: DemoIssuer,
    start_keycache: StartKeycache,
) -> None:
    first = start_keycache()
    proxy = proxy_that_asks([port(first), port(keycache)])
    token = issuer.mint()
    eventually(lambda: request(proxy.url, "/", token).status == 200, 10)
    answers: list[tuple[int, bytes]] = []
    done = threading.Event()

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=15)
        while not done.is_set():
            connection.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
            time.sleep(0.005)
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    eventually(lambda: len(answers) > 50, 10)
    assert 0 == first.stop()
    before = len(answers)
    eventually(lambda: len(answers) > before + 50, 10)
    done.set()
    for thread in clients:
        thread.join()
    assert {(200, b"from the API")} == set(answers)
