"""The bench of the verifier runs and has a row for everything it is to tell; no time is judged."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "ops/bench/verify.py"


@pytest.fixture(scope="module")
def page() -> str:
    return subprocess.run(
        [sys.executable, BENCH, "--quick"], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    "row",
    [
        "RS256, cold: at most 1.35 × bare",
        "EdDSA, cached, metrics included: at most 1/20 of PyJWT",
        "ES256, the dearest forgery: at most 1 × an accepted token",
        "200 cached tokens: at most 0.4 MiB",
        "bare signature check",
        "that, base64 and JSON, nothing judged",
        "keycache, token not seen before",
        "keycache, token seen before, metrics included",
        "PyJWT",
        "joserfc",
        "claims altered",
        "claims altered, large",
        "no token at all",
    ],
)
def test_bench_measures_every_subject(page: str, row: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith(f"| {row} ")]

    assert 1 == len(rows)
    assert "–" not in rows[0]
