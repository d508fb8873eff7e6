"""The fleet bench runs, and its counts of ours that are exact by design are what they must be."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Any]:
    """Exit code, what was printed, and the raw samples of one quick run of ours."""
    samples = tmp_path_factory.mktemp("bench") / "samples.json"
    result = subprocess.run(
        [
            *(sys.executable, ROOT / "ops" / "bench" / "fleet.py"),
            *("--quick", "--only", "ours", "--json", samples),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert samples.exists(), result.stderr
    return result.returncode, result.stdout, json.loads(samples.read_text())


@pytest.mark.parametrize("case", ["cold", "expiring", "expired_slow", "rotated", "processes"])
def test_eight_workers_fetch_once(run: tuple[int, str, Any], case: str) -> None:
    assert 1 == run[2]["cases"]["ours"][case]["fetches"]


@pytest.mark.parametrize("case", ["forged_up", "forged_503"])
def test_fifty_forged_kids_cost_at_most_two_fetches(run: tuple[int, str, Any], case: str) -> None:
    found = run[2]["cases"]["ours"][case]

    assert (True, 0) == (1 <= found["fetches"] <= 2, found["accepted"])


@pytest.mark.parametrize("case", ["forged_up", "forged_503"])
def test_no_good_token_waits_while_kids_are_forged(run: tuple[int, str, Any], case: str) -> None:
    found = run[2]["cases"]["ours"][case]

    assert (True, 0) == (found["good"] > 0, found["waited"])


@pytest.mark.parametrize("case", ["cold", "expired_503", "expired_slow", "rotated", "processes"])
def test_every_good_token_is_accepted(run: tuple[int, str, Any], case: str) -> None:
    found = run[2]["cases"]["ours"][case]

    assert found["asked"] == found["accepted"]


def test_the_bench_itself_finds_nothing_missed(run: tuple[int, str, Any]) -> None:
    assert (0, False) == (run[0], "MISSED" in run[1])
