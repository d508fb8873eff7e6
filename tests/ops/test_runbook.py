"""The runbook: a heading for every alert, and nothing in it that is not there."""

import re

import pytest

from app.cli.main import COMMANDS
from app.settings import CONFIG, PREFIX, SETTING_NAMES
from keycache.errors import FetchCode, Reason, RecordCode
from tests.ops.monitoring import ALERTS, RUNBOOK, asked, diagnostics, exported

TEXT = RUNBOOK.read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
CODES = {str(code) for codes in (Reason, FetchCode, RecordCode) for code in codes}


def test_every_alert_has_a_heading_in_their_order_and_nothing_else_has() -> None:
    assert [*ALERTS] == HEADINGS


@pytest.mark.parametrize("name", HEADINGS)
def test_heading_says_what_it_means_what_users_see_how_to_confirm_and_what_to_do(name: str) -> None:
    section = TEXT.partition(f"## {name}\n")[2].partition("\n## ")[0]
    said = " ".join(re.findall(r"\*\*(.*?):\*\*", section)).lower()
    assert [] == [part for part in ("means", "users see", "confirm", "do") if part not in said]


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    files = [link for link in links if not link.startswith("#")]
    assert [] == [file for file in files if not (RUNBOOK.parent / file).is_file()]
    anchors = {link.removeprefix("#") for link in links if link.startswith("#")}
    assert set() == anchors - {heading.lower() for heading in HEADINGS}


def test_every_setting_command_and_metric_in_it_exists() -> None:
    settings = {PREFIX + name.upper() for name in SETTING_NAMES} | {CONFIG}
    assert set() == set(re.findall(rf"`({PREFIX}[A-Z_]+)`", TEXT)) - settings
    commands = {command.split()[1] for command in diagnostics() if command.startswith("keycache")}
    assert set() == commands - set(COMMANDS)
    assert set() == asked(TEXT) - exported()


def test_every_code_in_it_exists() -> None:
    words = set(re.findall(r"`([a-z]+_[a-z_]+)`", TEXT))
    assert words
    assert set() == words - CODES
