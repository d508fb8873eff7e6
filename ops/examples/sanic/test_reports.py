"""How your own tests look: a local issuer stands in for yours, and mints whatever a test needs.

`keycache_issuer` is a fixture that pytest knows where keycache is installed; the client is
sanic-testing's. Nothing leaves this machine.
"""

from typing import Any

import pytest
from server import app, auth

from keycache.testing import FakeIssuer


@pytest.fixture(autouse=True)
def issuer(keycache_issuer: FakeIssuer) -> FakeIssuer:
    """The issuer that the application trusts, until the end of a test; its keys are new."""
    keycache_issuer.stand_in(auth)
    return keycache_issuer


def get(path: str, token: str | None = None) -> tuple[int, Any]:
    """The status of the answer, and its JSON."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    _, answer = app.test_client.get(path, headers=headers)
    return answer.status, answer.json


def test_user_is_whom_the_token_speaks_for(issuer: FakeIssuer) -> None:
    status, body = get("/protected", issuer.mint(sub="alice"))
    assert (200, "alice") == (status, body["user"]["sub"])


def test_stranger_is_told_to_bring_a_token() -> None:
    assert (401, {"error": "No token provided"}) == get("/protected")


def test_forged_token_is_refused(issuer: FakeIssuer) -> None:
    status, body = get("/protected", issuer.forge())
    assert (401, "bad_signature") == (status, body["reason"])


def test_token_expires_while_time_passes(issuer: FakeIssuer) -> None:
    token = issuer.mint()
    assert get("/protected", token)[0] == 200
    issuer.clock.advance(2 * 3600)
    status, body = get("/protected", token)
    assert (401, "expired") == (status, body["reason"])


@pytest.mark.parametrize(("scope", "status"), [("reports:read", 200), ("reports:write", 403)])
def test_reports_need_their_scope(issuer: FakeIssuer, scope: str, status: int) -> None:
    assert status == get("/reports", issuer.mint(scope=scope))[0]


def test_issuer_that_is_down_refuses_nobody_for_good(issuer: FakeIssuer) -> None:
    issuer.fail(503)
    assert get("/protected", issuer.mint())[0] == 503  # try again; 401 would end the session
