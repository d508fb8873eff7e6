"""The image and the composition, as far as they can be judged without an engine that runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from ruamel.yaml import YAML

from app.demo.issuer import DemoIssuer
from app.settings import CONFIG, PREFIX, SETTING_NAMES, Settings
from app.supervisor import KILL_MARGIN
from tests.system.service import Service

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops/docker"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"
KNOWN = {CONFIG, *(PREFIX + name.upper() for name in SETTING_NAMES)}


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its words, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
    ]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions stage by stage, each with its FROM first."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as the root of the first stage, after its COPY and RUN instructions have been done.

    The same words, with this Python and this folder for the base image and its root.
    """
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    (root / "bin/python").symlink_to(sys.executable)
    (root / "src").mkdir()
    environment = {"PATH": f"{root}/bin:/usr/bin:/bin", "HOME": str(root)}
    # What the machine says of package indexes stays, as it would for a builder.
    environment |= {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
    for word, rest in stages()[0]:
        match word:
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    copy(ROOT / source, root / "src" / target)
            case "ENV":
                environment |= dict(pair.split("=") for pair in rest.split())
            case "RUN":
                command = re.sub(r"(?<![\w.])/(build|opt|dist)\b", rf"{root}/\1", rest)
                result = subprocess.run(
                    ["sh", "-c", command],
                    cwd=root / "src",
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                assert 0 == result.returncode, result.stdout
    yield root
    shutil.rmtree(root)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def test_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (0, "") == (said.returncode, said.stdout + said.stderr)


@pytest.mark.timeout(300)
def test_first_stage_makes_the_service_and_leaves_no_pip(built: Path) -> None:
    binaries = built / "opt/keycache/bin"
    said = subprocess.run(
        [binaries / "keycache", "--version"], cwd=built, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"keycache, version [\d.]+\n", said.stdout)
    assert [] == [path.name for path in binaries.glob("pip*")]
    assert [] == [path.name for path in built.glob("opt/keycache/lib/*/site-packages/pip*")]


def test_ignore_file_lets_through_what_is_copied_and_nothing_else() -> None:
    copied = {
        source for word, rest in stages()[0] if word == "COPY" for source in rest.split()[:-1]
    }
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert (copied, "*") == (allowed, next(line for line in lines if not line.startswith("#")))


def test_final_stage_has_a_user_without_rights_and_no_compiler() -> None:
    final = dict(stages()[-1])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])
    runs = [rest for word, rest in stages()[-1] if word == "RUN"]
    assert [] == [rest for rest in runs if re.search(r"\binstall\b|apt-get", rest)]


def test_both_stages_have_the_same_base() -> None:
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert 1 == len(bases)
    assert ":" in bases.pop()


def test_every_variable_of_the_image_is_a_setting() -> None:
    final = dict(stages()[-1])["ENV"]
    assert set() == set(re.findall(rf"\b{PREFIX}\w+", final)) - KNOWN


def test_health_check_tells_a_live_service_from_none(tmp_path: Path) -> None:
    words = dict(stages()[-1])["HEALTHCHECK"].partition(" CMD ")[2]
    command = [sys.executable, *json.loads(words)[1:]]
    with DemoIssuer(audience="api") as issuer:
        settings = {"ISSUER": issuer.url, "AUDIENCE": "api", "WORKERS": 1}
        with Service(tmp_path / "log", settings) as service:
            service.wait_until_ready()
            port = service.admin.rpartition(":")[2]
            command[-1] = command[-1].replace(":9000", f":{port}")
            alive = subprocess.run(command, capture_output=True, check=False).returncode
            service.stop()
    dead = subprocess.run(command, capture_output=True, check=False).returncode
    assert (0, 1) == (alive, dead)


def composition() -> dict[str, Any]:
    read: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return read


def judge(specification: dict[str, Any]) -> None:
    """Raise ValueError when the Compose specification has something against it."""
    PyCompose.from_json(json.dumps(specification))


def test_specification_takes_the_composition() -> None:
    judge(composition())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("healthchecks", {}, "`healthchecks`"),
        ("depends_on", {"valkey": {"condition": "healthy"}}, "`healthy`"),
    ],
)
def test_specification_sees_what_is_wrong(key: str, value: object, said: str) -> None:
    wrong = composition()
    wrong["services"]["keycache"][key] = value
    with pytest.raises(ValueError, match=said):
        judge(wrong)


def test_every_variable_of_the_composition_is_a_setting() -> None:
    environment = composition()["services"]["keycache"]["environment"]
    assert set() == environment.keys() - KNOWN


def test_every_mounted_file_is_there() -> None:
    mounts = [
        mount.partition(":")[0]
        for service in composition()["services"].values()
        for mount in service.get("volumes", ())
    ]
    missing = [mount for mount in mounts if mount[0] == "." and not (FOLDER / mount).exists()]
    assert [] == missing


def test_root_of_the_service_is_read_only_and_its_capabilities_are_none() -> None:
    for name in ("warm", "keycache"):
        service = composition()["services"][name]
        assert (True, ["ALL"]) == (service["read_only"], service["cap_drop"])


def test_engine_waits_longer_than_the_supervisor_does() -> None:
    period = composition()["services"]["keycache"]["stop_grace_period"]
    grace = Settings.model_fields["grace"].default
    assert float(period.removesuffix("s")) > grace + KILL_MARGIN


def test_prometheus_here_differs_from_the_shipped_one_in_its_target_alone() -> None:
    ours = YAML(typ="safe").load(composition()["configs"]["prometheus.yml"]["content"])
    shipped = YAML(typ="safe").load(ROOT / "ops/prometheus/prometheus.yml")
    for config in (ours, shipped):
        config["scrape_configs"][0]["static_configs"][0].pop("targets")
    assert shipped == ours


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_file_opens_with_who_it_is_for_and_when_not(path: Path) -> None:
    opening = re.match(r"(?:#.*\n)+", path.read_text())
    assert opening is not None
    assert re.search(r"\bfor\b|\bFor\b", opening[0])
    assert re.search(r"\bNot\b", opening[0])
