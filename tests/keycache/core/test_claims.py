"""What a token must say: both sides of every boundary, and claims that nobody can change."""

import copy
import json
import pickle
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
from sanic import response

from keycache.core.claims import LATEST, Claims, check_claims, check_times, freeze, scopes
from keycache.core.strict_json import FrozenObject
from keycache.core.token import Header
from keycache.errors import Reason, TokenError
from tests.keycache.core.forge import ABSENT, NOW, claims, frozen, issuer

WRONG_NUMBERS = [
    "1700000300",
    "",
    "NaN",
    True,
    False,
    [],
    [NOW],
    {},
    None,
    nan,
    inf,
    -inf,
    -1,
    -0.5,
]
TOO_LATE = [LATEST + 1, LATEST + 0.5, 1e308, 10**400, (NOW + 300) * 1000]


def outcome(
    payload: dict[str, Any], now: float = NOW, header_typ: str = "jwt", **policy: object
) -> str:
    """ "accepted" or the reason of the refusal."""
    try:
        check_claims(Header("ES256", "a", header_typ), payload, issuer(**policy), now)
    except TokenError as error:
        return error.reason
    return "accepted"


def test_good_claims_are_accepted() -> None:
    assert "accepted" == outcome(claims())


# exp (RFC 7519 section 4.1.4)


@pytest.mark.parametrize("leeway", [0, 0.5, 30])
@pytest.mark.parametrize(
    ("after", "expected"),
    [(-1, "accepted"), (-0.001, "accepted"), (0, "expired"), (0.001, "expired"), (1, "expired")],
)
def test_token_expires_on_the_second_it_names(leeway: float, after: float, expected: str) -> None:
    assert expected == outcome(claims(exp=NOW), NOW + leeway + after, leeway=leeway)


def test_exp_may_be_a_fraction() -> None:
    outcomes = [outcome(claims(exp=NOW + 0.5), now) for now in (NOW + 0.25, NOW + 0.5)]

    assert ["accepted", "expired"] == outcomes


@pytest.mark.parametrize("exp", [0, 0.0, -0.0])
def test_epoch_is_a_date_and_has_passed(exp: float) -> None:
    assert Reason.EXPIRED == outcome(claims(exp=exp))


@pytest.mark.parametrize(
    ("exp", "expected"), [(ABSENT, Reason.MISSING_CLAIM), (None, Reason.MISSING_CLAIM)]
)
def test_token_without_exp_is_refused(exp: object, expected: str) -> None:
    assert expected == outcome(claims(exp=exp))


@pytest.mark.parametrize("exp", [value for value in WRONG_NUMBERS if value is not None])
def test_exp_that_is_no_number_is_refused_and_not_ignored(exp: object) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(exp=exp))


# nbf and iat (RFC 7519 sections 4.1.5 and 4.1.6)


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("leeway", [0, 0.5, 30])
@pytest.mark.parametrize(
    ("after", "expected"), [(-1, "not_yet_valid"), (-0.001, "not_yet_valid"), (0, "accepted")]
)
def test_token_is_valid_from_the_second_it_names(
    name: str, leeway: float, after: float, expected: str
) -> None:
    payload = claims(**{name: NOW})

    assert expected == outcome(payload, NOW - leeway + after, leeway=leeway)


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_nbf_and_iat_may_be_missing(name: str) -> None:
    assert "accepted" == outcome(claims(**{name: ABSENT}))


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("value", WRONG_NUMBERS)
def test_nbf_and_iat_that_are_no_numbers_are_refused_and_not_ignored(
    name: str, value: object
) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(**{name: value}))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", TOO_LATE)
def test_date_after_the_year_9999_is_a_mistake(name: str, value: float) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(**{name: value}))


def test_last_second_of_the_year_9999_is_a_date() -> None:
    assert "accepted" == outcome(claims(exp=LATEST))


