"""Each fact is counted where it belongs."""

import asyncio
import gc
import math
from itertools import count
from typing import get_args

import pytest
import uvloop
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from keycache.core.keys import SkipReason
from keycache.errors import FetchCode, Reason, RecordCode, StoreCode
from keycache.events import (
    Cause,
    Event,
    Fetched,
    KeySetInstalled,
    LeaseAsked,
    LeaseOutcome,
    Path,
    RecordRefused,
    Refreshed,
    RefreshFailed,
    Refused,
    Rejected,
    Result,
    RevocationsRead,
    Staged,
    StoreAnswered,
    StoreFailed,
    Tier,
    Unverifiable,
    Verified,
)
from metrics import instruments
from metrics.labels import Stage
from metrics.observer import FLUSH_AFTER, PrometheusObserver, flush_all

_numbers = count()


@pytest.fixture
def issuer() -> str:
    """An issuer that no other test has counted for."""
    return f"issuer-{next(_numbers)}.example"


@pytest.fixture
def observer(issuer: str) -> PrometheusObserver:
    return PrometheusObserver([issuer])


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def known(issuer: str, tier: Tier = Tier.MEMORY) -> Verified:
    """A token was accepted with a key that this tier had."""
    return Verified(issuer, Path.MEMORY, 0.0001, tier)


def test_every_kind_of_fact_is_heard(observer: PrometheusObserver) -> None:
    assert set(get_args(Event)) == set(observer.hears)


def test_accepted_token_is_counted(observer: PrometheusObserver, issuer: str) -> None:
    observer(Verified(issuer, Path.CACHED, 0.000_007, Tier.TOKEN_CACHE))
    assert 1 == value("keycache_verifications_total", issuer=issuer, outcome="accepted")


