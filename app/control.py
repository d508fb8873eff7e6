"""The control socket: `keycache reload` asks the running service there, and hears how it went.

A Unix socket that only the service's own user (and root) can open; it understands one line,
`reload`. Whoever asks is told, a line of JSON each, that it was heard, that the reload has begun,
and how it ended:

    {"said": []}
    {"said": ["reloading: 2 workers, one after another"]}
    {"said": ["the reload is over: 2 workers serve"], "ok": true}
"""

import errno
import json
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from app.embedded import short_parent
from keycache.errors import ConfigurationError

REQUEST = b"reload\n"
ASKERS = 16
"""Connections at once; more are refused. They are people and deploy scripts."""


def default_path(admin_port: int) -> Path:
    """Where a service with this admin port listens, unless KEYCACHE_CONTROL says otherwise.

    The directory is this user's own; the port tells apart the services of one host.
    """
    return short_parent() / f"keycache-{os.geteuid()}" / f"{admin_port}.sock"


class Control:
    """Listens at `path` (None: nowhere), and knows who waits for the end of a reload.

    Raises ConfigurationError when it cannot listen there.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._listener = None if path is None else _listen(path)
        self._asked: list[socket.socket] = []  # for the next reload
        self._told: list[socket.socket] = []  # about this one
        self._fresh: list[socket.socket] = []  # who has said nothing yet

    @property
    def watched(self) -> list[socket.socket]:
        """What becomes readable when somebody asks, or goes."""
        listeners = [] if self._listener is None else [self._listener]
        return [*listeners, *self._fresh, *self._asked, *self._told]

    def hear(self, news: Sequence[object]) -> bool:
        """Take what has come in; whether a reload is wanted now."""
        wanted = False
        if self._listener is not None and self._listener in news:
            self._accept(self._listener)
        for asker in [each for each in (*self._fresh, *self._asked, *self._told) if each in news]:
            said = b""
            with suppress(OSError):
                said = asker.recv(len(REQUEST))
            if said == REQUEST and asker in self._fresh:
                self._fresh.remove(asker)
                self._asked.append(asker)
                self._send(asker, {"said": []})  # it has been heard
                wanted = True
            else:  # gone, or nobody who knows us
                self._drop(asker)
        return wanted

    def begin(self) -> None:
        """A reload begins: it is the one that was asked for until now."""
        self._told += self._asked
        self._asked.clear()

    def say(self, said: str) -> None:
        """Tell those who wait how far the reload is."""
        for asker in list(self._told):
            self._send(asker, {"said": [said]})

    def end(self, said: Iterable[str], *, ok: bool) -> None:
        """Tell those who wait how it ended."""
        for asker in list(self._told):
            self._send(asker, {"said": list(said), "ok": ok})
            self._drop(asker)

    def close(self) -> None:
        """Leave nothing behind; who still waits hears that the service ends."""
        for asker in (*self._fresh, *self._asked, *self._told):
            asker.close()
        if self._listener is not None and self._path is not None:
            self._listener.close()
            with suppress(OSError):
                self._path.unlink()
                if _is_default(self._path):
                    self._path.parent.rmdir()  # unless another service listens there

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            asker, _ = listener.accept()
            asker.settimeout(0)
            if len(self.watched) >= ASKERS:
                asker.close()
            else:
                self._fresh.append(asker)

    def _send(self, asker: socket.socket, message: dict[str, object]) -> None:
        try:
            asker.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # gone, or it does not read
            self._drop(asker)

    def _drop(self, asker: socket.socket) -> None:
        for askers in (self._fresh, self._asked, self._told):
            if asker in askers:
                askers.remove(asker)
        asker.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _private_directory(path)
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(ASKERS)
    except OSError as error:
        listener.close()
        why = error.strerror or error  # a path that is too long has no number
        raise ConfigurationError(
            [f"KEYCACHE_CONTROL: cannot listen at {path} ({why}); name another path"]
        ) from None
    return listener


def _is_default(path: Path) -> bool:
    return path.parent == default_path(0).parent


def _private_directory(path: Path) -> None:
    """Make the default directory; refuse one that somebody else has put there. Raises OSError."""
    if not _is_default(path):
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    status = path.parent.lstat()
    private = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
    if not private or status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "the directory is not this user's own")


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError when somebody does."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "another service listens there")
