"""keycache's facts → instruments: an Observer that counts.

Told of a fact for every token, it adds to plain numbers of its own, and carries them into the
instruments at most FLUSH_AFTER seconds later, all at once: to write each through
prometheus_client would cost more than finding the token in the token cache did. So a page made by
another process may be that much behind, and one made by this process never is. A killed process
takes what it counted in its last moment with it; no counter falls, for nobody had seen it.

Everything here happens in the thread of the event loop.
"""

import asyncio
import atexit
import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Histogram

from keycache.core.keys import SkipReason
from keycache.errors import FetchCode, Reason, RecordCode, StoreCode
from keycache.events import (
    Cause,
    Event,
    Fetched,
    KeySetInstalled,
    LeaseAsked,
    LeaseOutcome,
    NegativeKidsChanged,
    Path,
    RecordRefused,
    Refreshed,
    RefreshFailed,
    Refused,
    Rejected,
    Result,
    RevocationsRead,
    SnapshotFailed,
    Staged,
    StoreAnswered,
    StoreChanged,
    StoreFailed,
    Tier,
    Unverifiable,
    Verified,
    WaitersChanged,
)
from metrics import instruments, labels

FLUSH_AFTER = 0.1

_ACCEPTED, _REJECTED, _UNAVAILABLE = labels.Outcome
_BUCKETS = instruments.BUCKETS
_ASKED = frozenset((Result.FETCHED, Result.NOT_MODIFIED, Result.SUPERSEDED))

_Metric = TypeVar("_Metric", Counter, Histogram)


class _Children(Generic[_Metric]):
    """The children of one metric for closed lists of label values.

    All are made at once, so that each is on the page, at 0, before its first event: a rate over a
    series that begins at 1 misses that 1.
    """

    def __init__(self, metric: _Metric, *allowed: Iterable[str]) -> None:
        self._metric: _Metric = metric
        self._allowed = [frozenset(values) for values in allowed]
        self._children: Mapping[tuple[str, ...], _Metric] = {
            values: metric.labels(*values) for values in product(*self._allowed)
        }

    def __getitem__(self, values: tuple[str, ...]) -> _Metric:
        """The child for these values, in the order of the labels; an unlisted one is `other`."""
        child = self._children.get(values)
        if child is None:
            pairs = zip(values, self._allowed, strict=True)
            child = self._metric.labels(*(labels.known(value, listed) for value, listed in pairs))
        return child


_Fate = tuple[str, labels.Outcome, Reason | None, Path, Tier | None]
"""What becomes of tokens: the issuer, the outcome and its reason, the path, and the tier."""


