"""The bench of the rules runs and has a row for everything it is to tell; no time is judged."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "ops/bench/rules.py"


@pytest.fixture(scope="module")
def page() -> str:
    return subprocess.run(
        [sys.executable, BENCH, "--quick"], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    "row",
    [
        "a look into a dictionary",
        "the first rule",
        "the last rule",
        "no rule",
        "the last rule, a path with %20",
        "the last rule, a path with capitals",
        "the last rule, by regular expressions in turn",
        "the token is read",
        "the request is judged by the last rule, token and all",
    ],
)
def test_bench_measures_every_subject_at_every_number_of_rules(page: str, row: str) -> None:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {row} |")]

    assert 3 == len(re.findall(r"[0-9.e+-]+ × \([0-9.-]+ µs\)", line))


def test_bench_says_whether_the_figure_is_reached(page: str) -> None:
    assert 1 == page.count("| choosing among 200 rules: less than 3 µs |")
