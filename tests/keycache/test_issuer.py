"""Issuers that can work, and all that is wrong with those that cannot."""

from contextlib import suppress
from dataclasses import FrozenInstanceError
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.errors import ConfigurationError
from keycache.issuer import POSSIBLE_ALGORITHMS, Issuer, KeySource, normal_typ
from keycache.predicates import Predicate

URL = "https://issuer.example"


def make(**changes: Any) -> Issuer:  # noqa: ANN401 - any field, any value
    return Issuer(**{"issuer": URL, "audiences": ("api",), **changes})


def problems(**changes: Any) -> tuple[str, ...]:  # noqa: ANN401 - any field, any value
    with pytest.raises(ConfigurationError) as refused:
        make(**changes)
    return refused.value.problems


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example/",
        "https://issuer.example:8443/realms/a",
        "HTTPS://Issuer.example",
        "https://192.0.2.1",
        "https://[2001:db8::1]/a",
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://127.1.2.3:1",
        "http://[::1]:1",
    ],
)
def test_https_url_or_http_url_of_this_machine_is_good(url: str) -> None:
    assert url == make(issuer=url, jwks_url=url).issuer


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "issuer",
            "issuer.example",
            "//issuer.example",
            "/jwks.json",
            "https://",
            "https:///a",
        ),
        *("https://:443", "ftp://issuer.example", "file:///etc/passwd", "data:,x", "unix:///a"),
        *("http://issuer.example", "http://0.0.0.0", "http://10.0.0.1", "http://localhost.example"),
        *("http://127.0.0.1.example", "http://2130706433", "http://[::ffff:8.8.8.8]"),
        *("https://[::1", "https://issuer.example:99999", "https://issuer.example:port"),
        *("https://user@issuer.example", "https://user:pass@issuer.example", "https://@a.example"),
        *("https://issuer.example#a", "https://issuer.example#", "https://issuer.example\n"),
        *(" https://issuer.example", "https://issuer .example", "https://issuer\t.example"),
        *("https://issuer.example/\x00", "https://issuer.example/\u2028", "https://\ud800.example"),
    ],
)
@pytest.mark.parametrize("setting", ["issuer", "jwks_url"])
def test_url_that_cannot_be_is_one_problem_that_names_the_setting(setting: str, url: str) -> None:
    (problem,) = problems(**{setting: url})

    assert problem.startswith(f"{setting}: ")


@pytest.mark.parametrize("scheme", ["https:", "http:", "ftp:", ""])
@pytest.mark.parametrize("host", ["issuer.example", "issuer.example:99999", "[::1", "", "a b"])
def test_password_in_a_url_is_not_repeated(scheme: str, host: str) -> None:
    assert "s3cret" not in "".join(problems(jwks_url=f"{scheme}//user:s3cret@{host}"))


@given(st.text() | st.text("htps:/@#?[].%0123456789 aé\n").map("https://".__add__))
def test_any_text_is_an_issuer_or_a_configuration_error(url: str) -> None:
    with suppress(ConfigurationError):
        assert url == make(issuer=url).issuer


@pytest.mark.parametrize("audiences", [(), ("",), ("api", "")])
def test_token_for_nobody_would_be_for_everybody(audiences: tuple[str, ...]) -> None:
    assert "audience: name at least one" in problems(audiences=audiences)[0]


@pytest.mark.parametrize("field", ["audiences", "algorithms", "require", "typ", "scope_claims"])
@pytest.mark.parametrize("value", ["api", "RS256", ["api"], {"api"}, None])
def test_text_or_list_in_place_of_a_tuple_is_refused(field: str, value: object) -> None:
    # As a string, "api" would hold the audiences "a" and "pi" too.
    assert "each must be a tuple of strings" in problems(**{field: value})[0]


@pytest.mark.parametrize(
    "algorithms",
    [(), ("none",), ("HS256",), ("RS256", "HS512"), ("rs256",), ("ES521",), ("ES256K",), ("",)],
)
def test_algorithm_that_is_not_possible_is_refused(algorithms: tuple[str, ...]) -> None:
    assert problems(algorithms=algorithms)[0].startswith("algorithms: ")


def test_every_possible_algorithm_may_be_chosen() -> None:
    assert POSSIBLE_ALGORITHMS == make(algorithms=POSSIBLE_ALGORITHMS).algorithms


@pytest.mark.parametrize("leeway", [0, 0.5, 300])
def test_leeway_within_its_limits_is_good(leeway: float) -> None:
    assert leeway == make(leeway=leeway).leeway


