"""What to do about a key that a token asks for: one table, from which the README's is drawn.

Two questions decide: how old is the key set we hold, and what does it say of the key? The rows are
the ages, in the order in which a set passes through them (`core.freshness`). The columns are what
is known of the key:

    FOUND     the set has it
    NEGATIVE  the set has not, and the issuer was asked about this kid a moment ago
    UNKNOWN   the set has not: it may be new, or forged; only the issuer knows
    REFUSED   the set says that it cannot be: unusable, for another algorithm, or ambiguous

SERVE and REFUSE answer at once. SERVE_AND_REFRESH answers at once and wakes the refresher. WAIT
wakes the refresher and waits for it, for a bounded time.
"""

from enum import StrEnum

from keycache.core.freshness import Freshness


class Age(StrEnum):
    """How old the key set in memory is."""

    ABSENT = "absent"
    FRESH = "fresh"
    DUE = "due"
    STALE = "stale"
    DEAD = "dead"


class Known(StrEnum):
    """What is known of the key."""

    FOUND = "found"
    NEGATIVE = "negative"
    UNKNOWN = "unknown"
    REFUSED = "refused"


class Decision(StrEnum):
    """What to do."""

    SERVE = "serve"
    SERVE_AND_REFRESH = "serve and refresh"
    WAIT = "wait"
    REFUSE = "refuse"


TABLE: dict[Age, dict[Known, Decision]] = {
    Age.ABSENT: dict.fromkeys(Known, Decision.WAIT),
    Age.FRESH: {
        Known.FOUND: Decision.SERVE,
        Known.NEGATIVE: Decision.REFUSE,
        Known.UNKNOWN: Decision.WAIT,
        Known.REFUSED: Decision.REFUSE,
    },
    Age.DUE: {
        Known.FOUND: Decision.SERVE_AND_REFRESH,
        Known.NEGATIVE: Decision.REFUSE,
        Known.UNKNOWN: Decision.WAIT,
        Known.REFUSED: Decision.REFUSE,
    },
    Age.STALE: {
        Known.FOUND: Decision.SERVE_AND_REFRESH,
        Known.NEGATIVE: Decision.REFUSE,
        Known.UNKNOWN: Decision.WAIT,
        Known.REFUSED: Decision.WAIT,
    },
    Age.DEAD: dict.fromkeys(Known, Decision.WAIT),
}


def age(freshness: Freshness | None, now: float) -> Age:
    """How old a key set is at `now`. A set from the future (a clock was set back) is STALE."""
    if freshness is None:
        return _ABSENT
    fetched_at, refresh_from, fresh_until, stale_until = freshness
    if now >= stale_until:
        return _DEAD
    if now >= fresh_until or now < fetched_at - MAX_SKEW:
        return _STALE
    return _DUE if now >= refresh_from else _FRESH


def decide(freshness: Freshness | None, known: Known, now: float) -> Decision:
    """Look the decision up."""
    return TABLE[age(freshness, now)][known]


# Found once: to find a member in its enumeration costs as much as all else here.
_ABSENT, _FRESH, _DUE, _STALE, _DEAD = Age

MAX_SKEW = 60.0
"""Seconds by which the clocks of two hosts may differ before a record's date is not believed."""