@pytest.mark.parametrize(("nbf", "iat"), [(NOW - 20, NOW - 5), (NOW - 5, NOW - 20)])
def test_validity_is_what_the_checks_say_leeway_included(nbf: int, iat: int) -> None:
    validity = check_times(claims(exp=NOW + 10, nbf=nbf, iat=iat), 2, NOW)

    assert (NOW - 7, NOW + 12) == (validity.starts, validity.ends)


def test_token_without_nbf_and_iat_has_always_been_valid() -> None:
    assert -inf == check_times(claims(), 0, NOW).starts


# aud (RFC 7519 section 4.1.3)


@pytest.mark.parametrize("aud", ["api", ["api"], ["other", "api"], ["api", "api"], ("a", "api")])
def test_token_that_names_us_is_accepted(aud: object) -> None:
    assert "accepted" == outcome(claims(aud=aud))


@pytest.mark.parametrize(
    "aud",
    ["", "ap", "api2", "API", " api", "api ", "a", "other", [], ["other"], [""], ["a", "p", "i"]],
)
def test_token_that_does_not_name_us_is_for_another_audience(aud: object) -> None:
    assert Reason.WRONG_AUDIENCE == outcome(claims(aud=aud))


@pytest.mark.parametrize(
    "aud",
    [
        *(1, True, {}, {"api": 1}, {"api": "api"}, [["api"]], ["api", 1], ["api", None], [{}]),
        *((1,), ("api", None)),
    ],
)
def test_aud_of_another_shape_is_invalid(aud: object) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(aud=aud))


@pytest.mark.parametrize("aud", [ABSENT, None])
def test_token_without_aud_is_refused(aud: object) -> None:
    assert Reason.MISSING_CLAIM == outcome(claims(aud=aud))


def test_one_of_several_audiences_is_enough() -> None:
    assert "accepted" == outcome(claims(aud=["b", "x"]), audiences=("a", "b"))


# sub, jti, client_id


@pytest.mark.parametrize("name", ["sub", "jti", "client_id"])
@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], ["alice"], {}])
def test_name_that_is_no_string_is_invalid(name: str, value: object) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(**{name: value}))


@pytest.mark.parametrize("name", ["sub", "jti", "client_id"])
def test_name_may_be_missing(name: str) -> None:
    assert "accepted" == outcome(claims(**{name: ABSENT}))


# Required claims and types


@pytest.mark.parametrize("name", ["exp", "aud", "iss", "email"])
@pytest.mark.parametrize("value", [ABSENT, None])
def test_required_claim_that_is_missing_or_null_is_refused(name: str, value: object) -> None:
    assert Reason.MISSING_CLAIM == outcome(
        claims(**{"email": "a@b", name: value}), require=("email",)
    )


@pytest.mark.parametrize("value", [False, 0, "", [], {}])
def test_required_claim_may_say_nothing_but_must_be_there(value: object) -> None:
    assert "accepted" == outcome(claims(email=value), require=("email",))


@pytest.mark.parametrize("typ", ["", "jwt", "at+jwt"])
def test_type_of_a_token_for_an_api_is_accepted(typ: str) -> None:
    assert "accepted" == outcome(claims(), header_typ=typ)


@pytest.mark.parametrize(
    "typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", "jose", "jwt2", "application/jwt", "none"]
)
def test_token_made_for_another_purpose_is_refused(typ: str) -> None:
    assert Reason.WRONG_TYPE == outcome(claims(), header_typ=typ)


PROFILE = claims(client_id="app", iat=NOW, jti="1")


def test_access_token_of_rfc_9068_is_accepted() -> None:
    assert "accepted" == outcome(PROFILE, header_typ="at+jwt", typ=("at+jwt",))


