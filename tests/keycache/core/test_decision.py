"""The one table of what to do about a key."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.decision import MAX_SKEW, TABLE, Age, Decision, Known, age, decide
from keycache.core.freshness import Freshness

MOMENTS = Freshness(fetched_at=1000, refresh_from=1240, fresh_until=1300, stale_until=2300)


def test_table_has_a_decision_for_every_age_and_every_key() -> None:
    decided = {(age, known) for age, row in TABLE.items() for known in row}

    assert set(product(Age, Known)) == decided


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (1000, Age.FRESH),
        (1239.999, Age.FRESH),
        (1240, Age.DUE),
        (1299.999, Age.DUE),
        (1300, Age.STALE),
        (2299.999, Age.STALE),
        (2300, Age.DEAD),
        (10**12, Age.DEAD),
        # The clock was set back, or the record is from a host whose clock is ahead.
        (1000 - MAX_SKEW, Age.FRESH),
        (1000 - MAX_SKEW - 0.001, Age.STALE),
        (0, Age.STALE),
    ],
)
def test_age_changes_at_its_moments(now: float, expected: Age) -> None:
    assert expected is age(MOMENTS, now)


def test_set_that_is_not_there_is_absent() -> None:
    assert Age.ABSENT is age(None, 1000)


def test_set_without_a_stale_time_dies_when_it_is_no_longer_fresh() -> None:
    moments = MOMENTS._replace(stale_until=1300)

    assert [Age.DUE, Age.DEAD] == [age(moments, now) for now in (1299, 1300)]


@pytest.mark.parametrize(
    ("now", "known", "expected"),
    [
        (1100, Known.FOUND, Decision.SERVE),
        (1250, Known.FOUND, Decision.SERVE_AND_REFRESH),
        (1300, Known.FOUND, Decision.SERVE_AND_REFRESH),
        (2300, Known.FOUND, Decision.WAIT),
        (1100, Known.UNKNOWN, Decision.WAIT),
        (1100, Known.NEGATIVE, Decision.REFUSE),
        (1100, Known.REFUSED, Decision.REFUSE),
        (1300, Known.REFUSED, Decision.WAIT),
    ],
)
def test_decision_is_looked_up(now: float, known: Known, expected: Decision) -> None:
    assert expected is decide(MOMENTS, known, now)


@given(st.sampled_from(Known), st.floats(2300, allow_nan=False))
def test_dead_set_is_never_served_and_never_a_reason_to_refuse(known: Known, now: float) -> None:
    assert Decision.WAIT is decide(MOMENTS, known, now)


@given(st.floats(allow_nan=False))
def test_absent_set_is_waited_for_at_any_time(now: float) -> None:
    assert {Decision.WAIT} == {decide(None, known, now) for known in Known}


@given(st.floats(allow_nan=False, max_value=2299))
def test_key_that_is_found_in_a_living_set_never_waits(now: float) -> None:
    assert decide(MOMENTS, Known.FOUND, now) in (Decision.SERVE, Decision.SERVE_AND_REFRESH)


@given(st.sampled_from([Known.UNKNOWN, Known.NEGATIVE, Known.REFUSED]), st.floats(allow_nan=False))
def test_key_that_is_not_found_is_never_served(known: Known, now: float) -> None:
    assert decide(MOMENTS, known, now) in (Decision.WAIT, Decision.REFUSE)
