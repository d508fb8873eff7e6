"""`keycache check`, against a real issuer and real servers."""

import json
from pathlib import Path

import pytest
import redis

from app.demo.issuer import DemoIssuer
from tests.app.cli.conftest import Keycache


def statuses(keycache: Keycache, redis_url: str) -> tuple[int, list[str]]:
    run = keycache("check", "--json", REDIS_URL=redis_url)
    return run.code, [finding["status"] for finding in run.json["findings"]]


def test_all_is_well_with_a_redis_and_an_issuer(keycache: Keycache, redis_url: str) -> None:
    assert (0, ["ok", "ok", "ok"]) == statuses(keycache, redis_url)


def test_without_a_redis_the_service_would_bring_its_own(keycache: Keycache) -> None:
    run = keycache("check")
    assert (0, True) == (run.code, "none is named" in run.out)


def test_check_leaves_nothing_in_redis(keycache: Keycache, valkey_url: str) -> None:
    keycache("check", REDIS_URL=valkey_url)
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0


def test_redis_that_does_not_answer_is_exit_2_and_the_issuer_is_checked_still(
    keycache: Keycache,
) -> None:
    assert (2, ["ok", "FAILED", "ok"]) == statuses(keycache, "unix:///nonexistent/redis.sock")


def test_redis_that_refuses_writes_is_exit_2(keycache: Keycache, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            run = keycache("check", REDIS_URL=valkey_url)
        finally:
            client.replicaof("NO", "ONE")
    assert (2, True) == (run.code, "refuses writes" in run.out)


def test_issuer_that_fails_is_exit_1(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.fail(500)
    assert (1, ["ok", "ok", "FAILED"]) == statuses(keycache, valkey_url)


def test_issuer_without_a_usable_key_is_exit_1(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.malformed(b'{"keys": []}')
    assert (1, ["ok", "ok", "FAILED"]) == statuses(keycache, valkey_url)


def test_skipped_key_is_a_warning_with_its_reason(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    document = issuer.jwks()
    document["keys"].append({"kty": "oct", "kid": "shared-secret", "k": "AAAA"})
    issuer.malformed(json.dumps(document).encode())
    run = keycache("check", REDIS_URL=valkey_url)
    assert (0, True) == (run.code, "skipped: shared-secret (" in run.out)


@pytest.mark.parametrize(
    ("offset", "status", "code"),
    [
        *((0, "ok", 0), (3, "ok", 0), (-3, "ok", 0)),
        *((8, "warning", 0), (-8, "warning", 0)),
        *((40, "FAILED", 1), (-40, "FAILED", 1)),
    ],
)
def test_clock_of_the_issuer_is_compared_with_ours(
    keycache: Keycache,
    issuer: DemoIssuer,
    valkey_url: str,
    *,
    offset: float,
    status: str,
    code: int,
) -> None:
    issuer.clock_offset = offset
    assert (code, ["ok", "ok", status]) == statuses(keycache, valkey_url)


RULES = """
[[rules]]
path = "/health"
methods = ["GET"]
access = "anonymous"
[[rules]]
path = "/catalogue/**"
access = "optional"
[[rules]]
path = "/admin/**"
issuers = ["main"]
any_scope = ["admin", "support"]
claims = { email_verified = true, plan = { one_of = ["pro", "team"] }, act = { present = false } }
[[rules]]
path = "/api/**"
scopes = ["reports:read", "reports:write"]
sources = ["session"]
[[token_sources]]
name = "session"
cookie = "id_token"
[[token_sources]]
header = "Authorization"
"""


@pytest.fixture
def rules(tmp_path: Path, issuer: DemoIssuer) -> str:
    """The path of a file with rules."""
    path = tmp_path / "k.toml"
    trusted = 'trusted_proxies = ["127.0.0.1"]'
    path.write_text(f'{trusted}\n[[issuers]]\nname = "main"\nissuer = "{issuer.url}"\n{RULES}')
    return str(path)


DECISIONS = [
    ("GET /health", 0, "rule 1 ({}:6)", "asks for nothing; a token is not looked at"),
    ("HEAD /health", 0, "rule 1 ({}:6)", "asks for nothing; a token is not looked at"),
    ("/catalogue/a?page=2", 0, "rule 2 ({}:10)", "asks for no token, or a good token"),
    (
        "GET /admin",
        0,
        "rule 3 ({}:13)",
        (
            "asks for a good token of main; one of the scopes admin, support;"
            " email_verified is true; plan is one of pro, team; act is absent"
        ),
    ),
    (
        "DELETE /api/reports",
        0,
        "rule 4 ({}:18)",
        "asks for a good token; sent as session; scope reports:read reports:write",
    ),
    ("POST /health", 1, "refused, no_rule", ""),
    ("GET /health/../admin", 1, "refused, ambiguous_path", ""),
]


@pytest.mark.parametrize(("sent", "code", "decision", "wanted"), DECISIONS)
def test_rule_that_decides_is_named_with_its_line(
    keycache: Keycache, rules: str, *, sent: str, code: int, decision: str, wanted: str
) -> None:
    run = keycache("check", "--config", rules, "--request", sent, ISSUER="")
    assert code == run.code
    first, *rest = run.out.splitlines()
    assert first.endswith(f": {decision.format(rules)}")
    assert ([wanted] if wanted else []) == rest


def test_rule_that_decides_is_printed_as_json(keycache: Keycache, rules: str) -> None:
    run = keycache("check", "--config", rules, "--json", "--request", "/health", ISSUER="")
    expected = {
        "request": "GET /health",
        "rule": 1,
        "where": f"{rules}:6",
        "asks": "nothing; a token is not looked at",
    }
    assert expected == run.json


def test_without_rules_a_good_token_is_asked_for(keycache: Keycache) -> None:
    run = keycache("check", "--request", "GET /any")
    assert (0, "GET /any\nasks for a good token (there are no rules)\n") == (run.code, run.out)


def test_request_without_a_path_is_not_understood(keycache: Keycache, rules: str) -> None:
    assert 2 == keycache("check", "--config", rules, "--request", "GET", ISSUER="").code


def test_rules_are_listed(keycache: Keycache, rules: str, valkey_url: str) -> None:
    run = keycache("check", "--config", rules, "--json", ISSUER="", REDIS_URL=valkey_url)
    subjects = [finding["subject"] for finding in run.json["findings"]]
    assert ["configuration", *(f"rule {n}" for n in range(1, 5)), "redis", "main"] == subjects


def test_keys_in_a_file_are_checked_there(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.jwks()))
    run = keycache("check", JWKS_FILE=str(path), REDIS_URL=valkey_url)
    assert (0, True) == (run.code, f"keys at {path} in" in run.out)
    assert 0 == issuer.jwks_fetches
