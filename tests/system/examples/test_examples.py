"""Each framework of ops/examples for real: who is let in, and what the others are told."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.demo.issuer import DemoIssuer
from tests.system.examples.examples import KINDS, NODE, SHIPPED, Example
from tests.system.service import Answer, Service, request

NAMED_LIKE_OURS = {"X-Auth-Subject": "root", "X-Auth-Issuer": "root", "X-Auth-Scope": "admin"}
BAD: dict[str, Callable[[DemoIssuer], str]] = {
    "expired": lambda issuer: issuer.mint(exp=1_700_000_000),
    "bad_signature": lambda issuer: issuer.forge(kid=issuer.kids("ES256")[-1]),
    "unknown_key": lambda issuer: issuer.forge(),
    "wrong_audience": lambda issuer: issuer.mint(aud="another"),
    "malformed": lambda _: "not.a.token",
}


def said(answer: Answer) -> tuple[int, str | None, object]:
    """What a client goes by."""
    return answer.status, answer.headers.get("www-authenticate"), answer.json()


def test_good_token_is_let_in_and_the_user_is_known(example: Example, issuer: DemoIssuer) -> None:
    answer = example.get(issuer.mint(sub="alice"))
    user = answer.json()["user"]
    expected = (200, "Access granted", "alice", issuer.url)
    assert expected == (answer.status, answer.json()["message"], user["sub"], user["iss"])


def test_subject_beyond_ascii_arrives_as_it_is(example: Example, issuer: DemoIssuer) -> None:
    subject = "José, 100% 李 %20"
    assert subject == example.get(issuer.mint(sub=subject)).json()["user"]["sub"]


def test_scopes_arrive_one_by_one(kind: str, example: Example, issuer: DemoIssuer) -> None:
    user = example.get(issuer.mint(scope="read write:50%")).json()["user"]
    scopes = user["scope"].split() if kind == "sanic" else user["scopes"]
    assert ["read", "write:50%"] == scopes


def test_nothing_sent_is_told_so(example: Example) -> None:
    expected = (401, 'Bearer realm="api"', {"error": "No token provided"})
    assert expected == said(example.get())


@pytest.mark.parametrize("reason", list(BAD))
def test_bad_token_is_told_what_keycache_says(
    reason: str, example: Example, keycache: Service, issuer: DemoIssuer
) -> None:
    token = BAD[reason](issuer)
    answer = example.get(token)
    assert (401, "Invalid token", reason) == (
        answer.status,
        answer.json()["error"],
        answer.json()["reason"],
    )
    assert said(request(keycache.url, "/verify", token)) == said(answer)


def test_two_tokens_are_no_valid_request(example: Example, issuer: DemoIssuer) -> None:
    connection = HTTPConnection(urlsplit(example.url).netloc, timeout=15)
    connection.putrequest("GET", example.path)
    for _ in range(2):
        connection.putheader("Authorization", f"Bearer {issuer.mint()}")
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert (400, "Invalid request") == (answer.status, body["error"])


def test_nobody_brings_an_identity(example: Example, issuer: DemoIssuer) -> None:
    stranger = example.get(**NAMED_LIKE_OURS)
    alice = example.get(issuer.mint(sub="alice"), **NAMED_LIKE_OURS)
    assert (401, "alice") == (stranger.status, alice.json()["user"]["sub"])


def test_token_in_the_query_is_not_looked_at(example: Example, issuer: DemoIssuer) -> None:
    answer = request(example.url, f"{example.path}?access_token={issuer.mint()}")
    assert (401, "No token provided") == (answer.status, answer.json()["error"])


asking_keycache = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind != "sanic"], indirect=True
)


@asking_keycache
def test_rule_of_keycache_holds_for_the_clients_own_request(
    example: Example, issuer: DemoIssuer
) -> None:
    answer = example.get(issuer.mint(scope="write"), **{"X-Original-URI": "/public"})
    assert (403, "insufficient_scope") == (answer.status, answer.json()["reason"])
    assert 'scope="read"' in answer.headers["www-authenticate"]


@asking_keycache
def test_unknown_keys_are_said_to_be_unknown(example: Example, silent_issuer: DemoIssuer) -> None:
    answer = example.get(silent_issuer.mint())
    assert (503, "Temporarily unavailable") == (answer.status, answer.json()["error"])
    assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])


def test_without_keycache_nobody_is_let_in_and_all_may_try_again(
    example_cut_off: Example, silent_issuer: DemoIssuer
) -> None:
    answer = example_cut_off.get(silent_issuer.mint(), **NAMED_LIKE_OURS)
    assert (503, "Temporarily unavailable") == (answer.status, answer.json()["error"])
    assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])


def test_no_log_of_an_example_has_a_token(example: Example, issuer: DemoIssuer) -> None:
    good, bad = issuer.mint(), issuer.forge()
    example.get(good)
    example.get(bad)
    log = example.log()
    assert [False, False] == [token[-40:] in log for token in (good, bad)]


@pytest.mark.parametrize("kind", ["fastapi"], indirect=True)
def test_request_past_nginx_is_nobodys(example: Example, issuer: DemoIssuer) -> None:
    transport = httpx.HTTPTransport(uds=str(example.directory / "api.sock"))
    with httpx.Client(transport=transport, base_url="http://api") as client:
        answer = client.get("/protected", headers={"Authorization": f"Bearer {issuer.mint()}"})
    assert (503, "1") == (answer.status_code, answer.headers["Retry-After"])


@pytest.mark.parametrize("kind", ["express"], indirect=True)
def test_express_reads_paths_as_strictly_as_rules_do(example: Example, issuer: DemoIssuer) -> None:
    paths = ("/PROTECTED", "/protected/", "/%70rotected", "//protected")
    assert {404} == {request(example.url, path, issuer.mint()).status for path in paths}


@pytest.mark.parametrize("kind", ["sanic"], indirect=True)
def test_handler_that_needs_a_scope_tells_which(example: Example, issuer: DemoIssuer) -> None:
    answer = request(example.url, "/reports", issuer.mint(scope="read"))
    assert 403 == answer.status
    assert 'scope="reports:read"' in answer.headers["www-authenticate"]


def test_tests_of_the_sanic_example_pass_wherever_they_are_copied(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "sanic", tmp_path / "copied")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "copied",
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert 0 == tests.returncode, tests.stdout


ASK_BY_WEBSOCKET = """
const socket = new (require("ws"))(process.argv[1]);
socket.on("message", (data) => {
  const message = JSON.parse(data);
  if (message.messageId === 7) { console.log(JSON.stringify(message)); process.exit(0); }
});
socket.on("open", () => socket.send(JSON.stringify(
  { event: "action", params: { action: "protected" }, messageId: 7 })));
"""


@pytest.mark.parametrize("kind", ["actionhero"], indirect=True)
def test_actions_are_not_for_websockets_that_send_no_token(example: Example) -> None:
    url = example.url.replace("http", "ws") + "/primus"
    command = [str(NODE), "-e", ASK_BY_WEBSOCKET, url]
    asked = subprocess.run(command, cwd=SHIPPED, capture_output=True, timeout=60, check=True)
    answer = json.loads(asked.stdout)
    assert ("No token provided", None) == (answer["error"], answer.get("user"))
