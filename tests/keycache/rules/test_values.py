"""Token sources, requirements and rules: their defaults, what they ask, and what cannot be."""

from typing import Any

import pytest

from keycache.errors import ConfigurationError, Reason, TokenError
from keycache.issuer import Issuer
from keycache.predicates import Predicate
from keycache.rules import AUTHORIZATION, Requirement, Rule, TokenSource
from tests.keycache.core.forge import frozen
from tests.keycache.rules.naive import ISSUER, OTHER

CLAIMS = frozen({"scope": "read write", "tenant": "acme", "roles": {"all": ["admin", "user"]}})


def refusal(requirement: Requirement, issuer: Issuer = ISSUER) -> TokenError:
    with pytest.raises(TokenError) as refused:
        requirement.check(CLAIMS, issuer)
    return refused.value


# Token sources


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"header": "authorization"}, ("authorization", "", "bearer", "authorization")),
        ({"header": "Authorization"}, ("authorization", "", "bearer", "authorization")),
        (
            {"header": "Authorization", "prefix": "DPoP"},
            ("authorization", "", "dpop", "authorization"),
        ),
        ({"header": "Authorization", "prefix": ""}, ("authorization", "", "", "authorization")),
        (
            {"header": "Cf-Access-Jwt-Assertion", "name": "cloudflare"},
            ("cf-access-jwt-assertion", "", "", "cloudflare"),
        ),
        ({"header": "X-Auth", "prefix": "Token"}, ("x-auth", "", "token", "x-auth")),
        ({"cookie": "Session"}, ("", "Session", "", "session")),
    ],
)
def test_token_source_has_the_prefix_and_name_that_are_usual(
    given: dict[str, Any], found: tuple[str, ...]
) -> None:
    source = TokenSource(**given)

    assert found == (source.header, source.cookie, source.scheme, source.name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give either a header or a cookie"),
        ({"header": "a", "cookie": "a"}, "give either a header or a cookie"),
        ({"header": "a b"}, "are each one word"),
        ({"header": "a:"}, "are each one word"),
        ({"cookie": "a=b"}, "are each one word"),
        ({"header": "a", "prefix": "Bearer "}, "are each one word"),
        ({"header": "a", "prefix": "é"}, "are each one word"),
        ({"cookie": "a", "prefix": "Bearer"}, "prefix: belongs to a header"),
    ],
)
def test_token_source_that_cannot_be_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TokenSource(**given)


def test_authorization_is_the_source_of_rfc_6750() -> None:
    assert TokenSource(header="Authorization", prefix="Bearer").scheme == AUTHORIZATION.scheme


# Requirements


def test_requirement_of_nothing_is_met() -> None:
    requirement = Requirement()
    requirement.check(CLAIMS, ISSUER)

    assert requirement.is_empty


@pytest.mark.parametrize(
    "requirement",
    [
        Requirement(issuers=("one",)),
        Requirement(issuers=("other", "one")),
        Requirement(scopes=("read",)),
        Requirement(scopes=("write", "read")),
        Requirement(any_scope=("absent", "read")),
        Requirement(scopes=("read",), any_scope=("write", "absent")),
        Requirement(claims={"tenant": "acme"}),
        Requirement(claims=(Predicate(path=("roles", "all"), contains="admin"),)),
    ],
)
def test_requirement_that_is_met(requirement: Requirement) -> None:
    requirement.check(CLAIMS, ISSUER)

    assert not requirement.is_empty


@pytest.mark.parametrize(
    ("requirement", "scope"),
    [
        (Requirement(scopes=("absent",)), "absent"),
        (Requirement(scopes=("read", "absent")), "read absent"),
        (Requirement(scopes=("admin",)), "admin"),
        (Requirement(any_scope=("admin", "absent")), "admin absent"),
        (Requirement(scopes=("absent",), any_scope=("write",)), "absent write"),
    ],
)
def test_scope_that_is_not_granted_is_asked_for(
    requirement: Requirement, scope: str | None
) -> None:
    if scope is None:
        requirement.check(CLAIMS, ISSUER)
        return

    refused = refusal(requirement)

    assert (Reason.INSUFFICIENT_SCOPE, scope) == (refused.reason, refused.scope)


def test_scopes_are_read_from_the_claims_that_the_issuer_grants_them_by() -> None:
    issuer = Issuer(issuer="https://a.example", audiences=("a",), scope_claims=("roles.all",))
    Requirement(scopes=("admin",)).check(CLAIMS, issuer)

    assert Reason.INSUFFICIENT_SCOPE is refusal(Requirement(scopes=("read",)), issuer).reason


@pytest.mark.parametrize(
    "requirement",
    [
        Requirement(issuers=("one",)),
        Requirement(claims={"tenant": "other"}),
        Requirement(claims={"tenant": "acme", "absent": {"present": True}}),
        Requirement(scopes=("read",), claims={"roles.all": {"contains": "owner"}}),
    ],
)
def test_what_no_scope_can_mend_is_forbidden(requirement: Requirement) -> None:
    refused = refusal(requirement, OTHER)

    assert (Reason.FORBIDDEN, "") == (refused.reason, refused.scope)


def test_claim_that_does_not_fit_is_named_and_its_value_is_not() -> None:
    assert (
        "The claim roles.all does not have a value that this request needs."
        == refusal(Requirement(claims={"roles.all": {"contains": "secret"}})).details
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scopes": "read"}, "each must be a tuple of strings"),
        ({"issuers": ["one"]}, "each must be a tuple of strings"),
        ({"scopes": ("read write",)}, "'read write' is not one scope"),
        ({"any_scope": ('a"b',)}, "is not one scope"),
        ({"issuers": ("a",), "all_issuers": ("a", "b")}, "issuers, all_issuers: give one of them"),
        ({"all_issuers": ("a",)}, "must be two or more different ones"),
        ({"all_issuers": ("a", "b", "a")}, "must be two or more different ones"),
        ({"claims": {"a": None}}, "claim a: must be a string"),
    ],
)
def test_requirement_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Requirement(**given)


def test_all_problems_of_a_requirement_are_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Requirement(scopes=("a b",), all_issuers=("a",), claims={"a": None})

    assert 3 == len(refused.value.problems)


# Rules


@pytest.mark.parametrize("field", ["methods", "sources"])
@pytest.mark.parametrize("value", ["GET", ["GET"]])
def test_text_or_list_in_place_of_a_tuple_is_refused(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(ConfigurationError, match="each must be a tuple of strings"):
        Rule(path="/", **changes)


def test_rule_is_named_by_methods_and_path() -> None:
    assert ["/api/**", "GET,POST /api"] == [
        str(Rule(path="/api/**")),
        str(Rule(path="/api", methods=("GET", "POST"))),
    ]


def test_get_includes_head() -> None:
    assert [{"GET", "HEAD"}, {"POST"}, set()] == [
        set(Rule(path="/", methods=methods).all_methods) for methods in [("GET",), ("POST",), ()]
    ]
