"""What the tests of faults share: settings with which everything happens in seconds."""

from collections.abc import Iterator

import pytest

from app.demo.issuer import DemoIssuer

PATIENT = {"REDIS_CONNECT": 2, "REDIS_TIMEOUT": 2}
"""For tests that count fetches. Eight workers start at once: on a machine with fewer CPUs that does
other things besides, some would otherwise give Redis up before they have spoken to it, and ask the
issuer themselves.
"""

QUICK = {
    "TTL_MIN": 1,
    "POLL": 0.5,
    "LEASE": 1.5,
    "FETCH_CONNECT": 0.5,
    "FETCH_TIMEOUT": 1,
    "BUDGET_REFILL": 0.3,
    "BACKOFF_MIN": 0.1,
    "BACKOFF_MAX": 0.5,
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    """An issuer that every test of a file shares."""
    with DemoIssuer() as issuer:
        yield issuer
