"""Predicates of claims: where they look, what they accept, and what cannot be one."""

from contextlib import suppress
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.errors import ConfigurationError
from keycache.predicates import Predicate, claim_path, look_up, predicates, written
from tests.keycache.core.forge import frozen

CLAIMS: dict[str, Any] = {
    "sub": "alice",
    "tenant": "acme",
    "level": 1,
    "half": 0.5,
    "verified": True,
    "nothing": None,
    "empty": "",
    "scope": "read write",
    "groups": ["staff", "Domain Admins", 7, True, None],
    "realm_access": {"roles": ["admin", "user"], "deep": {"er": "yes"}},
    "https://example.com/roles": ["owner"],
    "a~b": "tilde",
}


def holds(short: dict[str, object], claims: dict[str, Any] = CLAIMS) -> bool:
    """Whether the one predicate holds; the answer must be the same for frozen claims."""
    (predicate,) = predicates(short)
    answers = {predicate.holds(claims), predicate.holds(frozen(claims))}
    assert len(answers) == 1
    return answers.pop()


def problems(short: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        predicates(short)
    return refused.value.problems


# Paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sub", ("sub",)),
        ("realm_access.roles", ("realm_access", "roles")),
        ("realm_access.deep.er", ("realm_access", "deep", "er")),
        ("/sub", ("sub",)),
        ("/https:~1~1example.com~1roles", ("https://example.com/roles",)),
        ("/a~0b", ("a~b",)),
        ("/a~01", ("a~1",)),
        ("/", ("",)),
        ("/a//b", ("a", "", "b")),
        ("a~b", ("a~b",)),
        ("a/b", ("a/b",)),
    ],
)
def test_path_is_names_between_dots_or_a_json_pointer(text: str, path: tuple[str, ...]) -> None:
    assert path == claim_path(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "/~", "/a~2", "/~~0"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no "):
        claim_path(text)


@given(st.lists(st.text("ab./~é "), min_size=1).map(tuple))
def test_path_is_written_so_that_it_is_read_again(path: tuple[str, ...]) -> None:
    assert path == claim_path(written(path))


@given(st.text())
def test_any_text_is_a_path_or_a_configuration_error(text: str) -> None:
    with suppress(ConfigurationError):
        assert claim_path(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sub", "alice"),
        ("realm_access.deep.er", "yes"),
        ("/https:~1~1example.com~1roles", ["owner"]),
        ("absent", None),
        ("nothing", None),
        ("nothing.at.all", None),
        ("sub.alice", None),
        ("groups.0", None),
        ("realm_access.roles.0", None),
    ],
)
def test_look_up_goes_through_objects_only(text: str, found: object) -> None:
    assert found == look_up(CLAIMS, claim_path(text))


# What holds


@pytest.mark.parametrize(
    "short",
    [
        {"tenant": "acme"},
        {"tenant": {"equals": "acme"}},
        {"level": 1},
        {"level": 1.0},
        {"half": 0.5},
        {"verified": True},
        {"empty": ""},
        {"realm_access.deep.er": "yes"},
        {"tenant": {"one_of": ["other", "acme"]}},
        {"level": {"one_of": [2, 1]}},
        {"realm_access.roles": {"contains": "admin"}},
        {"/https:~1~1example.com~1roles": {"contains": "owner"}},
        {"groups": {"contains": "Domain Admins"}},
        {"groups": {"contains": 7}},
        {"groups": {"contains": True}},
        {"scope": {"contains": "write"}},
        {"sub": {"present": True}},
        {"empty": {"present": True}},
        {"absent": {"present": False}},
        {"nothing": {"present": False}},
        {"absent.deep": {"present": False}},
    ],
)
def test_predicate_that_holds(short: dict[str, object]) -> None:
    assert holds(short)


