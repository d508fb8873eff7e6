"""How often the issuer may be asked."""

from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.budget import Bucket, Limits, pause, take
from keycache.errors import ConfigurationError

LIMITS = Limits(budget=2, refill=30, backoff_min=1, backoff_max=60)


def waits(*moments: float, limits: Limits = LIMITS) -> list[float]:
    """What is answered to attempts at these moments."""
    bucket, answers = None, []
    for moment in moments:
        bucket, seconds = take(bucket, moment, limits)
        answers.append(seconds)
    return answers


def test_budget_is_there_at_once_and_then_spent() -> None:
    assert [0, 0, 30] == waits(100, 100, 100)


def test_wait_that_is_told_is_the_wait_that_is_needed() -> None:
    assert pytest.approx([0, 0, 20, 0, 30], abs=0.01) == waits(100, 100, 110, 130.001, 130.001)


@pytest.mark.parametrize(("moment", "wait"), [(129.5, 0.5), (130, 0)])
def test_refill_comes_after_its_time_and_not_before(moment: float, wait: float) -> None:
    assert pytest.approx(wait) == waits(100, 100, moment)[-1]


def test_budget_does_not_grow_beyond_itself() -> None:
    assert [0, 0, 0, 30] == waits(0, 10**9, 10**9, 10**9)


def test_refusal_costs_nothing() -> None:
    assert 0 == waits(100, 100, *[101 + second for second in range(29)], 130.001)[-1]


def test_clock_that_was_set_back_neither_gives_nor_takes() -> None:
    assert [0, 0, 30, 0] == waits(100, 50, 50, 80)


def test_what_is_left_is_dated() -> None:
    assert (Bucket(0.5, 115), 15) == take(Bucket(0, 100), 115, LIMITS)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=60), st.integers(1, 5))
def test_attempts_are_never_more_than_the_budget_and_its_refills(
    moments: list[float], budget: int
) -> None:
    moments = sorted(moments)
    answers = waits(*moments, limits=Limits(budget=budget, refill=30))
    granted = sum(seconds == 0 for seconds in answers)

    assert granted <= budget + (moments[-1] - moments[0]) / 30 + 1e-6


def test_pause_doubles_up_to_its_limit() -> None:
    pauses = [pause(failures, 1, LIMITS) for failures in range(1, 9)]

    assert [1, 2, 4, 8, 16, 32, 60, 60] == pauses


@pytest.mark.parametrize(("chance", "seconds"), [(0, 0), (0.25, 2), (1, 8)])
def test_chance_takes_its_share_of_the_pause(chance: float, seconds: float) -> None:
    assert seconds == pause(4, chance, LIMITS)


def test_a_million_failures_are_the_longest_pause() -> None:
    assert 60 == pause(1_000_000, 1, Limits(backoff_min=1.5, backoff_max=60))


def test_pause_never_shrinks_with_failures() -> None:
    assert all(
        one <= two for one, two in pairwise(pause(count, 1, LIMITS) for count in range(1, 100))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "budget: 0"),
        ({"budget": -1}, "budget: -1"),
        ({"refill": 0}, "budget_refill: 0 s"),
        ({"refill": -1}, "budget_refill: -1 s"),
        ({"refill": nan}, "budget_refill: nan s"),
        ({"refill": inf}, "budget_refill: inf s"),
        ({"backoff_min": 0}, r"BACKOFF_MIN \(0\)"),
        ({"backoff_min": 61}, r"BACKOFF_MIN \(61\) <= BACKOFF_MAX \(60\)"),
        ({"backoff_min": nan}, r"BACKOFF_MIN \(nan\)"),
        ({"backoff_max": inf}, r"BACKOFF_MAX \(inf\)"),
    ],
)
def test_limits_that_cannot_work_are_refused_with_the_numbers(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Limits(**settings)  # type: ignore[arg-type]


def test_all_that_is_wrong_with_limits_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Limits(budget=0, refill=0, backoff_min=0)

    assert 3 == len(refused.value.problems)
