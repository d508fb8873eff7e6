"""The directory of one run: private, its own, gone with the run."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metrics.instruments  # noqa: F401 (so that `use` comes too late here)
from metrics import multiproc_dir
from tests.metrics.conftest import ROOT, Worker

SUPERVISOR = """
import sys
from pathlib import Path
from metrics import multiproc_dir
print(multiproc_dir.create(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class Supervisor:
    """A process that has created a directory and holds it."""

    def __init__(self, parent: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(parent)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.directory = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.kill()


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_directory_is_readable_by_its_user_only(directory: Path) -> None:
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)


def test_two_runs_never_share_a_directory(supervisor: Supervisor, directory: Path) -> None:
    assert supervisor.directory.parent == directory.parent
    assert supervisor.directory != directory


def test_directory_of_a_killed_run_is_swept_by_the_next(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.kill()
    directory = multiproc_dir.create(tmp_path)
    left = list(tmp_path.iterdir())
    multiproc_dir.remove(directory)
    assert [directory] == left


def test_directory_of_a_living_run_is_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    assert [] == multiproc_dir.sweep(tmp_path)
    assert supervisor.directory.is_dir()


def test_directory_is_left_alone_while_one_worker_of_a_dead_supervisor_lives(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with Worker(supervisor.directory, "worker-0"):
        supervisor.kill()
        assert [] == multiproc_dir.sweep(tmp_path)
    assert [supervisor.directory] == multiproc_dir.sweep(tmp_path)


def test_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"{multiproc_dir.PREFIX}link").symlink_to(precious)
    assert [] == multiproc_dir.sweep(tmp_path)
    assert precious.is_dir()


def test_directories_with_other_names_are_not_swept(tmp_path: Path) -> None:
    (tmp_path / "somebody-else").mkdir()
    assert [] == multiproc_dir.sweep(tmp_path)


def test_removed_directory_leaves_nothing(tmp_path: Path) -> None:
    directory = multiproc_dir.create(tmp_path)
    (directory / "counter_worker-0.db").touch()
    multiproc_dir.remove(directory)
    assert [] == list(tmp_path.iterdir())


def test_removing_twice_is_quiet(directory: Path) -> None:
    multiproc_dir.remove(directory)
    multiproc_dir.remove(directory)


@pytest.mark.parametrize("identifier", ["", "worker_0", "../x", "worker-0.db", "worker-0\n"])
def test_identifier_that_would_spoil_a_file_name_is_refused(
    directory: Path, identifier: str
) -> None:
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        multiproc_dir.use(directory, identifier)


def test_naming_the_directory_after_the_instruments_exist_is_refused(directory: Path) -> None:
    with pytest.raises(RuntimeError, match="imported before"):
        multiproc_dir.use(directory, "worker-0")


def test_using_a_directory_that_is_gone_is_refused(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from metrics import multiproc_dir
multiproc_dir.use(Path(sys.argv[1]), "worker-0")
"""
    ended = python(code, str(tmp_path / "gone"))
    assert "RuntimeError: the metrics directory" in ended.stderr


def test_directory_is_used_though_prometheus_client_was_imported_before(directory: Path) -> None:
    code = """
import sys
from pathlib import Path
import prometheus_client
from metrics import multiproc_dir
multiproc_dir.use(Path(sys.argv[1]), "worker-0")
from metrics.instruments import LOOKUPS
LOOKUPS.labels("issuer.example", "memory").inc()
"""
    ended = python(code, str(directory))
    assert ("", True) == (ended.stderr, (directory / "counter_worker-0.db").exists())


def test_another_service_named_by_the_environment_is_left_alone(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-service"
    other.mkdir()
    monkeypatch.setenv(multiproc_dir.ENVIRONMENT, str(other))
    with Worker(directory, "worker-0") as worker:
        worker.tell("verify", 1)
        worker.page()
    assert [] == list(other.iterdir())


def test_making_a_directory_imports_no_prometheus_client() -> None:
    code = """
import sys
from metrics import multiproc_dir
print("prometheus_client" in sys.modules)
"""
    assert "False\n" == python(code).stdout
