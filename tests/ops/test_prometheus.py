"""The rules and alerts: right by promtool, proved by samples, explained in the runbook."""

import subprocess

import pytest

from tests.conftest import needs
from tests.ops.monitoring import (
    ALERTS,
    PROMETHEUS,
    RECORDED,
    asked,
    exported,
    read,
    recorded,
    rules,
)

CASES = ("alerts.test.yml", "alerts-slow.test.yml")


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    binary = needs("promtool", "apt-get install prometheus")
    return subprocess.run(
        [binary, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words", [("config", "prometheus.yml"), ("rules", "rules.yml"), ("rules", "alerts.yml")]
)
def test_prometheus_takes_the_file(words: tuple[str, str]) -> None:
    result = promtool("check", *words)
    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("file", CASES)
def test_alerts_fire_and_are_silent_on_the_samples(file: str) -> None:
    result = promtool("test", "rules", file)
    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("fires", [True, False], ids=["firing", "silent"])
def test_every_alert_has_a_case(*, fires: bool) -> None:
    tests = [test for file in CASES for test in read(file)["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    proved = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
    assert set(ALERTS) == proved


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_how_urgent_it_is_what_happened_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook_url"} == set(alert["annotations"])
    place = alert["annotations"]["runbook_url"]
    assert f"https://runbooks.example/runbook.md#{name.lower()}" == place


@pytest.mark.parametrize("file", ["rules.yml", "alerts.yml"])
def test_every_metric_in_a_rule_exists(file: str) -> None:
    expressions = " ".join(rule["expr"] for rule in rules(file))
    assert set() == asked(expressions) - exported()
    assert set() == recorded(expressions) - RECORDED


def test_every_recorded_series_is_used() -> None:
    assert set() == RECORDED - recorded(" ".join(rule["expr"] for rule in rules("alerts.yml")))
