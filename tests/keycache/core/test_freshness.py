"""How long a key set may be used."""

from dataclasses import asdict
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.freshness import Freshness, Lifetimes, freshness, soft_ttl
from keycache.errors import ConfigurationError

LIFETIMES = Lifetimes(ttl=300, ttl_min=60, ttl_max=3600, refresh_at=0.8, stale=1000)


@pytest.mark.parametrize(
    ("cache_control", "age", "seconds"),
    [
        (None, None, 300),
        ("", None, 300),
        ("public", None, 300),
        ("max-age=600", None, 600),
        ("public, max-age=600, must-revalidate", None, 600),
        ("MAX-AGE=600", None, 600),
        ('max-age="600"', None, 600),
        (" max-age=600 ", None, 600),
        ("max-age=600", "100", 500),
        ("max-age=600", "0", 600),
        # Both sides of both clamps.
        ("max-age=59", None, 60),
        ("max-age=60", None, 60),
        ("max-age=61", None, 61),
        ("max-age=3599", None, 3599),
        ("max-age=3600", None, 3600),
        ("max-age=3601", None, 3600),
        ("max-age=0", None, 60),
        ("max-age=600", "600", 60),
        ("max-age=600", "700", 60),
        # RFC 9111 section 1.2.2: more than can be held is 2^31.
        ("max-age=99999999999999999999", None, 3600),
        ("max-age=600", "99999999999999999999", 60),
        ("max-age=" + "9" * 10_000, "9" * 10_000, 60),
        ("max-age=00000000000000000600", "0000000000000000100", 500),
        # What cannot be read is not there.
        ("max-age=", None, 300),
        ("max-age", None, 300),
        ("max-age=-1", None, 300),
        ("max-age=600.5", None, 300),
        ("max-age=1e3", None, 300),
        ("max-age=soon", None, 300),
        ("max-age=٦٠٠", None, 300),
        ("s-maxage=600", None, 300),
        ("x-max-age=600", None, 300),
        ("max-age=600", "soon", 600),
        ("max-age=600", "-100", 600),
        ("max-age=600", "", 600),
        # We are a cache; the least is what we can do.
        ("no-store", None, 60),
        ("no-cache", None, 60),
        ("no-cache, max-age=600", None, 60),
        ("max-age=600, no-store", None, 60),
        ('no-cache="Set-Cookie"', None, 60),
    ],
)
def test_soft_ttl_is_max_age_less_age_within_the_clamps(
    cache_control: str | None, age: str | None, seconds: float
) -> None:
    assert seconds == soft_ttl(cache_control, age, LIFETIMES)


@given(
    st.text() | st.text("max-age=0123456789,; \"'nostrc", max_size=30),
    st.none() | st.text() | st.text("0123456789", max_size=30),
)
def test_soft_ttl_of_any_header_is_within_the_clamps(cache_control: str, age: str | None) -> None:
    assert 60 <= soft_ttl(cache_control, age, LIFETIMES) <= 3600


def test_moments_of_a_set_stand_in_their_order() -> None:
    assert Freshness(1000, 1240, 1300, 2300) == freshness(1000, 300, LIFETIMES, 0)


@pytest.mark.parametrize(("jitter", "refresh_from"), [(-1, 1216), (0, 1240), (1, 1264)])
def test_jitter_moves_the_refresh_by_a_tenth(jitter: float, refresh_from: float) -> None:
    assert pytest.approx(refresh_from) == freshness(1000, 300, LIFETIMES, jitter).refresh_from


@given(
    st.floats(60, 86400),
    st.floats(0.1, 0.9),
    st.floats(0, 1e6),
    st.floats(-1, 1),
    st.floats(0, 2e9),
)
def test_refresh_always_comes_before_the_set_is_stale(
    ttl: float, refresh_at: float, stale: float, jitter: float, fetched_at: float
) -> None:
    lifetimes = Lifetimes(refresh_at=refresh_at, stale=stale)
    fetched, refresh, fresh, dead = freshness(fetched_at, ttl, lifetimes, jitter)

    assert fetched < refresh < fresh <= dead


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ttl_min": 0}, r"TTL_MIN \(0\)"),
        ({"ttl_min": -1}, r"TTL_MIN \(-1\)"),
        ({"ttl_min": 301}, r"TTL_MIN \(301\) <= TTL \(300\)"),
        ({"ttl_max": 299}, r"TTL \(300\) <= TTL_MAX \(299\)"),
        ({"ttl": nan}, r"TTL \(nan\)"),
        ({"ttl_max": inf}, r"TTL_MAX \(inf\)"),
        ({"refresh_at": 0.09}, "refresh_at: 0.09"),
        ({"refresh_at": 0.91}, "refresh_at: 0.91"),
        ({"refresh_at": nan}, "refresh_at: nan"),
        ({"stale": -1}, "stale: -1 s"),
        ({"stale": nan}, "stale: nan s"),
        ({"stale": inf}, "stale: inf s"),
    ],
)
def test_lifetimes_that_cannot_work_are_refused_with_the_numbers(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Lifetimes(**settings)


def test_all_that_is_wrong_with_lifetimes_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Lifetimes(ttl=0, refresh_at=2, stale=-1)

    assert 3 == len(refused.value.problems)


@pytest.mark.parametrize(
    "edge",
    [
        {"ttl": 1, "ttl_min": 1, "ttl_max": 1},
        {"refresh_at": 0.1},
        {"refresh_at": 0.9},
        {"stale": 0},
    ],
)
def test_edges_of_lifetimes_are_allowed(edge: dict[str, float]) -> None:
    assert edge.items() <= asdict(Lifetimes(**edge)).items()
