"""The wheel alone, in a bare environment with no source tree beside it, is the whole product."""

import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed; fails the test, with all it said, when it fails."""
    result = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command} exited {result.returncode}:\n{result.stdout}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """The wheel, built from this tree."""
    with tempfile.TemporaryDirectory() as directory:
        # The build backend is the locked one beside us, not one downloaded for the occasion.
        build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory)
        run(*build, cwd=ROOT)
        yield next(Path(directory).glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {"app", "keycache", "metrics", info} == {name.split("/")[0] for name in names}
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    sources = {
        str(path.relative_to(ROOT))
        for package in ("app", "keycache", "metrics")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set() == sources - names


@pytest.mark.timeout(300)
def test_the_tour_succeeds_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input")
    lock = ROOT / "ops" / "requirements.lock"
    run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock, cwd=tmp_path)
    run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()

    run(tmp_path / "venv" / "bin" / "keycache", "demo", "--once", cwd=empty)
