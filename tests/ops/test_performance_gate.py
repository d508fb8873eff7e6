"""No hot path has become twice as slow: ratios to yardsticks in the same process, and no times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).parent.parent.parent / "ops" / "bench" / "gate.py"
Rows = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """In a process of its own, which no other test's objects and tracers slow down."""
    result = subprocess.run(
        [sys.executable, GATE, "--json"], check=True, capture_output=True, text=True, timeout=100
    )
    found: Rows = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    "path",
    [
        "a new RS256 token",
        "a new ES256 token",
        "a new token, but for its signature",
        "a known token",
        "a known token, counted",
        "a fact counted",
        "/verify, a known token",
        "/verify, a request again",
        "a rule of 200",
    ],
)
def test_path_is_not_twice_as_slow_as_it_was(rows: Rows, path: str) -> None:
    row = rows[path]

    assert row["ratio"] < row["limit"], f"typical is {row['typical']}"


def test_every_path_of_the_gate_is_judged(rows: Rows) -> None:
    assert 9 == len(rows)


def test_the_limits_would_notice_twice_the_time(rows: Rows) -> None:
    assert [] == [name for name, row in rows.items() if not row["limit"] < 1.7 * row["typical"]]
