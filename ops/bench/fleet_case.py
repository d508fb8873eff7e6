"""What a case of the fleet bench gives: counts, and the times of its tokens."""

from collections.abc import Iterable
from typing import NamedTuple

AT_ONCE = 50
"""Concurrent requests, as in the table of the others."""

LATENCY = 0.05
"""Seconds that every issuer takes for an answer, its errors included."""

ROTATION_POLL = 0.25
"""Seconds between two attempts with a token of the new key."""


class Timed(NamedTuple):
    """One token: whether it was accepted, and after how many seconds that was known."""

    accepted: bool
    seconds: float


class Case(NamedTuple):
    """fetches: requests for the key set during the case; asked, accepted: tokens.

    slowest: seconds that the slowest of these tokens took. alone: the same without the trouble that
    the case makes. seconds: what the case is about, where that is one time. good, waited: tokens
    of a known key presented meanwhile, and those that were not answered from memory.
    """

    fetches: int
    asked: int
    accepted: int
    slowest: float
    alone: float | None = None
    seconds: float | None = None
    good: int | None = None
    waited: int | None = None


def case(  # noqa: PLR0913 - all that a case can give
    fetches: int,
    tokens: Iterable[Timed],
    *,
    alone: float | None = None,
    seconds: float | None = None,
    good: int | None = None,
    waited: int | None = None,
) -> Case:
    """Sum the tokens of a case up."""
    timed = list(tokens)
    return Case(
        fetches=fetches,
        asked=len(timed),
        accepted=sum(token.accepted for token in timed),
        slowest=max((token.seconds for token in timed), default=0.0),
        alone=alone,
        seconds=seconds,
        good=good,
        waited=waited,
    )
