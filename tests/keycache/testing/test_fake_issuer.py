"""The kit for users' own tests: its issuer, its clock and its fixture, used as they would."""

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any

import jwt
import pytest
from sanic import HTTPResponse, Request, Sanic
from sanic import json as json_answer
from sanic_testing import TestManager  # type: ignore[import-untyped]

import keycache.testing
from keycache.issuer import POSSIBLE_ALGORITHMS, Issuer
from keycache.runtime import Options
from keycache.sanic import JWTAuth
from keycache.testing import FakeClock, FakeIssuer

ROOT = Path(__file__).parents[3]
PRODUCTION = Issuer(
    issuer="https://id.example.com/",
    audiences=("reports", "other"),
    algorithms=("ES256", "RS256"),
    typ=("at+jwt",),
    jwks_url="https://id.example.com/keys",
)
_numbers = count()


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        yield issuer


def application() -> tuple[Sanic[Any, Any], JWTAuth]:
    """An API as it is in production: it trusts an issuer and a Redis that no test can reach."""
    app: Sanic[Any, Any] = Sanic(f"kit{next(_numbers)}", configure_logging=False)
    app.config.AUTO_EXTEND = False
    options = Options(redis_url="redis://redis.example.com", allow_unsealed=True)
    auth = JWTAuth(app, issuer=PRODUCTION, options=options, protect="/api")

    @app.get("/api/me")
    async def me(request: Request) -> HTTPResponse:
        return json_answer(request.ctx.user["sub"])

    TestManager(app)
    return app, auth


def ask(app: Sanic[Any, Any], headers: dict[str, str]) -> tuple[int, Any]:
    _, response = app.test_client.get("/api/me", headers=headers)
    return response.status_code, response.json


def test_issuer_stands_in_for_those_that_the_application_trusts(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)

    assert (200, "ada") == ask(app, issuer.bearer(sub="ada"))


def test_policy_of_the_issuer_that_is_stood_in_for_holds(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)
    tokens = {
        "wrong_audience": issuer.mint(aud="somebody"),
        "unknown_issuer": issuer.mint(iss=issuer.url),
        "unsupported_algorithm": issuer.mint(alg="EdDSA"),
        "wrong_type": issuer.mint(headers={"typ": "JWT"}),
        "expired": issuer.mint(exp=0),
        "bad_signature": issuer.forge(),
    }
    answers = {
        reason: ask(app, {"Authorization": f"Bearer {token}"})[1]["reason"]
        for reason, token in tokens.items()
    }

    assert {reason: reason for reason in tokens} == answers


async def test_asgi_client_in_the_loop_of_the_test_is_served_too(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)
    _, response = await app.asgi_client.get("/api/me", headers=issuer.bearer())

    assert 200 == response.status_code


def test_time_that_passes_at_once_ends_a_token(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)
    issuer.clock.freeze()
    headers = issuer.bearer(exp=int(issuer.clock.now()) + 3600)
    answers = []
    for seconds in (0, 3600 + 29, 2):  # the leeway is 30 s
        issuer.clock.advance(seconds)
        answers.append(ask(app, headers)[0])

    assert [200, 200, 401] == answers


def test_application_is_as_before_when_the_issuer_has_stopped() -> None:
    _, auth = application()
    before = (auth.issuers, auth.options, auth.clock)
    with FakeIssuer() as first, FakeIssuer() as second:
        first.stand_in(auth)
        second.stand_in(auth)

    assert before == (auth.issuers, auth.options, auth.clock)


def test_rotated_key_signs_and_a_removed_one_is_refused(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)
    old = issuer.bearer()
    issuer.rotate()
    new = issuer.bearer()
    issuer.remove(issuer.kids("RS256")[0])

    assert [401, 200] == [ask(app, headers)[0] for headers in (old, new)]


def test_issuer_in_trouble_is_503(issuer: FakeIssuer) -> None:
    app, auth = application()
    issuer.stand_in(auth)
    issuer.fail(500)

    assert 503 == ask(app, issuer.bearer())[0]


@pytest.mark.parametrize("alg", [alg for alg in POSSIBLE_ALGORITHMS if alg != "Ed25519"])
def test_every_possible_algorithm_can_be_minted(alg: str) -> None:
    with FakeIssuer(algorithms=[alg]) as issuer:
        token = issuer.mint()
        keys = jwt.PyJWKSet.from_dict(issuer.jwks())

    assert issuer.url == jwt.decode(token, keys.keys[0], algorithms=[alg], audience="api")["iss"]


def test_clock_shows_the_hosts_time_until_it_is_frozen() -> None:
    clock = FakeClock()
    before = time.time()
    assert before <= clock.now() <= time.time()

    clock.freeze(1000.0)
    clock.advance(5)
    assert 1005.0 == clock.now()

    clock.run()
    assert before <= clock.now() <= time.time()


APPLICATION = """\
from sanic import Sanic, json
from sanic_testing import TestManager

from keycache.sanic import JWTAuth

app = Sanic("reports", configure_logging=False)
auth = JWTAuth(app, issuer="https://id.example.com/", audience="reports")
TestManager(app)


@app.get("/api/reports")
@auth.required(scopes="reports:read")
async def reports(request):
    return json([])


def test_each_test_has_an_issuer_of_its_own(keycache_issuer):
    assert auth.issuers[0].jwks_url is None


"""


def test_example_of_the_documentation_runs_where_keycache_is_installed(tmp_path: Path) -> None:
    told = (keycache.testing.__doc__ or "").splitlines()
    example = dedent("\n".join(line for line in told if line.startswith("    ")))
    (tmp_path / "test_used.py").write_text(APPLICATION + example, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, True) == (run.returncode, "2 passed" in run.stdout), run.stdout + run.stderr


def test_plugin_costs_a_run_that_does_not_use_it_no_cryptography() -> None:
    said = "import sys, keycache.pytest_plugin; print('cryptography' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", said], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "False" == run.stdout.strip()
