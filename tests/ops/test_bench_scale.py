"""The bench of growth runs, and its calculation is what a small fleet costs; no time is judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs

pytestmark = pytest.mark.timeout(300)  # a dozen servers are started
BENCH = Path(__file__).parent.parent.parent / "ops" / "bench" / "scale.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The page and the raw samples of one quick run."""
    samples = tmp_path_factory.mktemp("bench") / "samples.json"
    needs("apt-get", "the bench takes its load generator from Debian")
    result = subprocess.run(
        [sys.executable, BENCH, "--quick", "--json", samples],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == result.returncode, result.stderr
    return result.stdout, json.loads(samples.read_text())


def test_a_start_beside_a_warm_redis_asks_the_issuer_for_nothing(run: tuple[str, Any]) -> None:
    assert 0 == run[1]["worker"]["fetches"]


def test_every_number_of_issuers_and_tokens_is_measured(run: tuple[str, Any]) -> None:
    names = ("issuers", "tokens", "differing")
    measured = {tuple(row[name] for name in names) for row in run[1]["flat"]}

    assert {(10, 50, False), (1, 100, False), (1, 100, True)} == measured


def test_a_fleet_asks_the_issuer_no_more_than_one_worker(run: tuple[str, Any]) -> None:
    one, several = run[1]["fleet"]

    assert abs(several["fetches"] - one["fetches"]) <= 1


@pytest.mark.parametrize(
    "row",
    ["JWTAuth", "/verify", "| 10,000 ", "a worker beside a warm Redis is ready at most 150 ms"],
)
def test_the_page_has_a_row_for_it(run: tuple[str, Any], row: str) -> None:
    assert row in run[0]
