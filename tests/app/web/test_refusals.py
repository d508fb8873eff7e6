"""What is logged of a refused request, how often, and what never is."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sanic import HTTPResponse, Request, json
from sanic.compat import Header

from app.web.question import of_sanic
from app.web.refusals import LINES, WINDOW, RefusalLog, request_fields, traced
from keycache.errors import Reason, TokenError, UnavailableError
from tests.keycache.core import forge

EXPIRED = TokenError(Reason.EXPIRED, "The token has expired.")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Later:
    """Functions to be called later: when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        self.waiting.append((seconds, function))

    def pass_by(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, function in waiting:
            function()


def request(**headers: str | list[str]) -> Request:
    fields = [
        (name.replace("_", "-"), value)
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Request(b"/verify?token=secret", Header(fields), "1.1", "GET", None, None)  # type: ignore[arg-type]


def fields_of(request: Request) -> dict[str, str]:
    return request_fields(of_sanic(request, trusted=False))


@pytest.fixture
def later() -> Later:
    return Later()


def refusals(later: Later, *claims: str) -> RefusalLog:
    return RefusalLog([forge.issuer(name="issuer")], claims, (2000, 20), later)


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records]


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def refuse(log: RefusalLog, error: Any = EXPIRED, **headers: str | list[str]) -> HTTPResponse:  # noqa: ANN401 - either error
    answer = json({}, status=401)
    log(request(**headers), error, answer)
    return answer


def test_refusal_is_logged_with_its_reason_and_no_claim(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    token = forge.token()
    refuse(refusals(later), authorization=f"Bearer {token}", x_request_id="r-1", traceparent=PARENT)
    assert [
        {
            "reason": "expired",
            "status": 401,
            "issuer": "issuer",
            "method": "GET",
            "route": "/",
            "request_id": "r-1",
            "trace_id": TRACE,
        }
    ] == said(caplog)


def test_claim_is_logged_where_it_is_configured_and_bounded(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    token = forge.token(payload=forge.claims(sub="s" * 500, jti="id"))
    refuse(refusals(later, "sub", "nothing"), authorization=f"Bearer {token}")
    (fields,) = said(caplog)
    assert {"sub": "s" * 128} == fields["token_says"]


def test_no_part_of_a_token_is_logged_whatever_header_repeats_it(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    token = forge.token()
    signature = token.rpartition(".")[2]
    log = refusals(later)
    for sent in (token, signature, signature[:64], signature[:16]):
        refuse(log, authorization=f"Bearer {token}", x_request_id=sent, traceparent=sent)
    logged = "".join(str(record.__dict__) for record in caplog.records)
    pieces = [token[start : start + 16] for start in range(len(token) - 16)]
    assert [] == [piece for piece in pieces if piece in logged]


def test_reason_that_comes_too_often_is_counted_and_said_at_the_end(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    log = refusals(later)
    for _ in range(LINES + 42):
        refuse(log)
    refuse(log, UnavailableError("Too many.", retry_after=1))
    before = [fields["reason"] for fields in said(caplog)]
    caplog.clear()
    later.pass_by()
    assert [*["expired"] * LINES, "temporarily_unavailable"] == before
    assert [{"reason": "expired", "left_out": 42, "seconds": WINDOW}] == said(caplog)


def test_next_window_begins_with_lines_again(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    log = refusals(later)
    for _ in range(LINES + 1):
        refuse(log)
    later.pass_by()
    caplog.clear()
    refuse(log)
    assert ["expired"] == [fields["reason"] for fields in said(caplog)]


def test_what_was_left_out_is_said_when_the_worker_ends(
    later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    log = refusals(later)
    for _ in range(LINES + 3):
        refuse(log)
    caplog.clear()
    log.close()
    later.pass_by()
    assert [3] == [fields["left_out"] for fields in said(caplog)]


def test_answer_has_the_request_id_also_where_no_line_was_written(later: Later) -> None:
    log = refusals(later)
    answers = [refuse(log, x_request_id=f"r-{number}") for number in range(LINES + 1)]
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert [f"r-{number}" for number in range(LINES + 1)] == ids


@pytest.mark.parametrize("sent", ["", "a b", "é", "x" * 65, "a\nb", '"', ["one", "two"]])
def test_request_id_of_another_form_is_replaced(sent: str | list[str]) -> None:
    made = fields_of(request(x_request_id=sent))["request_id"]
    assert 32 == len(made)
    assert made != sent


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-more",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01{PARENT[2:]}more",
        f"{PARENT}\n",
    ],
)
def test_trace_parent_that_is_not_valid_is_ignored(parent: str) -> None:
    assert traced(parent) is None


@pytest.mark.parametrize("parent", [PARENT, f"01{PARENT[2:]}", f"cc{PARENT[2:]}-what-comes-later"])
def test_trace_id_of_a_valid_parent_is_taken(parent: str) -> None:
    assert TRACE == traced(parent)


def test_two_trace_parents_are_none() -> None:
    assert "trace_id" not in fields_of(request(traceparent=[PARENT, PARENT]))
