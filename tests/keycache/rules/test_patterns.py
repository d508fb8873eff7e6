"""Patterns: what they match, contain and share, and what cannot be one."""

import re

import pytest
from hypothesis import given

from keycache.errors import ConfigurationError
from keycache.rules import Rule
from keycache.rules.patterns import Pattern, parse_pattern
from tests.keycache.rules.naive import PATHS, REQUESTS, SMALL, matches

ALL = sorted({path for _, path in REQUESTS})


def matched(path: str) -> set[str]:
    return {one for one in ALL if matches(Rule(path=path), "GET", one)}


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("/", Pattern((), is_open=False)),
        ("/**", Pattern((), is_open=True)),
        ("/orders", Pattern(("orders",), is_open=False)),
        ("/orders/", Pattern(("orders",), is_open=False)),
        ("/orders/*/items", Pattern(("orders", "*", "items"), is_open=False)),
        ("/api/**", Pattern(("api",), is_open=True)),
        ("/things:batch/@me/a=1,b", Pattern(("things:batch", "@me", "a=1,b"), is_open=False)),
        ("/.well-known/jwks.json", Pattern((".well-known", "jwks.json"), is_open=False)),
        ("/" + "a/" * 64, Pattern(("a",) * 64, is_open=False)),
    ],
)
def test_pattern_is_segments_and_whether_more_may_follow(text: str, pattern: Pattern) -> None:
    assert pattern == parse_pattern(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a path begins with /"),
        ("orders", "a path begins with /"),
        ("**", "a path begins with /"),
        ("https://api.example/orders", "a path begins with /"),
        ("//", "a segment is empty, . or .."),
        ("/a//b", "a segment is empty, . or .."),
        ("/a/../b", "a segment is empty, . or .."),
        ("/./a", "a segment is empty, . or .."),
        ("/**/a", "** stands at the end only"),
        ("/**/**", "** stands at the end only"),
        ("/a*", "a*: * stands for a whole segment"),
        ("/a/***", "***: * stands for a whole segment"),
        ("/users/<id>", "<id>: write * for a segment that varies"),
        ("/users/{id:int}", "{id:int}: write * for a segment that varies"),
        ("/users/:id", ":id: write * for a segment that varies"),
        ("/a%20b", "'a%20b' holds what a path has percent-encoded only"),
        ("/a b", "'a b' holds what a path has percent-encoded only"),
        ("/café", "'café' holds what a path has percent-encoded only"),
        ("/a;v=1", "'a;v=1' holds"),
        ("/a\\b", "holds what a path has percent-encoded only"),
        ("/a?b=1", "'a?b=1' holds"),
        ("/a#b", "'a#b' holds"),
        ("/a\n", "holds what a path has percent-encoded only"),
        ("/" + "a/" * 65, "a path has 64 segments at most"),
    ],
)
def test_what_cannot_be_a_pattern_is_refused_with_a_remedy(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        parse_pattern(text)


@SMALL
@given(PATHS)
def test_pattern_is_written_as_it_is_read(path: str) -> None:
    assert path == str(parse_pattern(path))


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        ("/a", "/a", True),
        ("/a", "/a/**", False),
        ("/a/**", "/a", True),
        ("/a/**", "/a/**", True),
        ("/a/**", "/a/b", True),
        ("/a/b", "/a/**", False),
        ("/a/b/**", "/a/**", False),
        ("/a/*", "/a/b", True),
        ("/a/b", "/a/*", False),
        ("/**", "/", True),
    ],
)
def test_pattern_covers_what_is_narrower(one: str, other: str, *, covers: bool) -> None:
    assert covers is parse_pattern(one).covers(parse_pattern(other))


@SMALL
@given(PATHS, PATHS)
def test_pattern_covers_another_when_it_matches_all_its_paths(one: str, other: str) -> None:
    assert (matched(one) >= matched(other)) is parse_pattern(one).covers(parse_pattern(other))


@SMALL
@given(PATHS, PATHS)
def test_meet_of_two_patterns_matches_what_both_match(one: str, other: str) -> None:
    both = parse_pattern(one).meet(parse_pattern(other))

    assert (matched(one) & matched(other)) == (matched(str(both)) if both else set())


@SMALL
@given(PATHS)
def test_samples_are_paths_of_the_pattern(path: str) -> None:
    samples = list(parse_pattern(path).samples(3))

    assert samples
    assert all(matches(Rule(path=path), "GET", sample) for sample in samples)
