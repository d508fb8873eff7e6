"""The guard lets in who a rule lets in, with the token found where the rule looks for it."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache import guard as guards
from keycache.authenticator import Authenticator, Trusted
from keycache.cache import Held, KeyCache
from keycache.core.freshness import Lifetimes, freshness
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record
from keycache.errors import Reason, TokenError
from keycache.events import Tier, ignore
from keycache.guard import Admitted, Guard, read_token
from keycache.issuer import Issuer
from keycache.rules import AUTHORIZATION, Access, Requirement, Rule, RuleTable, TokenSource
from keycache.testing.signing import new_key, public_jwk, sign
from keycache.token_cache import TokenCache
from tests.keycache.parts import at_once

NOW = time()
KEY = new_key("EdDSA")
ONE = Issuer(issuer="https://one.example", audiences=("api",), name="one")
TWO = Issuer(issuer="https://two.example", audiences=("api",), name="two")
CLOUDFLARE = TokenSource(header="Cf-Access-Jwt-Assertion", name="cloudflare")
SESSION = TokenSource(cookie="session")

ANYONE = Rule(path="/public/**", access=Access.ANONYMOUS)
MAYBE = Rule(path="/maybe", access=Access.OPTIONAL)
TWO_ONLY = Rule(path="/two", requirement=Requirement(issuers=("two",)))
READERS = Rule(path="/read", methods=("GET",), requirement=Requirement(scopes=("read",)))
BOTH = Rule(
    path="/both", requirement=Requirement(all_issuers=("one", "two"), claims={"tenant": "acme"})
)
COOKIE = Rule(path="/cookie", sources=("session",))
REST = Rule(path="/api/**")
RULES = (ANYONE, MAYBE, TWO_ONLY, READERS, BOTH, COOKIE, REST)


def token(issuer: Issuer = ONE, **claims: object) -> str:
    payload = {"iss": issuer.issuer, "aud": "api", "exp": NOW + 3600, **claims}
    return sign(KEY, payload, None)


GOOD = token()
EXPIRED = token(exp=NOW - 3600)
OF_TWO = token(TWO)


class Request:
    """Implements Sent: the request of a test."""

    def __init__(
        self,
        path: str = "/api/orders",
        method: str = "GET",
        *,
        headers: Mapping[str, Sequence[str]] | None = None,
        cookies: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self._headers = headers or {}
        self._cookies = cookies or {}

    def header(self, name: str) -> Sequence[str]:
        return self._headers.get(name, ())

    def cookie(self, name: str) -> Sequence[str]:
        return self._cookies.get(name, ())


class _Clock:
    def now(self) -> float:
        return NOW


def held() -> Held:
    document = json.dumps({"keys": [public_jwk(KEY)]}).encode()
    record = Record(1, NOW, 300, document, None, None)
    return Held(parse_jwks(document, 100), record, freshness(NOW, 300, Lifetimes(), 0), Tier.ISSUER)


class Parts:
    """A guard, and the key caches of the issuers that its authenticator trusts."""

    def __init__(
        self,
        rules: Sequence[Rule] = RULES,
        sources: Sequence[TokenSource] = (AUTHORIZATION, CLOUDFLARE, SESSION),
        kept: int = 10,
    ) -> None:
        self.caches = {
            issuer.issuer: KeyCache(
                issuer.name,
                _Clock(),
                ignore,
                wait=30,
                max_waiters=4,
                negative_ttl=30,
                negative_size=4,
            )
            for issuer in (ONE, TWO)
        }
        authenticator = Authenticator(
            {issuer.issuer: Trusted(issuer, self.caches[issuer.issuer]) for issuer in (ONE, TWO)},
            TokenCache(kept),
            _Clock(),
            ignore,
            token_bytes=8192,
            kid_chars=128,
        )
        self.guard = Guard(RuleTable(rules, issuers=(ONE, TWO), sources=sources), authenticator)

    def install(self) -> None:
        for cache in self.caches.values():
            cache.install(held())


@pytest.fixture(scope="module")
def guard() -> Guard:
    parts = Parts()
    parts.install()
    return parts.guard


def bearer(*tokens: str, path: str = "/api/orders", method: str = "GET", **more: Any) -> Request:  # noqa: ANN401 - as Request
    return Request(path, method, headers={"authorization": [f"Bearer {t}" for t in tokens]}, **more)


def verdict(guard: Guard, sent: Request) -> Admitted | Reason:
    """What the guard says; where one token will do, both of its ways must say the same."""
    try:
        admitted = at_once(guard.admit(sent))
    except TokenError as error:
        if sent.path != BOTH.path:
            with pytest.raises(TokenError, match=re.escape(str(error))):
                guard.known(sent)
        return error.reason
    for _ in range(3):  # the header field may be one that was seen before
        known = guard.known(sent)
        assert (known and known.admitted) == (None if sent.path == BOTH.path else admitted)
    return admitted


def subject(guard: Guard, sent: Request) -> tuple[str | None, Rule] | Reason:
    """Whose token let a request in by which rule, or why it was refused."""
    said = verdict(guard, sent)
    return said if isinstance(said, Reason) else (said.issuer, said.rule)


# By the rule


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (bearer(GOOD), ("one", REST)),
        (bearer(OF_TWO), ("two", REST)),
        (bearer(EXPIRED), Reason.EXPIRED),
        (Request(), Reason.NO_TOKEN),
        (Request("/elsewhere"), Reason.NO_RULE),
        (bearer(GOOD, path="/elsewhere"), Reason.NO_RULE),
        (bearer(GOOD, path="/public/%2e%2e/api"), Reason.AMBIGUOUS_PATH),
        # Anonymous: a token is not looked at.
        (Request("/public/logo.png"), (None, ANYONE)),
        (bearer(EXPIRED, path="/public/logo.png"), (None, ANYONE)),
        (bearer("", GOOD, path="/public"), (None, ANYONE)),
        # Optional: no token is fine, a bad one is not.
        (Request("/maybe"), (None, MAYBE)),
        (bearer(GOOD, path="/maybe"), ("one", MAYBE)),
        (bearer(EXPIRED, path="/maybe"), Reason.EXPIRED),
        (bearer("", path="/maybe"), Reason.MALFORMED_HEADER),
        (bearer(GOOD, GOOD, path="/maybe"), Reason.MULTIPLE_TOKENS),
        (Request("/maybe", headers={"authorization": ["Basic YTpi"]}), (None, MAYBE)),
        # What the rule asks beyond a good token.
        (bearer(OF_TWO, path="/two"), ("two", TWO_ONLY)),
        (bearer(GOOD, path="/two"), Reason.FORBIDDEN),
        (bearer(token(scope="read write"), path="/read"), ("one", READERS)),
        (bearer(token(scope="write"), path="/read"), Reason.INSUFFICIENT_SCOPE),
        (bearer(token(scope="read"), path="/read", method="HEAD"), ("one", READERS)),
        (bearer(token(scope="read"), path="/read", method="POST"), Reason.NO_RULE),
    ],
)
def test_request_is_judged_by_its_rule(
    guard: Guard, sent: Request, expected: tuple[str | None, Rule] | Reason
) -> None:
    assert expected == subject(guard, sent)


def test_who_is_admitted_comes_with_the_claims(guard: Guard) -> None:
    admitted = verdict(guard, bearer(token(sub="ada")))
    assert isinstance(admitted, Admitted)

    assert "ada" == admitted.all["one"]["sub"]
    assert {"one": admitted.claims} == admitted.all


def test_who_comes_without_a_token_comes_with_nothing(guard: Guard) -> None:
    assert Admitted(None, None, {}, MAYBE) == verdict(guard, Request("/maybe"))


def test_rule_of_a_decorator_is_asked_whatever_the_path(guard: Guard) -> None:
    rule = Rule(path="/**", requirement=Requirement(scopes=("read",)))
    sent = bearer(token(scope="read"), path="/elsewhere")

    assert rule is at_once(guard.admit_by(rule, sent)).rule
    known = guard.known_by(rule, sent)
    assert known
    assert at_once(guard.admit_by(rule, sent)) == known.admitted


# By a header field that came before


def of_one_source(kept: int = 10) -> Guard:
    parts = Parts(
        sources=(AUTHORIZATION,),
        rules=[rule for rule in RULES if rule not in (BOTH, COOKIE)],
        kept=kept,
    )
    parts.install()
    return parts.guard


def test_header_field_that_came_before_is_judged_by_the_rule_of_each_request() -> None:
    guard = of_one_source()
    paths = {"/api": REST, "/maybe": MAYBE, "/public": ANYONE, "/read": Reason.INSUFFICIENT_SCOPE}
    for path, expected in [*paths.items()] * 3:
        said = verdict(guard, bearer(GOOD, path=path))
        assert expected == (said if isinstance(said, Reason) else said.rule)


def test_of_a_field_that_came_before_beside_another_one_nothing_is_remembered() -> None:
    guard = of_one_source()
    for _ in range(3):
        assert Reason.MULTIPLE_TOKENS == verdict(guard, bearer(GOOD, GOOD))
        assert REST == subject(guard, bearer(GOOD))[1]


def test_so_many_header_fields_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "SEEN", 3)
    guard = of_one_source()
    sent = [bearer(token(sub=str(number))) for number in range(5)]
    for each in sent * 2:
        verdict(guard, each)
        assert len(guard._seen) <= 3


@pytest.mark.parametrize(("kept", "remembered"), [(0, 0), (10, 1)])
def test_only_what_was_found_in_the_token_cache_is_remembered(kept: int, remembered: int) -> None:
    guard = of_one_source(kept)
    assert guard.known(bearer(GOOD))
    assert {} == guard._seen
    for _ in range(3):
        assert guard.known(bearer(GOOD))
    assert remembered == len(guard._seen)


def test_nobody_changes_what_the_next_request_is_told() -> None:
    known = of_one_source().known(bearer(GOOD))
    assert known
    told: Any = known.admitted.all
    with pytest.raises(TypeError):
        told["one"] = {}


# By the source


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (Request(headers={"cf-access-jwt-assertion": [GOOD]}), ("one", REST)),
        (Request(cookies={"session": [GOOD]}), ("one", REST)),
        (bearer(GOOD, cookies={"session": [GOOD]}), Reason.MULTIPLE_TOKENS),
        (bearer(GOOD, cookies={"session": [""]}), ("one", REST)),
        (bearer(GOOD, cookies={"Session": [GOOD]}), ("one", REST)),
        (Request(cookies={"session": [GOOD, GOOD]}), Reason.MULTIPLE_TOKENS),
        (Request(cookies={"session": ["", GOOD]}), Reason.MULTIPLE_TOKENS),
        # A rule may say which.
        (Request("/cookie", cookies={"session": [GOOD]}), ("one", COOKIE)),
        (bearer(EXPIRED, path="/cookie", cookies={"session": [GOOD]}), ("one", COOKIE)),
        (bearer(GOOD, path="/cookie"), Reason.NO_TOKEN),
    ],
)
def test_token_is_found_where_the_rule_looks_for_it(
    guard: Guard, sent: Request, expected: tuple[str | None, Rule] | Reason
) -> None:
    assert expected == subject(guard, sent)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Bearer t", "t"),
        ("bearer t", "t"),
        ("BEARER   t", "t"),
        (" \tBearer t \t", "t"),
        ("Bearer", Reason.MALFORMED_HEADER),
        ("Bearer ", Reason.MALFORMED_HEADER),
        ("Bearer a b", Reason.MALFORMED_HEADER),
        ("Bearer a,b", Reason.MALFORMED_HEADER),
        ("Bearer a, Bearer b", Reason.MALFORMED_HEADER),
        ("Bearer a\tb", Reason.MALFORMED_HEADER),
        ("Bearer\tt", None),
        ("\u00a0Bearer t", None),  # RFC 9110 section 5.6.3: white space is SP and HTAB
        ("Bearer t\v", "t\v"),  # which no token is
        ("Token t", None),
        ("XBearer t", None),
        ("Basic YTpi", None),
        ("t", None),
        ("", None),
        (" ", None),
    ],
)
def test_authorization_is_read_as_rfc_6750_has_it(value: str, found: str | Reason | None) -> None:
    assert found == read(AUTHORIZATION, value)


@pytest.mark.parametrize(
    ("source", "value", "found"),
    [
        (CLOUDFLARE, "t", "t"),
        (CLOUDFLARE, " t ", "t"),
        (CLOUDFLARE, "", None),
        (CLOUDFLARE, "Bearer t", Reason.MALFORMED_HEADER),
        (CLOUDFLARE, "a,b", Reason.MALFORMED_HEADER),
        (TokenSource(header="x-auth", prefix="Token"), "TOKEN t", "t"),
        (TokenSource(header="x-auth", prefix="Token"), "Bearer t", None),
        (TokenSource(header="authorization", prefix="DPoP"), "dpop t", "t"),
        (TokenSource(header="authorization", prefix="DPoP"), "Bearer t", None),
        (SESSION, "t", "t"),
        (SESSION, "a b", Reason.MALFORMED_HEADER),
        (SESSION, "", None),
    ],
)
def test_other_sources_have_their_own_prefix_or_none(
    source: TokenSource, value: str, found: str | Reason | None
) -> None:
    assert found == read(source, value)


@settings(deadline=None)
@given(st.sampled_from([AUTHORIZATION, CLOUDFLARE, SESSION]), st.text("Bearer \t,.ab=é\x00"))
def test_whatever_is_sent_is_one_word_or_nothing_or_refused(
    source: TokenSource, value: str
) -> None:
    found = read(source, value)

    assert (
        found is None
        or found is Reason.MALFORMED_HEADER
        or not set(found or " ") & {" ", "\t", ","}
    )


def read(source: TokenSource, value: str) -> str | Reason | None:
    sent = Request(headers={source.header: [value]}, cookies={source.cookie: [value]})
    try:
        return read_token(source, sent)
    except TokenError as error:
        return error.reason


# A token of each of several issuers


def both(one: str, two: str | None) -> Request:
    return bearer(one, path="/both", cookies={"session": [two]} if two else {})


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (both(token(tenant="acme"), OF_TWO), ("one", BOTH)),
        (both(OF_TWO, token(tenant="acme")), ("one", BOTH)),
        (both(token(tenant="acme"), None), Reason.NO_TOKEN),
        (Request("/both"), Reason.NO_TOKEN),
        (both(token(tenant="acme"), EXPIRED), Reason.EXPIRED),
        (both(EXPIRED, OF_TWO), Reason.EXPIRED),
        (both(token(tenant="acme"), GOOD), Reason.MULTIPLE_TOKENS),
        # What is asked of claims is asked of the first issuer's token.
        (both(GOOD, token(TWO, tenant="acme")), Reason.FORBIDDEN),
    ],
)
def test_rule_for_all_issuers_wants_a_good_token_of_each(
    guard: Guard, sent: Request, expected: tuple[str | None, Rule] | Reason
) -> None:
    assert expected == subject(guard, sent)


def test_claims_of_all_tokens_are_there_by_issuer(guard: Guard) -> None:
    admitted = verdict(guard, both(token(tenant="acme", sub="ada"), token(TWO, sub="host")))
    assert isinstance(admitted, Admitted)

    assert admitted.claims == admitted.all["one"]
    assert {"one": "ada", "two": "host"} == {name: it["sub"] for name, it in admitted.all.items()}


def test_token_of_an_issuer_that_is_not_among_all_is_forbidden() -> None:
    pair = Requirement(all_issuers=("two", "three"))
    three = Issuer(issuer="https://three.example", audiences=("api",), name="three")
    table = RuleTable(
        [Rule(path="/**", requirement=pair)],
        issuers=(ONE, TWO, three),
        sources=(AUTHORIZATION, SESSION),
    )
    parts = Parts()
    parts.install()
    guard = Guard(table, parts.guard._authenticator)

    with pytest.raises(TokenError) as refused:
        at_once(guard.admit(both(GOOD, OF_TWO)))

    assert Reason.FORBIDDEN is refused.value.reason


# What waits


async def test_only_a_key_that_is_not_known_is_waited_for() -> None:
    parts = Parts()
    sent = bearer(GOOD)
    assert parts.guard.known(sent) is None

    waiting = asyncio.create_task(parts.guard.admit(sent))
    await asyncio.sleep(0)
    assert not waiting.done()
    parts.install()

    known = parts.guard.known(sent)
    assert known
    assert await waiting == known.admitted


def test_rule_for_all_issuers_is_never_known_at_once(guard: Guard) -> None:
    assert guard.known(both(token(tenant="acme"), OF_TWO)) is None
