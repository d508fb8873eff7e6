"""The chooser says what a scan of all rules says, and is not led astray by how many there are."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keycache.errors import ConfigurationError
from keycache.rules import Rule
from keycache.rules import chooser as chooser_module
from keycache.rules.chooser import Chooser
from keycache.rules.patterns import parse_pattern
from tests.keycache.rules.naive import REQUESTS, SMALL, TABLES, first

NONE = "none of them"


def chooser(rules: list[Rule]) -> Chooser:
    return Chooser(
        [parse_pattern(rule.path) for rule in rules], [rule.all_methods for rule in rules]
    )


def chosen(rules: list[Rule], method: str, path: str) -> object:
    number = chooser(rules).first(method, path)
    return rules[number] if number < len(rules) else NONE


@SMALL
@given(TABLES)
def test_chooser_chooses_what_a_scan_of_all_rules_finds_first(rules: list[Rule]) -> None:
    choose = chooser(rules).first
    for method, path in REQUESTS:
        expected = first(rules, method, path)
        number = choose(method, path)

        assert (number == len(rules)) if expected is None else rules.index(expected) == number


@settings(deadline=None)
@given(TABLES, st.text("ab/x", max_size=8), st.sampled_from(["GET", "PUT", ""]))
def test_empty_segments_are_no_names(rules: list[Rule], rest: str, method: str) -> None:
    assume(rest != "/")  # `//` is `/` with a slash at its end
    expected = first(rules, method, f"/{rest}")

    assert (NONE if expected is None else expected) == chosen(rules, method, f"/{rest}")


@pytest.mark.parametrize(
    ("path", "request_path", "matches"),
    [
        ("/", "/", True),
        ("/", "/a", False),
        ("/**", "/", True),
        ("/**", "/a/b/c/d", True),
        ("/*", "/", False),
        ("/*", "/a", True),
        ("/*", "/a/", True),
        ("/*", "/a/b", False),
        ("/orders", "/orders", True),
        ("/orders", "/orders/", True),
        ("/orders/", "/orders", True),
        ("/orders", "/orders//", False),
        ("/orders", "/orders/1", False),
        ("/orders", "/order", False),
        ("/orders", "/ordersx", False),
        ("/orders/*", "/orders/", False),
        ("/orders/*/items", "/orders/1/items", True),
        ("/orders/*/items", "/orders//items", False),
        ("/orders/*/items", "/orders/1/2/items", False),
        ("/api/**", "/api", True),
        ("/api/**", "/api/", True),
        ("/api/**", "/api/a/b/c", True),
        ("/api/**", "/apix", False),
        ("/api/**", "/", False),
        ("/api/*/**", "/api", False),
        ("/api/*/**", "/api/a", True),
    ],
)
def test_pattern_matches_or_not(path: str, request_path: str, *, matches: bool) -> None:
    assert matches is (0 == chooser([Rule(path=path)]).first("GET", request_path))


@pytest.mark.parametrize(
    ("methods", "method", "matches"),
    [
        ((), "PURGE", True),
        (("GET",), "GET", True),
        (("GET",), "HEAD", True),
        (("HEAD",), "GET", False),
        (("GET",), "POST", False),
        (("GET", "POST"), "POST", True),
        (("GET",), "get", False),
    ],
)
def test_method_matches_or_not(methods: tuple[str, ...], method: str, *, matches: bool) -> None:
    assert matches is (0 == chooser([Rule(path="/**", methods=methods)]).first(method, "/a"))


def test_star_and_name_are_tried_side_by_side() -> None:
    # A search that went by the name alone would not come back from /a/b.
    rules = [Rule(path="/a/b/c"), Rule(path="/*/b/d"), Rule(path="/a/*/e"), Rule(path="/*/*/*")]

    assert [0, 1, 2, 3] == [chooser(rules).first("GET", f"/a/b/{end}") for end in "cdef"]


def test_path_that_is_deeper_than_any_pattern_is_cut_into_no_more_pieces() -> None:
    assert [0, 1] == [
        chooser([Rule(path="/a/**")]).first("GET", path + "/x" * 100_000) for path in ("/a", "/b")
    ]


def test_patterns_with_too_many_ways_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser_module, "STATES", 200)
    paths = ["/" + "*/" * place + "a" + "/*" * (11 - place) + f"/x{place}" for place in range(12)]

    with pytest.raises(ConfigurationError, match="too many ways"):
        chooser([Rule(path=path) for path in paths])


def test_two_hundred_patterns_have_few_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser_module, "STATES", 900)
    rules = [Rule(path=f"/v{i % 5}/tenants/*/things{i}/**") for i in range(200)]

    assert 199 == chooser(rules).first("GET", "/v4/tenants/acme/things199/7")
