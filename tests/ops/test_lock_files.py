"""The locks pin everything by hash, name no place to download from, and agree with the ranges."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [
    "requirements.lock",
    "requirements-build.lock",
    "requirements-dev.lock",
    "bench/requirements-verify.txt",
]
NPM_LOCKS = {
    "oidc-provider": ROOT / "tests/system/identity_provider/package-lock.json",
    "jose": ROOT / "tests/differential/jose/package-lock.json",
    "express": ROOT / "ops/examples/package-lock.json",
    "kubernetes-models": ROOT / "tests/ops/kubernetes_models/package-lock.json",
    "fast-jwt": ROOT / "ops/bench/peers/package-lock.json",
}
ADDRESS = re.compile(r"https?://|file:|git\+|index-url|find-links|--trusted-host|(?<!\w)/\w+/")


def entries(lock: str) -> list[str]:
    """The requirements of a lock file, each with its hashes on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "ops" / lock).read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", "").splitlines()


def locked(lock: str) -> dict[str, str]:
    """The locked version of each distribution, for the Python that runs this."""
    requirements = [Requirement(entry.split("--hash")[0]) for entry in entries(lock)]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if applies(requirement)
    }


def applies(requirement: Requirement) -> bool:
    """Whether the requirement holds for the Python that runs this."""
    return requirement.marker is None or requirement.marker.evaluate()


def ranges(group: str) -> list[Requirement]:
    """The requirements that pyproject.toml states: for `run`, or for a dependency group."""
    if group == "run":
        return [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    found = []
    for entry in PYPROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            found += ranges(entry["include-group"])
        else:
            found.append(Requirement(entry))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_one_version_with_a_sha256(lock: str) -> None:
    loose = [
        entry
        for entry in entries(lock)
        if not re.match(r"[\w.-]+==[\w.!]+ .*--hash=sha256:[0-9a-f]{64}\b", entry)
    ]

    assert [] == loose


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_file_names_an_address_or_a_path(lock: str) -> None:
    assert [] == ADDRESS.findall((ROOT / "ops" / lock).read_text().replace("ops/lock.sh", ""))


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("requirements.lock", ["run"]),
        ("requirements-build.lock", ["build"]),
        ("requirements-dev.lock", ["run", "dev"]),
    ],
)
def test_every_range_admits_the_locked_version(lock: str, groups: list[str]) -> None:
    versions = locked(lock)
    outside = [
        str(requirement)
        for group in groups
        for requirement in filter(applies, ranges(group))
        if versions.get(canonicalize_name(requirement.name), "none") not in requirement.specifier
    ]

    assert [] == outside


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_what_is_tested_is_what_is_installed(lock: str) -> None:
    assert locked(lock).items() <= locked("requirements-dev.lock").items()


@pytest.mark.parametrize("wanted", NPM_LOCKS)
def test_an_npm_lock_has_a_digest_for_every_package_and_no_download_address(wanted: str) -> None:
    packages = json.loads(NPM_LOCKS[wanted].read_text())["packages"]
    packages.pop("")

    assert wanted in {name.removeprefix("node_modules/") for name in packages}
    assert [] == [name for name, package in packages.items() if "integrity" not in package]
    assert [] == [name for name, package in packages.items() if "resolved" in package]
