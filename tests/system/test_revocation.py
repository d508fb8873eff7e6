"""A token that leaked: one command, and every worker of every host refuses it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.processes import connections_to_every_worker
from tests.system.service import Answer, Service, ask, eventually, request

POLL = "600"  # what is seen sooner was told by a message


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(audience="api") as issuer:
        yield issuer


def settings(issuer: DemoIssuer, redis_url: str) -> dict[str, str]:
    return {
        "ISSUER": issuer.url,
        "AUDIENCE": "api",
        "REDIS_URL": redis_url,
        "REDIS_CONNECT": "2",
        "REDIS_TIMEOUT": "2",
        "SEAL_KEYS": "A" * 43,
        "REVOCATION": "1",
        "POLL": POLL,
    }


def keycache(shared: Mapping[str, str], *words: str) -> str:
    """What a command prints that ends well."""
    environment = os.environ | {f"KEYCACHE_{name}": value for name, value in shared.items()}
    command = [sys.executable, "-m", "app.cli.main", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def decided(answers: list[Answer]) -> set[str]:
    """What all of these answers say: `accepted`, or the reason."""
    return {"accepted" if each.status == 200 else each.json()["reason"] for each in answers}


def test_revoked_token_is_refused_by_every_worker_of_two_hosts_at_once(
    issuer: DemoIssuer, valkey_url: str, tmp_path: Path
) -> None:
    shared = settings(issuer, valkey_url)
    leaked, other = issuer.mint(jti="leaked"), issuer.mint(jti="other")
    with ExitStack() as stack:
        hosts = [stack.enter_context(Service(tmp_path / name, shared)) for name in ("a", "b")]
        workers: list[HTTPConnection] = []
        for host in hosts:
            host.wait_until_ready()
            workers += stack.enter_context(connections_to_every_worker(host))
        assert 4 == len(workers)

        def say(token: str) -> set[str]:
            return decided([ask(worker, "/protected", token) for worker in workers])

        for _ in range(2):  # then it is in the token cache of each
            assert {"accepted"} == say(leaked)

        keycache(shared, "revoke", "--jti", "leaked")
        eventually(lambda: say(leaked) == {"revoked"}, 30)
        assert {"accepted"} == say(other)
        refusal = ask(workers[0], "/protected", leaked)
        assert 401 == refusal.status
        assert 'error="invalid_token"' in refusal.headers["www-authenticate"]
        eventually(lambda: hosts[0].metric("keycache_revocations") == 1, 30)

        keycache(shared, "revoke", "--sub", "demo-user")
        eventually(lambda: say(other) == {"revoked"}, 30)
        assert 2 == len(keycache(shared, "revoke", "--list").splitlines())


def test_worker_that_cannot_know_what_is_revoked_is_not_ready_and_answers_503(
    issuer: DemoIssuer, tmp_path: Path
) -> None:
    nowhere = settings(issuer, f"unix://{tmp_path}/nowhere.sock")
    with Service(tmp_path / "log", nowhere | {"WORKERS": "1"}) as service:
        service.wait_until_ready()

        answer = request(service.url, "/protected", issuer.mint())
        assert (503, "temporarily_unavailable") == (answer.status, answer.json()["reason"])
        ready = request(service.admin, "/readyz")
        assert 503 == ready.status
        assert any("revoked is not known" in reason for reason in ready.json()["reasons"])