@pytest.mark.parametrize("typ", ["", "jwt", "at+jwt2"])
def test_profile_of_rfc_9068_takes_no_other_type(typ: str) -> None:
    assert Reason.WRONG_TYPE == outcome(PROFILE, header_typ=typ, typ=("at+jwt",))


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_profile_of_rfc_9068_requires_each_of_its_claims(name: str) -> None:
    payload = {key: value for key, value in PROFILE.items() if key != name}

    assert Reason.MISSING_CLAIM == outcome(payload, header_typ="at+jwt", typ=("at+jwt",))


def test_at_jwt_beside_another_type_does_not_bring_the_profile() -> None:
    assert "accepted" == outcome(claims(), header_typ="at+jwt", typ=("at+jwt", "jwt"))


def test_configured_type_is_compared_as_a_media_type() -> None:
    typ = ("application/Special+JWT",)

    assert "accepted" == outcome(claims(), header_typ="special+jwt", typ=typ)


# What an issuer's tokens must say besides (Issuer.claims, Issuer.max_lifetime)

WISHES: dict[str, object] = {
    "tenant": "acme",
    "email_verified": True,
    "realm_access.roles": {"contains": "admin"},
    "plan": {"one_of": ["pro", "team"]},
    "act": {"present": False},
    "/https:~1~1example.com~1level": 2,
}
GRANTED = {
    "tenant": "acme",
    "email_verified": True,
    "realm_access": {"roles": ["user", "admin"]},
    "plan": "team",
    "https://example.com/level": 2,
}


def test_token_that_says_all_that_is_wished_is_accepted() -> None:
    assert "accepted" == outcome(claims(**GRANTED), claims=WISHES)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "acme2"},
        {"tenant": ["acme"]},
        {"email_verified": 1},
        {"email_verified": "true"},
        {"email_verified": False},
        {"realm_access": {"roles": ["administrator"]}},
        {"realm_access": {"roles": []}},
        {"plan": "free"},
        {"plan": "pro team"},
        {"act": {"sub": "admin"}},
        {"https://example.com/level": 3},
        {"https://example.com/level": "2"},
        {"https://example.com/level": True},
    ],
)
def test_claim_of_another_value_than_is_wished_is_invalid(change: dict[str, object]) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(**{**GRANTED, **change}), claims=WISHES)


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in GRANTED for value in (ABSENT, None)),
        {"realm_access": {}},
        {"realm_access": {"roles": None}},
        {"realm_access": ["roles"]},
        {"realm_access": ABSENT, "realm_access.roles": ["admin"]},
    ],
)
def test_claim_that_is_wished_and_not_there_is_missing(change: dict[str, object]) -> None:
    assert Reason.MISSING_CLAIM == outcome(claims(**{**GRANTED, **change}), claims=WISHES)


def test_refusal_names_the_claim_as_it_is_configured_and_no_value() -> None:
    with pytest.raises(TokenError) as refused:
        check_claims(
            Header("ES256", "a", "jwt"),
            claims(**{**GRANTED, "plan": "s3cr3t"}),
            issuer(claims=WISHES),
            NOW,
        )

    assert "The claim plan does not have a value that is accepted here." == refused.value.details


@pytest.mark.parametrize("iat", [NOW, NOW - 0.5])
@pytest.mark.parametrize(
    ("lifetime", "expected"),
    [(1, "accepted"), (299.75, "accepted"), (300, "accepted"), (300.25, "invalid_claim")],
)
def test_lifetime_is_bounded_on_both_sides(iat: float, lifetime: float, expected: str) -> None:
    payload = claims(iat=iat, exp=iat + lifetime)

    assert expected == outcome(payload, now=iat + 0.5, leeway=30, max_lifetime=300)


@pytest.mark.parametrize("iat", [ABSENT, None])
def test_lifetime_that_is_bounded_needs_an_iat(iat: object) -> None:
    assert Reason.MISSING_CLAIM == outcome(claims(iat=iat), max_lifetime=300)


@pytest.mark.parametrize("iat", ["1", True, [], -1])
def test_iat_of_a_wrong_kind_is_no_lifetime(iat: object) -> None:
    assert Reason.INVALID_CLAIM == outcome(claims(iat=iat), max_lifetime=300)


