"""Which facts are logged, and that the others cost nothing."""

import logging
from typing import Any

import pytest

from app.facts_log import FactsLog, together
from keycache.core.keys import SkipReason
from keycache.errors import FetchCode, RecordCode
from keycache.events import (
    Cause,
    Event,
    KeySetInstalled,
    NegativeKidsChanged,
    RecordRefused,
    RefreshFailed,
    RevocationsRead,
    SnapshotFailed,
    StoreChanged,
)

WEAK = SkipReason.WEAK_KEY


class Counts:
    """Hears look-ups and what becomes of the shared cache."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.hears: Any = {NegativeKidsChanged: self.heard.append, StoreChanged: self.heard.append}


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, object]]]:
    return [(each.levelname, each.getMessage(), each.__dict__["fields"]) for each in caplog.records]


@pytest.mark.parametrize(
    ("event", "level", "message", "fields"),
    [
        (
            RefreshFailed("i", Cause.COLD, FetchCode.TIMEOUT, "too slow", 5.0),
            "WARNING",
            "the keys could not be refreshed",
            {
                "issuer": "i",
                "cause": "cold",
                "code": "timeout",
                "details": "too slow",
                "seconds": 5.0,
            },
        ),
        (
            KeySetInstalled("i", 7, 3, (WEAK, WEAK), 1.0, 2.0, 3.0, 2, 1),
            "INFO",
            "the key set has changed",
            {
                "issuer": "i",
                "version": 7,
                "keys": 3,
                "added": 2,
                "removed": 1,
                "skipped": {"weak_key": 2},
            },
        ),
        (
            RecordRefused("i", RecordCode.SEAL),
            "WARNING",
            "a record in the shared cache was refused",
            {"issuer": "i", "code": "seal"},
        ),
        (
            SnapshotFailed("i", "disk full"),
            "WARNING",
            "the snapshot could not be read or written",
            {"issuer": "i", "details": "disk full"},
        ),
        (
            StoreChanged(up=False, details="time-out"),
            "WARNING",
            "the shared cache does not answer",
            {"details": "time-out"},
        ),
        (StoreChanged(up=True, details=""), "INFO", "the shared cache answers", {}),
        (
            RevocationsRead("i", 3, 2, 1.0),
            "INFO",
            "tokens were revoked",
            {"issuer": "i", "revoked": 3, "added": 2},
        ),
    ],
)
def test_fact_is_logged_with_what_it_says(
    caplog: pytest.LogCaptureFixture, event: Event, level: str, message: str, fields: object
) -> None:
    caplog.set_level(logging.INFO)
    together(Counts(), FactsLog())(event)
    assert [(level, message, fields)] == lines(caplog)


def test_refresh_that_changed_no_key_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    together(Counts(), FactsLog())(KeySetInstalled("i", 7, 3, (), 1.0, 2.0, 3.0, 0, 0))
    assert [] == lines(caplog)


def test_look_that_found_nothing_newly_revoked_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    together(Counts(), FactsLog())(RevocationsRead("i", 3, 0, 1.0))
    assert [] == lines(caplog)


def test_fact_that_both_hear_is_told_to_both(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    event = StoreChanged(up=False, details="time-out")
    together(counts, FactsLog())(event)
    assert ([event], 1) == (counts.heard, len(lines(caplog)))


def test_fact_that_only_one_hears_is_told_to_that_one() -> None:
    counts = Counts()
    together(counts, FactsLog())(NegativeKidsChanged("i", 1))
    assert [NegativeKidsChanged("i", 1)] == counts.heard