@pytest.mark.parametrize(
    "short",
    [
        {"tenant": "Acme"},
        {"tenant": "acme "},
        {"tenant": "ac"},
        {"absent": "acme"},
        {"nothing": "None"},
        # What Python alone would call equal, and JSON does not.
        {"level": True},
        {"level": "1"},
        {"verified": 1},
        {"verified": "True"},
        {"verified": {"one_of": [1, "true"]}},
        {"groups": {"contains": 1}},
        # What is one value is not searched for parts of words, what is a list is not one value.
        {"groups": "staff"},
        {"tenant": {"contains": "ac"}},
        {"scope": {"contains": "writ"}},
        {"scope": {"contains": "read write"}},
        {"level": {"contains": 1}},
        {"realm_access": {"contains": "roles"}},
        {"realm_access.roles": {"contains": "adm"}},
        {"absent": {"contains": "admin"}},
        {"tenant": {"one_of": ["a", "c"]}},
        {"sub": {"present": False}},
        {"absent": {"present": True}},
        {"nothing": {"present": True}},
    ],
)
def test_predicate_that_does_not_hold(short: dict[str, object]) -> None:
    assert not holds(short)


@pytest.mark.parametrize("space", ["\n", "\t", "\u00a0", "\v", "\x1f"])
def test_words_of_a_string_are_separated_by_spaces_alone(space: str) -> None:
    # RFC 6749 section 3.3: a value is split as its issuer joined it.
    assert not holds({"scope": {"contains": "admin"}}, {"scope": f"read{space}admin"})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), JSON),
    st.sampled_from(["a", "a.b", "/a", "/b/a"]),
    st.sampled_from(["equals", "contains"]),
    st.booleans() | st.integers(0, 1) | st.text("01 tr", min_size=1, max_size=2),
)
def test_whatever_the_claims_a_predicate_has_an_answer(
    claims: dict[str, Any], path: str, test: str, value: object
) -> None:
    assert holds({path: {test: value}}, claims) in (True, False)


# What cannot be one


@pytest.mark.parametrize(
    ("short", "said"),
    [
        ({"a": None}, "claim a: must be a string, a number, true or false, or a table with one of"),
        ({"a": ["x"]}, "claim a: must be a string, a number, true or false, or a table"),
        ({"a": {}}, "claim a: give exactly one of equals, one_of, contains, present; given: none"),
        ({"a": {"equals": 1, "contains": 1}}, "given: equals and contains"),
        ({"a": {"equal": 1}}, "claim a: equal is no test; choose from equals, one_of"),
        ({"a": {"one_of": []}}, "claim a: one_of: must be a list of at least one value"),
        ({"a": {"one_of": "x"}}, "claim a: one_of: must be a list"),
        ({"a": {"one_of": ["x", None]}}, "claim a: a value must be a string"),
        ({"a": {"one_of": [["x"]]}}, "claim a: a value must be a string"),
        ({"a": {"contains": {"x": 1}}}, "claim a: a value must be a string"),
        ({"a": {"contains": ""}}, "claim a: contains: is empty"),
        ({"a": {"present": 1}}, "claim a: present: must be true or false"),
        ({"a": nan}, "claim a: must be a string"),
        ({"a": {"equals": inf}}, "claim a: a value must be a string"),
        ({"a..b": 1}, "'a..b' is no path of a claim"),
        ({"/a~": 1}, "'/a~' is no JSON Pointer"),
    ],
)
def test_what_cannot_be_a_predicate_is_refused_with_a_remedy(
    short: dict[str, object], said: str
) -> None:
    (problem,) = problems(short)

    assert said in problem


def test_all_problems_are_said_at_once() -> None:
    assert 3 == len(problems({"a": None, "b": {"equal": 1}, "c.": 1, "d": 1}))


def test_predicate_is_named_as_it_is_written() -> None:
    assert ["realm_access.roles", "/x.y"] == [
        Predicate(path=path, present=True).name for path in [("realm_access", "roles"), ("x.y",)]
    ]
