"""The embedded Valkey: private, ready, and gone with whoever started it."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from app.embedded import SOCKET_PATH_BYTES, EmbeddedValkey, short_parent
from tests.system.service import alive, eventually


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def valkey(directory: Path) -> Iterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(directory)
    os.close(valkey.start())
    valkey.wait_until_ready(10)
    yield valkey
    valkey.stop()


def test_client_finds_it_at_its_url(valkey: EmbeddedValkey) -> None:
    with Redis.from_url(valkey.url) as client:
        assert client.ping()


def test_it_has_no_tcp_port_and_keeps_nothing_on_disk(valkey: EmbeddedValkey) -> None:
    with Redis.from_url(valkey.url) as client:
        config = {name: client.config_get(name)[name] for name in ("port", "save", "appendonly")}
    assert config == {"port": "0", "save": "", "appendonly": "no"}


@pytest.mark.usefixtures("valkey")
def test_only_its_user_may_open_the_socket(directory: Path) -> None:
    assert stat.S_IMODE((directory / "valkey.sock").stat().st_mode) == 0o700


def test_it_can_be_started_again_under_the_same_url(valkey: EmbeddedValkey) -> None:
    valkey.stop()
    os.close(valkey.start())
    valkey.wait_until_ready(10)
    assert valkey.answers()


def test_it_dies_with_a_parent_that_was_killed(directory: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from app.embedded import EmbeddedValkey\n"
        "valkey = EmbeddedValkey(Path(sys.argv[1])); valkey.start(); valkey.wait_until_ready(10)\n"
        "print(valkey._process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(pid), 2)


def test_socket_path_fits_even_where_temporary_files_have_long_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert (
        len(str(short_parent() / "keycache-metrics-12345678" / "valkey.sock")) < SOCKET_PATH_BYTES
    )
