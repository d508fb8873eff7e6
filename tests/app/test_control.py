"""The control socket: who may ask, who hears what, and that nobody can hold it up."""

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

from app import control
from app.control import ASKERS, REQUEST, Control, default_path
from keycache.errors import ConfigurationError


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short, so that a socket's path fits."""
    return tmp_path_factory.mktemp("c")


@pytest.fixture
def listening(directory: Path) -> Iterator[Control]:
    made = Control(directory / "s")
    yield made
    made.close()


def asked(listening: Control, text: bytes = REQUEST) -> socket.socket:
    """Somebody who has connected and sent this text."""
    asker = socket.socket(socket.AF_UNIX)
    asker.settimeout(10)
    asker.connect(str(listening._path))
    asker.sendall(text)
    return asker


def heard(listening: Control) -> bool:
    """Whether a reload is wanted, after all that has come in has been taken."""
    wanted = False
    while news := select(listening.watched, [], [], 0)[0]:
        wanted |= listening.hear(news)
    return wanted


def answers(asker: socket.socket) -> list[dict[str, object]]:
    """All that somebody was told, until the connection was closed."""
    with asker, asker.makefile() as lines:
        return [json.loads(line) for line in lines]


def test_who_asks_hears_how_it_begins_and_ends(listening: Control) -> None:
    asker = asked(listening)
    assert heard(listening)
    listening.begin()
    listening.say("reloading")
    listening.end(["over"], ok=True)
    expected = [{"said": []}, {"said": ["reloading"]}, {"said": ["over"], "ok": True}]
    assert expected == answers(asker)


def test_who_asks_during_a_reload_hears_of_the_next_one(listening: Control) -> None:
    first = asked(listening)
    heard(listening)
    listening.begin()
    second = asked(listening)
    assert heard(listening)
    listening.end(["first"], ok=True)
    listening.begin()
    listening.end(["second"], ok=False)
    assert {"said": ["first"], "ok": True} == answers(first)[-1]
    assert {"said": ["second"], "ok": False} == answers(second)[-1]


@pytest.mark.parametrize("text", [b"", b"stop\n", b"reload please\n", b"\xff" * 100])
def test_other_words_are_no_request(text: bytes, listening: Control) -> None:
    asker = asked(listening, text)
    asker.shutdown(socket.SHUT_WR)
    assert not heard(listening)
    asker.close()


def test_who_has_gone_is_forgotten(listening: Control) -> None:
    asked(listening).close()
    assert heard(listening)
    listening.begin()
    listening.end(["over"], ok=True)
    assert 1 == len(listening.watched)


def test_who_does_not_read_holds_nobody_up(listening: Control) -> None:
    silent = asked(listening)
    heard(listening)
    listening.begin()
    for _ in range(2000):
        listening.say("x" * 1000)
    assert 1 == len(listening.watched)
    silent.close()


def test_number_of_askers_is_bounded(listening: Control) -> None:
    askers = []
    for _ in range(ASKERS + 5):
        askers.append(asked(listening, b""))
        heard(listening)
    assert len(listening.watched) <= ASKERS
    for asker in askers:
        asker.close()


def test_only_its_user_may_open_the_socket(listening: Control) -> None:
    assert listening._path is not None
    assert 0o600 == stat.S_IMODE(listening._path.stat().st_mode)


def test_socket_that_a_killed_service_left_is_taken(directory: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(directory / "s"))
    left.close()
    Control(directory / "s").close()
    assert [] == list(directory.iterdir())


def test_socket_of_a_living_service_is_not_taken(listening: Control) -> None:
    with pytest.raises(ConfigurationError, match="another service listens there"):
        Control(listening._path)


@pytest.mark.parametrize("name", ["missing/s", "x" * 200])
def test_path_of_no_use_is_refused(name: str, directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="KEYCACHE_CONTROL: cannot listen at"):
        Control(directory / name)


def test_default_directory_that_is_not_ours_alone_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "short_parent", lambda: directory)
    parent = default_path(9000).parent
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="not this user's own"):
        Control(default_path(9000))
    parent.chmod(0o700)
    Control(default_path(9000)).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN here: only root can give a directory away")
def test_default_directory_of_somebody_else_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "short_parent", lambda: directory)
    default_path(9000).parent.mkdir(mode=0o700)
    os.chown(default_path(9000).parent, 12345, -1)
    with pytest.raises(ConfigurationError, match="not this user's own"):
        Control(default_path(9000))


def test_default_directory_that_is_a_link_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "short_parent", lambda: directory)
    (directory / "elsewhere").mkdir(mode=0o700)
    default_path(9000).parent.symlink_to(directory / "elsewhere")
    with pytest.raises(ConfigurationError, match="not this user's own"):
        Control(default_path(9000))


def test_closing_tells_who_waits(listening: Control) -> None:
    asker = asked(listening)
    heard(listening)
    closing = threading.Thread(target=listening.close)
    closing.start()
    assert [{"said": []}] == answers(asker)
    closing.join()


def test_service_without_a_socket_hears_nothing() -> None:
    nowhere = Control(None)
    nowhere.begin()
    nowhere.end(["over"], ok=True)
    assert ([], False) == (nowhere.watched, nowhere.hear([]))
    nowhere.close()


def test_default_path_is_of_this_user_and_this_port() -> None:
    path = default_path(9000)
    assert (f"keycache-{os.geteuid()}", "9000.sock") == (path.parent.name, path.name)