class _Alike:
    """The tokens of one fate since the last flush: how many took how long, by bucket; seconds."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0


class PrometheusObserver:
    """Counts what happens to the tokens and keys of these issuers (configured names)."""

    def __init__(self, issuers: Iterable[str]) -> None:
        names = frozenset(issuers)
        senders = (*names, labels.UNKNOWN)
        self._issuers = names

        self._verifications = _Children(instruments.VERIFICATIONS, senders, labels.Outcome)
        self._failures = _Children(instruments.VERIFICATION_FAILURES, senders, Reason)
        reasons = (*Reason, labels.TEMPORARILY_UNAVAILABLE)
        self._refusals = _Children(instruments.REFUSALS, reasons)
        self._lookups = _Children(instruments.LOOKUPS, names, Tier)
        self._durations = _Children(instruments.VERIFICATION_DURATION, Path)
        stages = _Children(instruments.STAGE_DURATION, labels.Stage)
        self._stages = [stages[stage,] for stage in labels.Stage]
        self._refreshes = _Children(instruments.REFRESHES, names, Cause, Result)
        self._refresh_durations = _Children(instruments.REFRESH_DURATION, names)
        self._leases = _Children(instruments.LEASE_REQUESTS, names, LeaseOutcome)
        self._refresh_failures = _Children(instruments.REFRESH_FAILURES, names, FetchCode)
        self._fetches = _Children(instruments.JWKS_FETCHES, names, labels.STATUSES)
        self._bytes = _Children(instruments.JWKS_BYTES, names)
        self._redis_errors = _Children(instruments.REDIS_ERRORS, StoreCode)
        self._records = _Children(instruments.RECORDS_REFUSED, names, RecordCode)
        self._snapshot_failures = _Children(instruments.SNAPSHOT_FAILURES, names)
        for name in names:
            # No key set yet; a replaced worker may find its predecessor's numbers here.
            instruments.KEYSET_KEYS.labels(name).set(0)
            instruments.KEYSET_VERSION.labels(name).set(0)
            instruments.KEYSET_NEWEST.labels(name).set(0)
            for reason in SkipReason:
                instruments.KEYSET_SKIPPED.labels(name, reason).set(0)
            instruments.WAITERS.labels(name).set(0)
            instruments.NEGATIVE_KIDS.labels(name).set(0)
        instruments.WORKERS.set(1)
        instruments.BUILD_INFO.labels(_version(), platform.python_version()).set(1)

        # What happened since the last flush.
        self._news: dict[_Fate, _Alike] = {}
        self._refused: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

        self.hears: dict[type[Event], Callable[[Any], None]] = {
            Verified: self._verified,
            Staged: self._staged,
            Rejected: self._rejected,
            Unverifiable: self._unverifiable,
            Refused: self._was_refused,
            WaitersChanged: self._waiters_changed,
            NegativeKidsChanged: self._negative_kids_changed,
            LeaseAsked: self._lease_asked,
            Refreshed: self._refreshed,
            RefreshFailed: self._refresh_failed,
            Fetched: self._fetched,
            KeySetInstalled: self._installed,
            RecordRefused: self._record_refused,
            SnapshotFailed: self._snapshot_failed,
            RevocationsRead: self._revocations_read,
            StoreAnswered: self._store_answered,
            StoreFailed: self._store_failed,
            StoreChanged: self._store_changed,
        }

    def __call__(self, event: Event, /) -> None:
        """Count it."""
        self.hears[type(event)](event)

    def flush(self) -> None:
        """Carry everything counted so far into the instruments."""
        _behind.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        news, self._news = self._news, {}
        for (issuer, outcome, reason, path, tier), alike in news.items():
            count = sum(alike.counts)
            self._verifications[issuer, outcome].inc(count)
            if reason is not None:
                self._failures[issuer, reason].inc(count)
            if tier is not None:
                self._lookups[issuer, tier].inc(count)
            instruments.add_observations(self._durations[path,], alike.counts, alike.seconds)
        refused, self._refused = self._refused, {}
        for why, count in refused.items():
            self._refusals[why,].inc(count)

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop, no timer: a command, or a test
            self.flush()
        else:
            self._timer = loop.call_later(FLUSH_AFTER, self.flush)
            _behind.add(self)

    # The hot facts: one for each token.

    def _verified(self, event: Verified) -> None:
        self._note((event.issuer, _ACCEPTED, None, event.path, event.tier), event.seconds)

    def _rejected(self, event: Rejected) -> None:
        issuer = labels.UNKNOWN if event.issuer is None else event.issuer
        self._note((issuer, _REJECTED, event.reason, event.path, event.tier), event.seconds)

    def _unverifiable(self, event: Unverifiable) -> None:
        self._note((event.issuer, _UNAVAILABLE, None, event.path, event.tier), event.seconds)

    def _note(self, fate: _Fate, seconds: float) -> None:
        alike = self._news.get(fate)
        if alike is None:
            alike = self._news[fate] = _Alike()
        alike.counts[bisect_left(_BUCKETS, seconds)] += 1
        alike.seconds += seconds
        if self._timer is None:
            self._flush_soon()

    def _was_refused(self, event: Refused) -> None:
        why = labels.TEMPORARILY_UNAVAILABLE if event.reason is None else event.reason
        self._refused[why] = self._refused.get(why, 0) + 1
        if self._timer is None:
            self._flush_soon()

    # The rare ones: written through.

    def _staged(self, event: Staged) -> None:
        for stage, seconds in zip(self._stages, event, strict=True):
            stage.observe(seconds)

    def _waiters_changed(self, event: WaitersChanged) -> None:
        name = labels.known(event.issuer, self._issuers)
        instruments.WAITERS.labels(name).set(event.waiters)

    def _negative_kids_changed(self, event: NegativeKidsChanged) -> None:
        name = labels.known(event.issuer, self._issuers)
        instruments.NEGATIVE_KIDS.labels(name).set(event.kids)

    def _lease_asked(self, event: LeaseAsked) -> None:
        self._leases[event.issuer, event.outcome].inc()
        if event.budget_left is not None:
            name = labels.known(event.issuer, self._issuers)
            instruments.BUDGET_LEFT.labels(name).set(event.budget_left)

    def _refreshed(self, event: Refreshed) -> None:
        self._refreshes[event.issuer, event.cause, event.result].inc()
        if event.result in _ASKED:
            self._refresh_durations[event.issuer,].observe(event.seconds)

    def _refresh_failed(self, event: RefreshFailed) -> None:
        self._refreshes[event.issuer, event.cause, Result.FAILED].inc()
        self._refresh_failures[event.issuer, event.code].inc()
        self._refresh_durations[event.issuer,].observe(event.seconds)

    def _fetched(self, event: Fetched) -> None:
        self._fetches[event.issuer, labels.status(event.status)].inc()
        self._bytes[event.issuer,].inc(event.size)

    def _installed(self, event: KeySetInstalled) -> None:
        name = labels.known(event.issuer, self._issuers)
        instruments.KEYSET_FETCHED.labels(name).set(event.fetched_at)
        instruments.KEYSET_FRESH_UNTIL.labels(name).set(event.fresh_until)
        instruments.KEYSET_STALE_UNTIL.labels(name).set(event.stale_until)
        instruments.KEYSET_KEYS.labels(name).set(event.keys)
        instruments.KEYSET_VERSION.labels(name).set(event.version)
        instruments.KEYSET_NEWEST.labels(name).set(event.version)
        for reason in SkipReason:
            instruments.KEYSET_SKIPPED.labels(name, reason).set(event.skipped.count(reason))

    def _record_refused(self, event: RecordRefused) -> None:
        self._records[event.issuer, event.code].inc()

    def _snapshot_failed(self, event: SnapshotFailed) -> None:
        self._snapshot_failures[event.issuer,].inc()

    def _revocations_read(self, event: RevocationsRead) -> None:
        name = labels.known(event.issuer, self._issuers)
        instruments.REVOCATIONS.labels(name).set(event.revoked)
        instruments.REVOCATIONS_READ.labels(name).set(event.read_at)

    def _store_answered(self, event: StoreAnswered) -> None:
        instruments.REDIS_DURATION.observe(event.seconds)

    def _store_failed(self, event: StoreFailed) -> None:
        self._redis_errors[event.code,].inc()

    def _store_changed(self, event: StoreChanged) -> None:
        instruments.redis_up().set(event.up)


_behind: set[PrometheusObserver] = set()
"""The observers that have something to flush: kept alive until they have done so."""


def flush_all() -> None:
    """Carry what every observer of this process has counted into the instruments."""
    for observer in list(_behind):
        observer.flush()


# The last tenth of a second of a process that ends in peace. Children of multiprocessing that were
# forked end without atexit: they call flush_all themselves.
atexit.register(flush_all)


def _version() -> str:
    try:
        return version("sanic-keycache")
    except PackageNotFoundError:  # run from the source tree
        return labels.UNKNOWN