@pytest.mark.parametrize(
    ("late", "expected"), [(30, "accepted"), (30.25, "not_yet_valid"), (1e6, "not_yet_valid")]
)
def test_late_iat_adds_no_more_than_the_leeway_to_a_lifetime(late: float, expected: str) -> None:
    payload = claims(iat=NOW + late, exp=NOW + late + 300)

    assert expected == outcome(payload, leeway=30, max_lifetime=300)


# Scopes


@pytest.mark.parametrize(
    ("payload", "granted"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "read  write read"}, {"read", "write"}),
        ({"scp": "read"}, {"read"}),
        ({"scp": ["read", "write"]}, {"read", "write"}),
        ({"scp": ("read",)}, {"read"}),
        ({"scope": "read", "scp": ["write"]}, {"read", "write"}),
        ({"scope": ["read", 1, None, ["write"]]}, {"read"}),
        ({"scope": 1, "scp": {"read": True}}, set()),
        ({"scope": None, "scp": True}, set()),
        ({"scopes": "read", "permissions": ["write"]}, set()),
    ],
)
def test_scopes_are_words_and_anything_else_grants_nothing(
    payload: dict[str, object], granted: set[str]
) -> None:
    assert granted == scopes(payload)


def test_list_of_scopes_is_not_split() -> None:
    assert {"read write"} == scopes({"scp": ["read write"]})


# Claims are handed to every request with the same token

DEEP: dict[str, Any] = {"sub": "alice", "realm_access": {"roles": ["user", {"a": [1, None]}]}}


@pytest.mark.parametrize(
    "write",
    [
        lambda it: it.__setitem__("sub", "admin"),
        lambda it: it.__setitem__("new", 1),
        lambda it: it.__delitem__("sub"),
        lambda it: it.__ior__({"sub": "admin"}),
        lambda it: it.update(sub="admin"),
        lambda it: it.setdefault("new", 1),
        lambda it: it.pop("sub"),
        lambda it: it.popitem(),
        lambda it: it.clear(),
        lambda it: it["realm_access"].__setitem__("roles", ["admin"]),
        lambda it: it["realm_access"].update(roles=["admin"]),
        lambda it: it["realm_access"]["roles"][1].clear(),
    ],
)
def test_claims_cannot_be_changed_however_deep(write: Callable[[Any], object]) -> None:
    held = frozen(DEEP)
    with pytest.raises(TypeError, match="cannot be changed"):
        write(held)

    assert frozen(DEEP) == held


def test_lists_in_claims_are_tuples() -> None:
    assert ("user", {"a": (1, None)}) == frozen(DEEP)["realm_access"]["roles"]


def test_claims_take_no_attributes() -> None:
    with pytest.raises(AttributeError):
        frozen(DEEP).admin = True  # type: ignore[attr-defined]


def test_claims_do_not_follow_the_payload_they_were_made_of() -> None:
    payload = dict(frozen(DEEP))
    held = freeze(payload)
    payload["sub"] = "admin"

    assert frozen(DEEP) == held


def test_claims_are_a_dict_and_their_copy_may_be_changed() -> None:
    copied = dict(frozen(DEEP))
    copied["sub"] = "bob"

    assert "bob" == copied["sub"]
    assert isinstance(frozen(DEEP), dict)


def test_claims_are_written_as_json() -> None:
    assert DEEP == json.loads(json.dumps(frozen(DEEP)))


def test_claims_are_written_by_sanic() -> None:
    body = response.json({"user": frozen(DEEP)}).body
    assert body is not None

    assert {"user": DEEP} == json.loads(body)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle"],
)
def test_copied_claims_are_claims(duplicate: Callable[[Claims], Claims]) -> None:
    copied = duplicate(frozen(DEEP))

    assert frozen(DEEP) == copied
    assert [Claims, FrozenObject] == [type(copied), type(copied["realm_access"])]
