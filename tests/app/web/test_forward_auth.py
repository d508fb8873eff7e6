"""Answers to questions: when one is kept, when it is made anew, and what is never mixed up."""

import asyncio
from ipaddress import ip_network

import jwt
import pytest
from sanic.compat import Header

from app.web.forward_auth import Answer, ForwardAuth, Refusal
from app.web.question import Question
from keycache.core.claims import Claims
from keycache.errors import ConfigurationError, TokenError
from keycache.rules import Access, Rule, RuleTable
from keycache.token_cache import Accepted
from tests.app.web.test_internal_token import tokens
from tests.keycache.core import forge

ISSUER = forge.issuer(leeway=30)


class Authenticator(forge.Nothing):
    """Knows every token, as that of a subject of this name; `claims`: the objects it hands out."""

    def __init__(self) -> None:
        self.claims: dict[str, Claims] = {}
        self.ends = 1e9

    def known(self, text: str, /) -> Accepted | None:
        made = Claims(iss=ISSUER.issuer, sub=text, exp=self.ends)
        return forge.accepted(self.claims.setdefault(text, made))

    async def authenticate(self, text: str, /) -> Claims:
        raise AssertionError("nothing is waited for here")


class Desk:
    """A ForwardAuth with a clock and an authenticator of the test's own."""

    def __init__(self, *rules: Rule, internal: bool = False, lifetime: float = 60.0) -> None:
        self.now = 1000.0
        self.authenticator = Authenticator()
        self.forward = ForwardAuth(
            RuleTable(rules, issuers=[ISSUER]),
            refuse,
            proxies=[ip_network("127.0.0.1")] if rules else [],
            internal=("X-Auth-Token", tokens("ES256", lifetime=lifetime)) if internal else None,
            clock=lambda: self.now,
        )
        self.forward.open(self.authenticator)

    def ask(self, subject: str = "alice", **fields: str) -> Answer:
        sent = [("authorization", f"Bearer {subject}")]
        sent += [(name.replace("_", "-"), value) for name, value in fields.items()]
        question = Question("GET", "/verify", Header(sent).getall, trusted=True)
        answer = self.forward.decide(question)
        assert answer is not None
        return answer

    def token(self, subject: str = "alice") -> str:
        return self.ask(subject).headers["X-Auth-Token"]


def refuse(_: object, error: Refusal) -> Answer:
    reason = error.reason if isinstance(error, TokenError) else "unavailable"
    return Answer(400, {}, reason.encode(), "text/plain")


def ends(token: str) -> int:
    return int(jwt.decode(token, options={"verify_signature": False})["exp"])


def test_answer_is_kept_for_a_token_that_comes_again() -> None:
    desk = Desk()
    assert desk.ask() is desk.ask()


def test_each_token_has_its_own_answer() -> None:
    desk = Desk()
    said = [desk.ask(name).headers["X-Auth-Subject"] for name in ("alice", "bob", "alice")]
    assert ["alice", "bob", "alice"] == said


def test_other_claims_of_the_same_token_have_another_answer() -> None:
    desk = Desk()
    before = desk.ask()
    desk.authenticator.claims["alice"] = Claims(iss=ISSUER.issuer, sub="carol", exp=1)
    assert "carol" == desk.ask().headers["X-Auth-Subject"]
    assert "alice" == before.headers["X-Auth-Subject"]


def test_answer_of_one_desk_is_not_that_of_another() -> None:
    one, other = Desk(), Desk(internal=True)
    other.authenticator.claims = one.authenticator.claims
    assert one.ask() is not other.ask()
    assert other.token() == other.token()


def test_internal_token_is_made_anew_when_half_of_its_time_is_over() -> None:
    desk = Desk(internal=True)
    first = desk.token()
    desk.now += 29
    assert first == desk.token()
    desk.now += 2
    again = desk.token()
    assert (1060, 1091) == (ends(first), ends(again))


def test_internal_token_ends_with_the_token_it_stands_for() -> None:
    desk = Desk(internal=True)
    desk.authenticator.ends = 1010
    assert 1010 + ISSUER.leeway == ends(desk.token())


def test_anonymous_request_has_no_internal_token() -> None:
    desk = Desk(Rule(path="/**", access=Access.ANONYMOUS), internal=True)
    headers = desk.ask(x_original_method="GET", x_original_uri="/").headers
    assert ("", "") == (headers["X-Auth-Token"], headers["X-Auth-Subject"])


def test_rule_is_chosen_for_every_question_also_where_the_answer_is_kept() -> None:
    desk = Desk(Rule(path="/a"), Rule(path="/b", methods=("PUT",)))
    asked = [("GET", "/a"), ("GET", "/b"), ("PUT", "/b"), ("GET", "/c")]
    said = [desk.ask(x_original_method=method, x_original_uri=path) for method, path in asked]
    assert [200, 400, 200, 400] == [answer.status for answer in said]
    assert said[0] is said[2]


def test_refusal_is_not_kept() -> None:
    desk = Desk(Rule(path="/a"))
    assert b"unknown_request" == desk.ask().body
    assert desk.ask() is not desk.ask()


def test_rules_that_nobody_may_ask_about_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        ForwardAuth(RuleTable([Rule(path="/**")], issuers=[ISSUER]), refuse)


def test_question_that_needs_no_waiting_is_answered_the_same_way() -> None:
    desk = Desk()
    question = Question(
        "GET", "/verify", Header([("authorization", "Bearer alice")]).getall, trusted=False
    )
    assert desk.ask() is asyncio.run(desk.forward.answer(question))
