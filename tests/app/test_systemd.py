"""What is said to a service manager when there is none, or when it watches somebody else."""

import os

import pytest

from app import systemd


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@keycache-nobody-listens"])
def test_silence_when_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("pid", "limit", "pause"),
    [
        (None, "30000000", 15.0),
        (os.getpid(), "30000000", 15.0),
        (os.getpid() + 1, "30000000", None),
        (os.getpid(), None, None),
        (os.getpid(), "0", None),
        (os.getpid(), "soon", None),
    ],
    ids=["any", "ours", "another's", "unset", "zero", "no number"],
)
def test_signs_of_life_are_twice_as_frequent_as_they_must_be(
    monkeypatch: pytest.MonkeyPatch, pid: int | None, limit: str | None, pause: float | None
) -> None:
    for name, value in {"WATCHDOG_PID": pid, "WATCHDOG_USEC": limit}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(value))
    assert pause == systemd.watchdog_pause()
