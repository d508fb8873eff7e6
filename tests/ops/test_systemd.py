"""The unit: what systemd itself says about it, and that its numbers agree with ours."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import CONFIG, PREFIX, SETTING_NAMES, Settings
from app.supervisor import KILL_MARGIN
from tests.conftest import needs

UNIT = Path(__file__).parents[2] / "ops/systemd/keycache.service"
EXPOSURE = 15  # tenths: systemd calls anything below 2.0 OK, and most services have 9


def value(name: str) -> str:
    """What the unit gives to this name, the last time it does."""
    given: list[str] = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return given[-1]


@pytest.fixture
def analyze() -> str:
    return needs("systemd-analyze", "apt-get install systemd")


def test_systemd_finds_nothing_wrong(analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # It looks whether the commands are there.
    unit.write_text(UNIT.read_text().replace("/opt/keycache/bin/keycache", sys.executable))
    said = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (0, "") == (said.returncode, said.stdout + said.stderr)


def test_systemd_finds_little_exposed(analyze: str) -> None:
    words = [analyze, "security", "--offline=yes", f"--threshold={EXPOSURE}", str(UNIT)]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 0 == said.returncode, said.stdout.splitlines()[-1]


def test_systemd_waits_longer_than_the_supervisor_does() -> None:
    grace = Settings.model_fields["grace"].default
    assert int(value("TimeoutStopSec")) > grace + KILL_MARGIN


def test_every_variable_of_the_unit_is_a_setting() -> None:
    names = set(re.findall(rf"^Environment=({PREFIX}\w+)=", UNIT.read_text(), re.MULTILINE))
    known = {CONFIG, *(PREFIX + name.upper() for name in SETTING_NAMES)}
    assert (set(), True) == (names - known, CONFIG in names)


def test_reload_is_the_command_that_says_how_it_went() -> None:
    expected = ("/opt/keycache/bin/keycache reload", "notify")
    assert expected == (value("ExecReload"), value("Type"))


def test_unit_opens_with_who_it_is_for_and_when_not() -> None:
    opening = UNIT.read_text().partition("\n\n")[0]
    assert ["# For", "# Not"] == re.findall(r"^# (?:For|Not)\b", opening, re.MULTILINE)
