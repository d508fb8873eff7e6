"""The dashboards: as their generator writes them, asking for what there is, and for all of it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.ops.monitoring import (
    DASHBOARDS,
    GRAFANA,
    RECORDED,
    asked,
    exported,
    panels,
    queries,
    recorded,
)

MOMENTS = ("fetched", "fresh_until", "stale_until")

each_dashboard = pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_as_the_generator_writes_them(generator: ModuleType) -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS}
    assert written == generator.dashboards(), "run ops/grafana/dashboards.py"


@each_dashboard
def test_everything_asked_for_exists(file: Path) -> None:
    expressions = " ".join(queries(file))
    assert set() == asked(expressions) - exported()
    assert set() == recorded(expressions) - RECORDED


def test_every_metric_is_on_a_dashboard() -> None:
    shown = asked(" ".join(query for file in DASHBOARDS for query in queries(file)))
    # Moments, of which the times until and since are shown, and what the lists are made from.
    elsewhere = {f"keycache_keyset_{what}_timestamp_seconds" for what in MOMENTS}
    elsewhere |= {"keycache_revocations_read_timestamp_seconds"}
    assert set() == exported() - elsewhere - {"keycache_build_info"} - shown


@each_dashboard
def test_every_panel_asks_a_question_and_says_what_to_think_of_the_answer(file: Path) -> None:
    silent = [each["id"] for each in panels(file) if not each["title"] or not each["description"]]
    assert [] == silent


@each_dashboard
def test_links_can_tell_the_panels_apart(file: Path) -> None:
    identifiers = [panel["id"] for panel in panels(file)]
    assert sorted(set(identifiers)) == identifiers
