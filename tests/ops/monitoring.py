"""What ops/prometheus and ops/grafana hold, read for the tests of both."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
GRAFANA = ROOT / "ops" / "grafana"
RUNBOOK = ROOT / "ops" / "runbook.md"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


@cache
def read(name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """A YAML file of ops/prometheus."""
    return YAML(typ="safe").load(PROMETHEUS / name)


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of a file, whatever their group."""
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
RECORDED = {rule["record"] for rule in rules("rules.yml")}


def exported() -> set[str]:
    """Every metric, from the table that ops/docs.py makes of metrics/instruments.py."""
    table = (ROOT / "ops" / "README.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(keycache_\w+)`", table, re.MULTILINE))


def asked(expression: str) -> set[str]:
    """The metrics that an expression asks for, histograms by their name."""
    names = set(re.findall(r"(?<![:\w])keycache_\w+", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def recorded(expression: str) -> set[str]:
    """The recorded series that an expression asks for."""
    return set(re.findall(r"job:[\w:]+", expression))


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, without the headings of its rows."""
    found = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries(dashboard: Path) -> list[str]:
    """What its panels ask, as written."""
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


def expressions(job: str) -> list[str]:
    """What all panels ask when everything of this job is chosen, over the last minutes."""
    variables = {
        "$__rate_interval": "2m",
        "$__range": "2m",
        "$job": job,
        "$instance": ".*",
        "$issuer": ".*",
    }
    written = sorted({query for file in DASHBOARDS for query in queries(file)})
    for name, value in variables.items():
        written = [query.replace(name, value) for query in written]
    return written


def diagnostics() -> list[str]:
    """The commands with which the runbook has somebody look at the service, each once."""
    text = RUNBOOK.read_text(encoding="utf-8").replace("\n", " ")
    found = re.findall(r"`((?:curl -s|keycache) [^`]*)`", text)
    [first] = re.findall(r"```sh\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    found += [line.partition("#")[0].strip() for line in first.splitlines()]
    return sorted({command for command in found if command.startswith(("curl", "keycache"))})
