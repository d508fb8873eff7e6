"""Every metric: its name, its help, its labels, its buckets.

Import this only after `multiproc_dir.use` (see there), or without it, for one process in memory.

A gauge has one value a worker and the page shows one for all of them: the worst, so that a single
worker left behind is seen. Gauges vanish with their worker, counters and histograms stay.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import prometheus_client.values
from prometheus_client import Counter, Gauge, Histogram

from metrics import multiproc_dir

_identifier = multiproc_dir.identifier()
if _identifier is not None:
    # The class of every value made from here on; before the first metric, or it would be too late.
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=lambda: _identifier
    )

# A cached token takes 2 to 20 µs, a known key 30 to 500 µs, a wait for a refresh 10 ms to 1.5 s.
BUCKETS = (
    *(5e-6, 10e-6, 20e-6, 30e-6, 50e-6, 75e-6),
    *(100e-6, 200e-6, 300e-6, 500e-6, 750e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3),
    *(0.1, 0.25, 0.5, 1.0, 1.5, 2.5),
)

# A stage is a part of that; Redis and the issuer are networks, with deadlines of seconds.
STAGE_BUCKETS = (
    *(1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 5e-3, 25e-3, 0.1, 0.5, 1.5),
)
REDIS_BUCKETS = (100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.75)
REFRESH_BUCKETS = (5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

VERIFICATIONS = Counter(
    "keycache_verifications_total",
    "Tokens presented, by what became of them.",
    ("issuer", "outcome"),
)
VERIFICATION_FAILURES = Counter(
    "keycache_verification_failures_total",
    "Tokens refused, by reason.",
    ("issuer", "reason"),
)
REFUSALS = Counter(
    "keycache_refusals_total",
    "Requests refused, by reason: for their token, for what it allows, or for themselves.",
    ("reason",),
)
VERIFICATION_DURATION = Histogram(
    "keycache_verification_duration_seconds",
    "Time from a token to the decision about it, by how far that had to go.",
    ("path",),
    buckets=BUCKETS,
)
STAGE_DURATION = Histogram(
    "keycache_verification_stage_duration_seconds",
    "Time in each stage of one in 64 accepted tokens that were not in the token cache.",
    ("stage",),
    buckets=STAGE_BUCKETS,
)
LOOKUPS = Counter(
    "keycache_lookups_total",
    "Tokens and keys looked up, by the tier that had the answer.",
    ("issuer", "tier"),
)
REFRESHES = Counter(
    "keycache_refreshes_total",
    "Refreshes of a key set, by why they were wanted and how they ended.",
    ("issuer", "cause", "result"),
)
REFRESH_DURATION = Histogram(
    "keycache_refresh_duration_seconds",
    "Time of refreshes that asked the issuer, failed ones included.",
    ("issuer",),
    buckets=REFRESH_BUCKETS,
)
REFRESH_FAILURES = Counter(
    "keycache_refresh_failures_total",
    "Refreshes that failed, by what was wrong with the issuer or its answer.",
    ("issuer", "code"),
)
JWKS_FETCHES = Counter(
    "keycache_jwks_fetches_total",
    "HTTP requests for a key set, by the status of the answer (none: no answer).",
    ("issuer", "status"),
)
JWKS_BYTES = Counter(
    "keycache_jwks_bytes_total",
    "Bytes that issuers sent as key sets.",
    ("issuer",),
)
LEASE_REQUESTS = Counter(
    "keycache_lease_requests_total",
    "Times a worker asked for the right to fetch, by the answer.",
    ("issuer", "outcome"),
)
BUDGET_LEFT = Gauge(
    "keycache_forced_refresh_budget",
    "Forced refreshes the fleet had left after the last one was asked for; it refills since then.",
    ("issuer",),
    multiprocess_mode="livemostrecent",
)
WAITERS = Gauge(
    "keycache_waiters",
    "Requests that wait for an issuer's keys now, in all workers.",
    ("issuer",),
    multiprocess_mode="livesum",
)
NEGATIVE_KIDS = Gauge(
    "keycache_negative_kids",
    "Kids remembered as unknown to the issuer; of the worker that remembers most.",
    ("issuer",),
    multiprocess_mode="livemax",
)
REDIS_DURATION = Histogram(
    "keycache_redis_duration_seconds",
    "Time of calls to the shared cache that it answered.",
    buckets=REDIS_BUCKETS,
)
REDIS_ERRORS = Counter(
    "keycache_redis_errors_total",
    "Calls to the shared cache that failed, by how.",
    ("code",),
)
RECORDS_REFUSED = Counter(
    "keycache_records_refused_total",
    "Records in the shared cache that were not accepted, by why.",
    ("issuer", "code"),
)
SNAPSHOT_FAILURES = Counter(
    "keycache_snapshot_failures_total",
    "Times the snapshot on this host's disk could not be read or written.",
    ("issuer",),
)
REVOCATIONS = Gauge(
    "keycache_revocations",
    "Revocations in force (`keycache revoke --list`); of the worker that knows the fewest.",
    ("issuer",),
    multiprocess_mode="livemin",
)
REVOCATIONS_READ = Gauge(
    "keycache_revocations_read_timestamp_seconds",
    "When the list of revoked tokens was read last, in seconds since the epoch; the earliest.",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_FETCHED = Gauge(
    "keycache_keyset_fetched_timestamp_seconds",
    "When the key set in use was fetched from its issuer, in seconds since the epoch.",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_FRESH_UNTIL = Gauge(
    "keycache_keyset_fresh_until_timestamp_seconds",
    "When the key set in use becomes stale, in seconds since the epoch; the earliest.",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_STALE_UNTIL = Gauge(
    "keycache_keyset_stale_until_timestamp_seconds",
    "When the key set in use may no longer be used, in seconds since the epoch; the earliest.",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_KEYS = Gauge(
    "keycache_keyset_keys",
    "Usable keys held; of the worker that holds the fewest.",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_VERSION = Gauge(
    "keycache_keyset_version",
    "Version of the key set in use; of the worker with the oldest one (0: it holds none).",
    ("issuer",),
    multiprocess_mode="livemin",
)
KEYSET_NEWEST = Gauge(
    "keycache_keyset_newest_version",
    "Version of the key set in use; of the worker with the newest one.",
    ("issuer",),
    multiprocess_mode="livemax",
)
KEYSET_SKIPPED = Gauge(
    "keycache_keyset_skipped",
    "Keys in the set that cannot be used, by why (`keycache keys` lists them).",
    ("issuer", "reason"),
    multiprocess_mode="livemax",
)
WORKERS = Gauge(
    "keycache_workers",
    "Worker processes that live now.",
    multiprocess_mode="livesum",
)
BUILD_INFO = Gauge(
    "keycache_build_info",
    "Always 1; the labels say which versions run.",
    ("version", "python"),
    multiprocess_mode="livemax",
)


class Derived(NamedTuple):
    """A gauge with the label issuer that is worked out at the moment a page is made, since its
    value moves while nobody writes."""

    name: str
    text: str


KEYSET_AGE = Derived(
    "keycache_keyset_age_seconds",
    "Time since the key set in use was fetched; of the worker with the oldest one.",
)
KEYSET_UNTIL_STALE = Derived(
    "keycache_keyset_seconds_until_stale",
    "Time until the key set in use is stale (negative: since then); the least.",
)
KEYSET_UNTIL_REFUSAL = Derived(
    "keycache_keyset_seconds_until_refusal",
    "Time until the key set in use is too old and tokens get 503 (negative: since); the least.",
)
KEYSET_SKEW = Derived(
    "keycache_keyset_version_skew",
    "The newest version in use less the oldest, in ms: more than 0 while a worker is behind.",
)
REVOCATIONS_AGE = Derived(
    "keycache_revocations_age_seconds",
    "Time since the list of revoked tokens was read; of the worker that read it longest ago.",
)

WORKER_RESTARTS = (
    "keycache_worker_restarts_total",
    "Workers that were replaced because they had died.",
)
"""Name, help. The supervisor counts these (`multiproc_dir.count_restart`)."""


@cache
def redis_up() -> Gauge:
    """The gauge keycache_redis_up.

    Made on first use: without labels it says 0 as soon as it exists, and a worker that has not
    asked yet, or shares its keys with nobody, would report a Redis that is down.
    """
    return Gauge(
        "keycache_redis_up",
        "Whether the shared cache can be reached: 1, or 0 when one worker cannot.",
        multiprocess_mode="livemin",
    )


def add_observations(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations to a child of VERIFICATION_DURATION at once.

    `counts` has one number for each of BUCKETS and one more for those above the last; `total` is
    the sum of all observations in seconds.

    prometheus_client itself adds one at a time, searching the buckets from below and taking two
    locks. The two private attributes used here instead are pinned by a test.
    """
    histogram._sum.inc(total)  # noqa: SLF001 (see above)
    for bucket, count in zip(histogram._buckets, counts, strict=True):  # noqa: SLF001
        if count:
            bucket.inc(count)
