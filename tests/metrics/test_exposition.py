"""The page, in the format that the reader asks for."""

import gzip

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from keycache.events import KeySetInstalled, Path, RevocationsRead, Tier, Verified
from metrics import exposition
from metrics.observer import PrometheusObserver
from tests.metrics.conftest import samples

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, exposition.TEXT),
        ("", exposition.TEXT),
        ("*/*", exposition.TEXT),
        (PROMETHEUS, exposition.OPENMETRICS),
        ("application/openmetrics-text", exposition.OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0", exposition.OPENMETRICS),
        ("application/openmetrics-text;q=0", exposition.TEXT),
        ("text/plain, application/openmetrics-text;q=0.5", exposition.TEXT),
        ("application/openmetrics-text;q=zero", exposition.TEXT),
        ("application/openmetrics-text;q=nan", exposition.TEXT),
        (";,;q=,=", exposition.TEXT),
    ],
)
def test_format_is_the_one_preferred(accept: str | None, content_type: str) -> None:
    assert content_type == exposition.page(accept)[1]


def test_text_page_can_be_parsed() -> None:
    body, _ = exposition.page(None)
    assert "keycache_verifications" in {family.name for family in parse_text(body.decode())}


def test_openmetrics_page_can_be_parsed_and_has_the_same_metrics() -> None:
    openmetrics, _ = exposition.page("application/openmetrics-text")
    text, _ = exposition.page(None)
    names = {family.name for family in parse_openmetrics(openmetrics.decode())}  # type: ignore[no-untyped-call]
    ours = {name for name in names if name.startswith("keycache_")}
    assert ours <= {family.name for family in parse_text(text.decode())}


def test_single_process_needs_no_directory() -> None:
    observer = PrometheusObserver(["alone.example"])
    observer(Verified("alone.example", Path.MEMORY, 0.0001, Tier.MEMORY))
    page = samples(exposition.page(None)[0].decode())
    assert 1 == page["keycache_lookups_total{issuer=alone.example,tier=memory}"]


async def test_page_holds_what_was_counted_a_moment_ago() -> None:
    observer = PrometheusObserver(["moment.example"])
    observer(Verified("moment.example", Path.MEMORY, 0.0001, Tier.MEMORY))
    page = samples(exposition.page(None)[0].decode())
    assert 1 == page["keycache_lookups_total{issuer=moment.example,tier=memory}"]


def test_age_is_right_at_the_moment_of_asking() -> None:
    observer = PrometheusObserver(["aged.example"])
    observer(KeySetInstalled("aged.example", 1, 1, (), 1000.0, 1300.0, 4900.0, 1, 0))
    ages = [
        samples(exposition.page(None, now=now)[0].decode())[
            "keycache_keyset_age_seconds{issuer=aged.example}"
        ]
        for now in (1000.0, 1012.5, 990.0)
    ]
    assert [0.0, 12.5, 0.0] == ages


def test_age_of_what_is_known_to_be_revoked_is_right_at_the_moment_of_asking() -> None:
    observer = PrometheusObserver(["revoked.example"])
    observer(RevocationsRead("revoked.example", 3, 0, 1000.0))
    page = samples(exposition.page(None, now=1012.5)[0].decode())
    assert 12.5 == page["keycache_revocations_age_seconds{issuer=revoked.example}"]


def test_times_left_are_right_at_the_moment_of_asking() -> None:
    observer = PrometheusObserver(["left.example"])
    observer(KeySetInstalled("left.example", 1, 1, (), 1000.0, 1300.0, 4900.0, 1, 0))
    page = samples(exposition.page(None, now=1400.0)[0].decode())
    left = [
        page[f"keycache_keyset_seconds_until_{what}{{issuer=left.example}}"]
        for what in ("stale", "refusal")
    ]
    assert [-100.0, 3500.0] == left


@pytest.mark.parametrize("accept", ["gzip", "deflate, gzip;q=0.5", "GZIP"])
def test_page_is_compressed_for_who_accepts_that(accept: str) -> None:
    body, headers = exposition.encode(b"page" * 100, accept)
    assert (b"page" * 100, "gzip") == (gzip.decompress(body), headers["content-encoding"])


@pytest.mark.parametrize("accept", [None, "", "identity", "deflate", "gzip;q=0", "br"])
def test_page_is_sent_as_it_is_to_everybody_else(accept: str | None) -> None:
    assert (b"page", {"vary": "accept, accept-encoding"}) == exposition.encode(b"page", accept)


def test_every_metric_has_help() -> None:
    body, _ = exposition.page(None)
    families = [family for family in parse_text(body.decode()) if "keycache_" in family.name]
    assert families
    assert [] == [family.name for family in families if len(family.documentation) < 15]


def test_nobody_counts_restarts_without_a_directory() -> None:
    assert "keycache_worker_restarts_total{}" not in samples(exposition.page(None)[0].decode())