def test_refused_token_is_counted_by_outcome_and_by_reason(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(Rejected(issuer, Reason.EXPIRED, Path.MEMORY, 0.0001))
    assert 1 == value("keycache_verifications_total", issuer=issuer, outcome="rejected")
    assert 1 == value("keycache_verification_failures_total", issuer=issuer, reason="expired")


def test_token_of_nobody_we_know_is_counted_under_unknown(observer: PrometheusObserver) -> None:
    labels = {"issuer": "unknown", "reason": "malformed"}
    before = value("keycache_verification_failures_total", **labels)
    observer(Rejected(None, Reason.MALFORMED, Path.MEMORY, 0.0001))
    assert before is not None
    assert before + 1 == value("keycache_verification_failures_total", **labels)


def test_token_that_cannot_be_decided_about_is_no_failure_of_the_token(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(Unverifiable(issuer, Path.WAITED, 1.5))
    failures = [
        value("keycache_verification_failures_total", issuer=issuer, reason=reason)
        for reason in Reason
    ]
    assert 1 == value("keycache_verifications_total", issuer=issuer, outcome="unavailable")
    assert [0] * len(Reason) == failures


@pytest.mark.parametrize(
    ("reason", "label"), [(Reason.NO_RULE, "no_rule"), (None, "temporarily_unavailable")]
)
def test_refused_request_is_counted_by_reason(
    observer: PrometheusObserver, reason: Reason | None, label: str
) -> None:
    before = value("keycache_refusals_total", reason=label)
    observer(Refused(reason))
    assert before is not None
    assert before + 1 == value("keycache_refusals_total", reason=label)


def test_lookup_is_counted_by_its_tier_whatever_became_of_the_token(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(Verified(issuer, Path.WAITED, 0.1, Tier.REDIS))
    observer(Rejected(issuer, Reason.EXPIRED, Path.MEMORY, 0.0001, Tier.MEMORY))
    observer(Rejected(issuer, Reason.UNKNOWN_KEY, Path.MEMORY, 0.0001, Tier.NEGATIVE))
    observer(Unverifiable(issuer, Path.WAITED, 0.1, Tier.REDIS))
    counted = {
        tier: value("keycache_lookups_total", issuer=issuer, tier=tier)
        for tier in ("memory", "negative", "redis", "token_cache")
    }
    assert {"memory": 1, "negative": 1, "redis": 2, "token_cache": 0} == counted


def test_token_for_which_no_key_was_looked_up_counts_as_no_lookup(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(Rejected(issuer, Reason.UNSUPPORTED_ALGORITHM, Path.MEMORY, 0.0001))
    observer(Unverifiable(issuer, Path.WAITED, 1.5))
    lookups = [value("keycache_lookups_total", issuer=issuer, tier=tier) for tier in Tier]
    assert [0] * len(Tier) == lookups


def test_refresh_is_counted_by_cause_and_result(observer: PrometheusObserver, issuer: str) -> None:
    observer(Refreshed(issuer, Cause.AHEAD, Result.NOT_MODIFIED, 0.1))
    labels = {"issuer": issuer, "cause": "ahead", "result": "not_modified"}
    assert 1 == value("keycache_refreshes_total", **labels)


def test_failed_refresh_is_counted_as_a_refresh_and_by_its_code(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(RefreshFailed(issuer, Cause.COLD, FetchCode.TIMEOUT, "too slow", 5.0))
    labels = {"issuer": issuer, "cause": "cold", "result": "failed"}
    assert 1 == value("keycache_refreshes_total", **labels)
    assert 1 == value("keycache_refresh_failures_total", issuer=issuer, code="timeout")


def test_fetch_is_counted_by_status(observer: PrometheusObserver, issuer: str) -> None:
    observer(Fetched(issuer, 503, 20, 0.1))
    assert 1 == value("keycache_jwks_fetches_total", issuer=issuer, status="5xx")


def test_what_is_revoked_and_when_that_was_read_are_shown(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(RevocationsRead(issuer, 3, 1, 1_700_000_000.0))
    assert 3 == value("keycache_revocations", issuer=issuer)
    read_at = value("keycache_revocations_read_timestamp_seconds", issuer=issuer)
    assert 1_700_000_000.0 == read_at


def test_skipped_keys_are_shown(observer: PrometheusObserver, issuer: str) -> None:
    weak, wrong = SkipReason.WEAK_KEY, SkipReason.WRONG_USE
    observer(KeySetInstalled(issuer, 7, 2, (weak, wrong, weak), 1.0, 2.0, 3.0, 2, 0))
    counts = {
        reason: value("keycache_keyset_skipped", issuer=issuer, reason=reason)
        for reason in SkipReason
    }
    assert dict.fromkeys(SkipReason, 0) | {weak: 2, wrong: 1} == counts


def test_stages_are_observed_each_under_its_name(observer: PrometheusObserver) -> None:
    name = "keycache_verification_stage_duration_seconds_sum"
    before = [value(name, stage=stage) or 0.0 for stage in Stage]
    observer(Staged(0.1, 0.2, 0.3, 0.4))
    after = [value(name, stage=stage) or 0.0 for stage in Stage]
    assert pytest.approx([0.1, 0.2, 0.3, 0.4]) == [
        b - a for a, b in zip(before, after, strict=True)
    ]


def test_stage_labels_are_the_fields_of_the_fact() -> None:
    assert tuple(Stage) == Staged._fields


def test_duration_of_a_refresh_is_observed_where_the_issuer_was_asked(
    observer: PrometheusObserver, issuer: str
) -> None:
    for result in Result:
        observer(Refreshed(issuer, Cause.AHEAD, result, 1.0))
    observer(RefreshFailed(issuer, Cause.AHEAD, FetchCode.TIMEOUT, "too slow", 5.0))
    seconds = value("keycache_refresh_duration_seconds_sum", issuer=issuer)
    assert (4, 8.0) == (value("keycache_refresh_duration_seconds_count", issuer=issuer), seconds)


def test_bytes_of_key_sets_are_added_up(observer: PrometheusObserver, issuer: str) -> None:
    observer(Fetched(issuer, 200, 2000, 0.1))
    observer(Fetched(issuer, 304, 0, 0.1))
    observer(Fetched(issuer, 200, 500, 0.1))
    assert 2500 == value("keycache_jwks_bytes_total", issuer=issuer)


def test_lease_is_counted_by_its_answer(observer: PrometheusObserver, issuer: str) -> None:
    observer(LeaseAsked(issuer, LeaseOutcome.HELD, None))
    assert 1 == value("keycache_lease_requests_total", issuer=issuer, outcome="held")


def test_budget_is_what_the_last_forced_refresh_left(
    observer: PrometheusObserver, issuer: str
) -> None:
    observer(LeaseAsked(issuer, LeaseOutcome.GRANTED, 1.25))
    observer(LeaseAsked(issuer, LeaseOutcome.GRANTED, None))
    assert 1.25 == value("keycache_forced_refresh_budget", issuer=issuer)


def test_redis_failure_is_counted_by_its_code(observer: PrometheusObserver) -> None:
    before = value("keycache_redis_errors_total", code="timeout")
    assert before is not None
    observer(StoreFailed(StoreCode.TIMEOUT, 0.5))
    assert before + 1 == value("keycache_redis_errors_total", code="timeout")


def test_redis_latency_is_that_of_answers(observer: PrometheusObserver) -> None:
    before = value("keycache_redis_duration_seconds_sum") or 0.0
    observer(StoreAnswered(0.25))
    observer(StoreFailed(StoreCode.TIMEOUT, 0.5))
    assert pytest.approx(0.25) == (value("keycache_redis_duration_seconds_sum") or 0.0) - before


def test_refused_record_is_counted_by_its_code(observer: PrometheusObserver, issuer: str) -> None:
    observer(RecordRefused(issuer, RecordCode.ROLLED_BACK))
    assert 1 == value("keycache_records_refused_total", issuer=issuer, code="rolled_back")


def test_unlisted_issuer_makes_no_series_of_its_own(observer: PrometheusObserver) -> None:
    observer(Verified("stranger.example", Path.MEMORY, 0.0001, Tier.MEMORY))
    observer(KeySetInstalled("stranger.example", 7, 2, (), 1.0, 2.0, 3.0, 2, 0))
    names = {
        sample.labels["issuer"]
        for family in REGISTRY.collect()
        for sample in family.samples
        if "issuer" in sample.labels
    }
    assert "stranger.example" not in names


async def test_many_facts_are_carried_over_together(
    observer: PrometheusObserver, issuer: str
) -> None:
    labels = {"issuer": issuer, "tier": "memory"}
    observer(known(issuer))
    observer(known(issuer))
    assert 0 == value("keycache_lookups_total", **labels)
    await asyncio.sleep(FLUSH_AFTER)  # timers run in their order: this one after the flush
    assert 2 == value("keycache_lookups_total", **labels)


async def test_fact_after_a_flush_is_carried_over_too(
    observer: PrometheusObserver, issuer: str
) -> None:
    labels = {"issuer": issuer, "tier": "memory"}
    observer(known(issuer))
    observer.flush()
    observer(known(issuer))
    await asyncio.sleep(FLUSH_AFTER)
    assert 2 == value("keycache_lookups_total", **labels)


async def test_fact_of_a_loop_that_has_ended_is_not_lost(
    observer: PrometheusObserver, issuer: str
) -> None:
    await asyncio.to_thread(asyncio.run, _report(observer, known(issuer, Tier.ISSUER)))
    flush_all()
    assert 1 == value("keycache_lookups_total", issuer=issuer, tier="issuer")


async def test_fact_told_to_an_observer_that_is_dropped_is_not_lost(issuer: str) -> None:
    PrometheusObserver([issuer])(known(issuer, Tier.REDIS))
    gc.collect()
    flush_all()
    assert 1 == value("keycache_lookups_total", issuer=issuer, tier="redis")


def test_loop_of_another_kind_that_has_ended_is_no_trouble(
    observer: PrometheusObserver, issuer: str
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_report(observer, known(issuer, Tier.ISSUER)))
    flush_all()
    assert 1 == value("keycache_lookups_total", issuer=issuer, tier="issuer")


async def _report(observer: PrometheusObserver, event: Event) -> None:
    observer(event)


async def test_durations_are_those_that_prometheus_client_itself_would_count(
    observer: PrometheusObserver, issuer: str
) -> None:
    """Also holds the private attributes that `add_observations` uses."""
    bounds = instruments.BUCKETS
    durations = [
        0.0,
        *bounds,
        *(math.nextafter(bound, 0) for bound in bounds),
        *(math.nextafter(bound, 9) for bound in bounds),
        60.0,
    ]
    reference = Histogram("reference", "One at a time.", buckets=bounds, registry=None)
    before = _durations(REGISTRY)
    for seconds in durations:
        reference.observe(seconds)
        observer(Verified(issuer, Path.WAITED, seconds, Tier.ISSUER))
    observer.flush()
    after = _durations(REGISTRY)
    expected = {
        (sample.name.removeprefix("reference"), sample.labels.get("le")): sample.value
        for family in reference.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert pytest.approx(expected) == {key: after[key] - before[key] for key in expected}


def _durations(registry: CollectorRegistry) -> dict[tuple[str, str | None], float]:
    name = "keycache_verification_duration_seconds"
    return {
        (sample.name.removeprefix(name), sample.labels.get("le")): sample.value
        for family in registry.collect()
        if family.name == name
        for sample in family.samples
        if sample.labels["path"] == "waited"
    }
