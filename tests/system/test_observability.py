"""What the running service tells: its log, and its metrics while requests go on."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.service import Answer, Service, eventually, request

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(audience="api") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def service(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("service") / "log"
    settings = {"ISSUER": issuer.url, "AUDIENCE": "api", "WORKERS": 1, "LOG_CLAIMS": "sub"}
    with Service(log, settings) as service:
        service.wait_until_ready()
        eventually(lambda: request(service.admin, "/readyz").status == 200, 10)
        yield service


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log().splitlines()]


def test_refusal_is_a_line_of_json_that_the_answer_points_to(
    service: Service, issuer: DemoIssuer
) -> None:
    token = issuer.mint(exp=1)
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    answer = request(service.url, "/verify", token, traceparent=parent)
    wanted = answer.headers["x-request-id"]
    eventually(lambda: any(line.get("request_id") == wanted for line in lines(service)), 5)
    (line,) = [line for line in lines(service) if line.get("request_id") == wanted]
    assert ("refused", "expired", 401) == (line["message"], line["reason"], line["status"])
    assert ("verify", TRACE) == (line["route"].strip("/"), line["trace_id"])
    assert ["sub"] == list(line["token_says"])


def test_accepted_token_leaves_no_line_and_no_token_is_ever_logged(
    service: Service, issuer: DemoIssuer
) -> None:
    good, bad = issuer.mint(), issuer.mint(exp=1)
    before = len(lines(service))
    assert 200 == request(service.url, "/verify", good).status
    after = len(lines(service))
    request(service.url, f"/verify?access_token={bad}", bad, **{"X-Request-ID": bad[-64:]})
    request(service.url, "/verify", f"{bad} {bad}")
    request(service.admin, f"/nowhere/{bad}", bad)
    pieces = {token[start : start + 20] for token in (good, bad) for start in range(40, 400, 5)}
    assert before == after
    assert [] == [piece for piece in pieces if len(piece) == 20 and piece in service.log()]


def test_page_is_compressed_and_in_openmetrics_for_who_asks(service: Service) -> None:
    answer = request(
        service.admin,
        "/metrics",
        **{"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"},
    )
    assert (200, "gzip") == (answer.status, answer.headers["content-encoding"])
    assert answer.headers["content-type"].startswith("application/openmetrics-text")


def test_facts_of_a_real_fetch_are_on_the_page(service: Service) -> None:
    one = {
        name: service.metric(f"keycache_{name}") > 0
        for name in (
            "jwks_bytes_total",
            "refresh_duration_seconds_count",
            "lease_requests_total",
            "redis_duration_seconds_count",
            "keyset_seconds_until_stale",
            "keyset_seconds_until_refusal",
            "verification_stage_duration_seconds_count",
            "workers",
        )
    }
    assert dict.fromkeys(one, True) == one
    assert 0 == service.metric("keycache_keyset_version_skew")


def test_request_is_answered_while_a_page_is_made(service: Service, issuer: DemoIssuer) -> None:
    """With one worker, and a page that takes long, since it is over the files of hundreds."""
    token = issuer.mint()
    copies = [
        shutil.copy(file, file.with_name(file.name.replace("worker-0", f"worker-{slot}")))
        for file in metrics_files(service)
        for slot in range(1000, 1400)
    ]
    pages: list[tuple[float, Answer]] = []

    def scrape() -> None:
        answer = request(service.admin, "/metrics")
        pages.append((time.monotonic(), answer))

    try:
        started = time.monotonic()
        scraper = threading.Thread(target=scrape)
        scraper.start()
        answered = []
        while scraper.is_alive():
            assert 200 == request(service.url, "/verify", token).status
            answered.append(time.monotonic())
        scraper.join()
    finally:
        for copy in copies:
            Path(copy).unlink()
    [(finished, page)] = pages
    assert 200 == page.status
    middle = [at for at in answered if started + 0.1 * (finished - started) < at < finished]
    assert len(middle) >= 5, f"{len(middle)} requests in {finished - started:.2f} s"


def metrics_files(service: Service) -> set[Path]:
    """The counters and histograms that the workers have open."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):  # no process, not ours, or gone by now
            if os.getpgid(int(entry.name)) == service.process.pid:
                found |= {each.readlink() for each in (entry / "fd").iterdir()}
    return {file for file in found if file.name in ("counter_worker-0.db", "histogram_worker-0.db")}