@pytest.mark.parametrize("leeway", [-1, -0.001, 300.001, inf, nan])
def test_leeway_beyond_its_limits_is_refused_with_the_number(leeway: float) -> None:
    assert (f"leeway: {leeway:g} s is not within 0 … 300 s",) == problems(leeway=leeway)


@pytest.mark.parametrize("seconds", [0.001, 300, 1e9])
def test_lifetime_may_be_bounded_and_then_iat_is_required(seconds: float) -> None:
    issuer = make(max_lifetime=seconds)

    assert (seconds, True) == (issuer.max_lifetime, "iat" in issuer.required_claims)


@pytest.mark.parametrize("seconds", [0, -1, inf, nan])
def test_bound_of_the_lifetime_that_cannot_be_is_refused(seconds: float) -> None:
    assert (f"max_lifetime: {seconds:g} s is not a time above 0 s",) == problems(
        max_lifetime=seconds
    )


def test_claims_of_the_short_form_become_predicates() -> None:
    tests = (Predicate(path=("tenant",), equals="acme"),)

    assert (tests, tests) == (make(claims={"tenant": "acme"}).claims, make(claims=tests).predicates)


def test_claims_make_another_policy() -> None:
    assert make(claims={"tenant": "acme"}) != make(claims={"tenant": "other"})


def test_scopes_are_granted_by_the_claims_of_the_paths_given() -> None:
    issuer = make(scope_claims=("scope", "realm_access.roles", "/https:~1~1a.example~1roles"))

    assert (
        ("scope",),
        ("realm_access", "roles"),
        ("https://a.example/roles",),
    ) == issuer.scope_paths


def test_paths_of_claims_that_cannot_be_are_refused_together() -> None:
    assert 3 == len(problems(claims={"a..b": 1, "c": None}, scope_claims=("scope", "")))


def test_all_problems_are_said_at_once() -> None:
    bad = {"issuer": "a", "jwks_url": "b", "audiences": (), "algorithms": (), "leeway": -1}

    assert 5 == len(problems(**bad))


def test_name_is_the_host_unless_given() -> None:
    assert ["issuer.example", "main"] == [make().name, make(name="main").name]


def test_issuer_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make().leeway = 300.0  # type: ignore[misc]


def test_types_are_kept_as_they_are_compared() -> None:
    assert ("at+jwt", "jwt") == make(typ=("application/AT+JWT", "JWT")).typ


def test_normal_type_is_normal() -> None:
    assert ["at+jwt"] * 2 == [normal_typ(typ) for typ in ("Application/At+JWT", "at+jwt")]


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ({}, ("exp", "iss", "aud")),
        ({"require": ("email",)}, ("exp", "iss", "aud", "email")),
        ({"require": ("exp", "email", "email")}, ("exp", "iss", "aud", "email")),
        ({"typ": ("at+jwt",)}, ("exp", "iss", "aud", "sub", "client_id", "iat", "jti")),
        ({"typ": ("application/at+jwt",)}, ("exp", "iss", "aud", "sub", "client_id", "iat", "jti")),
        ({"typ": ("at+jwt", "jwt")}, ("exp", "iss", "aud")),
    ],
)
def test_required_claims_are_each_named_once(
    changes: dict[str, Any], required: tuple[str, ...]
) -> None:
    assert required == make(**changes).required_claims


# The identity of a source


def test_id_is_the_same_in_every_process() -> None:
    # Part of the names in the shared cache: a change would split a fleet that is being updated.
    assert "c4ad1a492d3f879bc9d5460835211da5" == KeySource(URL, None).id


def test_id_is_a_short_name_whatever_the_url() -> None:
    assert {32} == {len(KeySource(url, url).id) for url in ("", URL, URL * 1000, "é\n:*")}


def test_id_does_not_depend_on_the_policy() -> None:
    assert make().source.id == make(audiences=("other",), leeway=0, name="other").source.id


CRAFTED = [
    ("https://a.example", None),
    ("https://a.example/", None),
    ("https://A.example", None),
    ("https://a.example", "https://a.example"),
    ("https://a.examplehttps://a.example", None),
    ("https://a.example0:", None),
    ("", "https://a.example"),
    ("17:https://a.example0:", None),
    ("https://a.example|https://b.example", None),
    ("https://a.example", "https://b.example"),
    ("https://a.example:17:https://b.example", None),
]


def test_no_source_can_spell_the_id_of_another() -> None:
    assert len(CRAFTED) == len({KeySource(*source).id for source in CRAFTED})


TEXTS = st.text("0123456789:ab", max_size=8)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_two_sources_have_one_id_only_if_they_are_the_same(
    one: str, one_url: str, two: str, two_url: str
) -> None:
    same = (one, one_url) == (two, two_url)

    assert same == (KeySource(one, one_url).id == KeySource(two, two_url).id)
