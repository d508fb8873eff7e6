"""keycache's facts → instruments: an Observer that counts.

Told of two or three facts for every request, it adds to plain numbers of its own, and carries them
into the instruments at most FLUSH_AFTER seconds later, all at once: to write each through
prometheus_client would cost more than finding the token in the token cache did. So a page made by
another process may be that much behind, and one made by this process never is. A killed process
takes what it counted in its last moment with it; no counter falls, for nobody had seen it.

Everything here happens in the thread of the event loop.
"""

import asyncio
import atexit
import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Histogram

from keycache.errors import FetchCode, Reason, RecordCode
from keycache.events import (
    Cause,
    Event,
    Fetched,
    KeySetInstalled,
    LookedUp,
    Path,
    RecordRefused,
    Refreshed,
    RefreshFailed,
    Rejected,
    Result,
    SnapshotFailed,
    StoreChanged,
    Tier,
    Unverifiable,
    Verified,
)
from metrics import instruments, labels

FLUSH_AFTER = 0.1

_ACCEPTED, _REJECTED, _UNAVAILABLE = labels.Outcome
_BUCKETS = instruments.BUCKETS

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


class PrometheusObserver:
    """Counts what happens to the tokens and keys of these issuers (configured names)."""

    def __init__(self, issuers: Iterable[str]) -> None:
        names = frozenset(issuers)
        senders = (*names, labels.UNKNOWN)
        self._issuers = names

        self._verifications = _Children(instruments.VERIFICATIONS, senders, labels.Outcome)
        self._failures = _Children(instruments.VERIFICATION_FAILURES, senders, Reason)
        self._lookups = _Children(instruments.LOOKUPS, names, Tier)
        self._durations = _Children(instruments.VERIFICATION_DURATION, Path)
        self._refreshes = _Children(instruments.REFRESHES, names, Cause, Result)
        self._refresh_failures = _Children(instruments.REFRESH_FAILURES, names, FetchCode)
        self._fetches = _Children(instruments.JWKS_FETCHES, names, labels.STATUSES)
        self._records = _Children(instruments.RECORDS_REFUSED, names, RecordCode)
        self._snapshot_failures = _Children(instruments.SNAPSHOT_FAILURES, names)
        for name in names:
            # No key set yet; a replaced worker may find its predecessor's numbers here.
            instruments.KEYSET_KEYS.labels(name).set(0)
            instruments.KEYSET_VERSION.labels(name).set(0)
            instruments.KEYSET_SKIPPED.labels(name).set(0)
        instruments.BUILD_INFO.labels(_version(), platform.python_version()).set(1)

        # What happened since the last flush.
        self._new_verifications: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._new_failures: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._new_lookups: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._new_counts = {path: [0] * (len(_BUCKETS) + 1) for path in Path}
        self._new_seconds = dict.fromkeys(Path, 0.0)
        self._timer: asyncio.TimerHandle | None = None

        self._hear: dict[type[Event], Callable[[Any], None]] = {
            Verified: self._verified,
            Rejected: self._rejected,
            Unverifiable: self._unverifiable,
            LookedUp: self._looked_up,
            Refreshed: self._refreshed,
            RefreshFailed: self._refresh_failed,
            Fetched: self._fetched,
            KeySetInstalled: self._installed,
            RecordRefused: self._record_refused,
            SnapshotFailed: self._snapshot_failed,
            StoreChanged: self._store_changed,
        }

    def __call__(self, event: Event, /) -> None:
        """Count it."""
        self._hear[type(event)](event)

    def flush(self) -> None:
        """Carry everything counted so far into the instruments."""
        _behind.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for children, news in (
            (self._verifications, self._new_verifications),
            (self._failures, self._new_failures),
            (self._lookups, self._new_lookups),
        ):
            for values, count in news.items():
                children[values].inc(count)
            news.clear()
        for path, counts in self._new_counts.items():
            if any(counts):
                total = self._new_seconds[path]
                instruments.add_observations(self._durations[path,], counts, total)
                self._new_counts[path] = [0] * len(counts)
                self._new_seconds[path] = 0.0

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop, no timer: a command, or a test
            self.flush()
        else:
            self._timer = loop.call_later(FLUSH_AFTER, self.flush)
            _behind.add(self)

    # The hot facts: a few for each request.

    def _verified(self, event: Verified) -> None:
        issuer, path, seconds = event
        self._new_verifications[issuer, _ACCEPTED] += 1
        self._new_counts[path][bisect_left(_BUCKETS, seconds)] += 1
        self._new_seconds[path] += seconds
        if self._timer is None:
            self._flush_soon()

    def _looked_up(self, event: LookedUp) -> None:
        self._new_lookups[event] += 1
        if self._timer is None:
            self._flush_soon()

    def _rejected(self, event: Rejected) -> None:
        issuer = labels.UNKNOWN if event.issuer is None else event.issuer
        self._new_failures[issuer, event.reason] += 1
        self._turned_away(issuer, _REJECTED, event.path, event.seconds)

    def _unverifiable(self, event: Unverifiable) -> None:
        self._turned_away(event.issuer, _UNAVAILABLE, event.path, event.seconds)

    def _turned_away(
        self, issuer: str, outcome: labels.Outcome, path: Path, seconds: float
    ) -> None:
        self._new_verifications[issuer, outcome] += 1
        self._new_counts[path][bisect_left(_BUCKETS, seconds)] += 1
        self._new_seconds[path] += seconds
        if self._timer is None:
            self._flush_soon()

    # The rare ones: written through.

    def _refreshed(self, event: Refreshed) -> None:
        self._refreshes[event.issuer, event.cause, event.result].inc()

    def _refresh_failed(self, event: RefreshFailed) -> None:
        self._refreshes[event.issuer, event.cause, Result.FAILED].inc()
        self._refresh_failures[event.issuer, event.code].inc()

    def _fetched(self, event: Fetched) -> None:
        self._fetches[event.issuer, labels.status(event.status)].inc()

    def _installed(self, event: KeySetInstalled) -> None:
        name = labels.known(event.issuer, self._issuers)
        instruments.KEYSET_FETCHED.labels(name).set(event.fetched_at)
        instruments.KEYSET_KEYS.labels(name).set(event.keys)
        instruments.KEYSET_VERSION.labels(name).set(event.version)
        instruments.KEYSET_SKIPPED.labels(name).set(len(event.skipped))

    def _record_refused(self, event: RecordRefused) -> None:
        self._records[event.issuer, event.code].inc()

    def _snapshot_failed(self, event: SnapshotFailed) -> None:
        self._snapshot_failures[event.issuer,].inc()

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
