"""keycache's facts → log lines: what an operator wants to read, and nothing about good tokens.

Refused tokens are logged where the request is known (`app.web.refusals`).
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from keycache.events import (
    Event,
    KeySetInstalled,
    Observer,
    RecordRefused,
    RefreshFailed,
    RevocationsRead,
    SnapshotFailed,
    StoreChanged,
)

logger = logging.getLogger("keycache.facts")

Hears = Mapping[type[Event], Callable[[Any], None]]


class Listener(Protocol):
    """Who hears some kinds of facts, each with a function of its own."""

    @property
    def hears(self) -> Hears:
        """What is called with which kind of fact."""
        ...


class FactsLog:
    """Logs refreshes that failed, keys that changed, tokens that were revoked, and a shared cache
    that comes and goes.
    """

    def __init__(self) -> None:
        self.hears: Hears = {
            RefreshFailed: _refresh_failed,
            KeySetInstalled: _installed,
            RecordRefused: _record_refused,
            SnapshotFailed: _snapshot_failed,
            RevocationsRead: _revocations_read,
            StoreChanged: _store_changed,
        }


def together(*listeners: Listener) -> Observer:
    """An Observer that tells each of them, in this order. A fact that only one of them hears costs
    one call, as before: the fact of an accepted token pays nothing for a log that does not want it.
    """
    hears: dict[type[Event], Callable[[Any], None]] = {}
    for listener in listeners:
        for kind, hear in listener.hears.items():
            hears[kind] = _both(hears[kind], hear) if kind in hears else hear

    def observe(event: Event, /) -> None:
        hear = hears.get(type(event))
        if hear is not None:
            hear(event)

    return observe


def _both(one: Callable[[Any], None], other: Callable[[Any], None]) -> Callable[[Any], None]:
    def hear(event: object) -> None:
        one(event)
        other(event)

    return hear


def _refresh_failed(event: RefreshFailed) -> None:
    _say(logging.WARNING, "the keys could not be refreshed", **event._asdict())


def _installed(event: KeySetInstalled) -> None:
    if event.added or event.removed:
        _say(
            logging.INFO,
            "the key set has changed",
            issuer=event.issuer,
            version=event.version,
            keys=event.keys,
            added=event.added,
            removed=event.removed,
            skipped=dict(Counter(map(str, event.skipped))),
        )


def _record_refused(event: RecordRefused) -> None:
    _say(logging.WARNING, "a record in the shared cache was refused", **event._asdict())


def _snapshot_failed(event: SnapshotFailed) -> None:
    _say(logging.WARNING, "the snapshot could not be read or written", **event._asdict())


def _revocations_read(event: RevocationsRead) -> None:
    if event.added:
        _say(
            logging.INFO,
            "tokens were revoked",
            issuer=event.issuer,
            revoked=event.revoked,
            added=event.added,
        )


def _store_changed(event: StoreChanged) -> None:
    if event.up:
        _say(logging.INFO, "the shared cache answers")
    else:
        _say(logging.WARNING, "the shared cache does not answer", details=event.details)


def _say(level: int, message: str, **fields: object) -> None:
    logger.log(level, message, extra={"fields": fields})
