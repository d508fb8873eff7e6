"""Who may import whom: the contracts in pyproject.toml hold, and break when they should."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_keeps_its_contract() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("keycache/cache.py", "import keycache.runtime"),
        ("keycache/issuer.py", "import metrics"),
        ("keycache/cache.py", "import redis.asyncio"),
        ("app/cli/warm.py", "import httpx"),
        ("keycache/authenticator.py", "import sanic"),
        ("metrics/labels.py", "import prometheus_client"),
        ("keycache/core/claims.py", "import jwt"),
        ("keycache/core/decision.py", "import time"),
        ("app/supervisor.py", "import app.web.server"),
        ("keycache/unplaced.py", ""),
        ("keycache/core/unplaced.py", ""),
        ("keycache/core/keys.py", "import keycache.core.jwks"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(tmp_path: Path, file: str, line: str) -> None:
    for package in ("app", "keycache", "metrics"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as code:
        code.write(f"\n{line}\n")

    result = lint_imports(tmp_path)

    assert result.returncode == 1
    assert "BROKEN" in result.stdout
