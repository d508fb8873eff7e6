"""The bench beside others runs, and its page says what was measured; no time is judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs

pytestmark = pytest.mark.timeout(300)  # the first run installs the load generator
ROOT = Path(__file__).parent.parent.parent
BENCH = ROOT / "ops" / "bench" / "peers.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The page and the raw samples of a quick run of `/verify` and Envoy, with their bare ones."""
    samples = tmp_path_factory.mktemp("bench") / "samples.json"
    needs("apt-get", "the bench takes its load generator from Debian")
    result = subprocess.run(
        [
            *(sys.executable, BENCH, "--quick", "--only", "keycache: /verify"),
            *("--only", "Envoy jwt_authn, token cache", "--json", samples),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == result.returncode, result.stderr
    return result.stdout, json.loads(samples.read_text())


def test_nobody_is_missing(run: tuple[str, Any]) -> None:
    assert {} == run[1]["missing"]


def test_all_bad_tokens_are_refused_before_anything_is_measured(run: tuple[str, Any]) -> None:
    assert {401} == set(run[1]["statuses"]["keycache: /verify"].values())


@pytest.mark.parametrize("cell", ["RS256 hot", "RS256 new"])
def test_every_figure_is_there(run: tuple[str, Any], cell: str) -> None:
    (sample,) = run[1]["samples"]["keycache: /verify"][cell]
    figures = ("requests", "per_second", "p50", "p99", "p999", "cpu", "load_cpu", "rss")

    assert [] == [name for name in figures if not sample[name] > 0]


def test_a_bare_server_is_measured_beside_each(run: tuple[str, Any]) -> None:
    assert ["RS256 hot"] == list(run[1]["samples"]["Sanic"])


def test_a_token_cache_fetches_no_keys_under_load(run: tuple[str, Any]) -> None:
    (sample,) = run[1]["samples"]["keycache: /verify"]["RS256 hot"]

    assert 0 == sample["fetches"]


@pytest.mark.parametrize(
    "row",
    [
        "/verify, hot: at most 40 µs",
        "/verify, hot: p99 at most bare Sanic's",
        "**keycache: /verify**",
        "*Sanic, bare*",
        "/verify, RS256 new: at most Envoy jwt_authn, token cache",
    ],
)
def test_the_page_has_a_row_for_it(run: tuple[str, Any], row: str) -> None:
    assert f"| {row} " in run[0]


@pytest.mark.parametrize("peer", ["keycache: JWTAuth", "Fastify + fast-jwt"])
def test_what_was_not_measured_is_no_figure(run: tuple[str, Any], peer: str) -> None:
    assert peer not in run[0].partition("## Where we lose")[0]
