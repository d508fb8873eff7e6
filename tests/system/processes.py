"""Which process has which TCP connection: what /proc says of the workers, from outside."""

import http.client
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.system.service import Service, eventually

CONNECTIONS = 400  # at most, in the search for one to every worker
ESTABLISHED, LISTENING = "01", "0A"  # as /proc/net/tcp has them, see proc_net_tcp(5)


def _sockets(state: str, *, local: int | None = None, remote: int | None = None) -> set[str]:
    """The sockets in this state with these ports, as /proc/PID/fd names them."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ours, theirs = (int(fields[n].rpartition(":")[2], 16) for n in (1, 2))
        if fields[3] == state and local in (None, ours) and remote in (None, theirs):
            found.add(f"socket:[{fields[9]}]")
    return found


def _holders(pids: Iterable[int], sockets: set[str]) -> list[int]:
    """Those of the processes that have one of these sockets open."""
    return [pid for pid in pids if sockets & _opened(pid)]


def _opened(pid: int) -> set[str]:
    """What this process has open; nothing when it has ended."""
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # this one has been closed meanwhile
                found.add(str(file.readlink()))
    return found


def _parent(pid: int) -> int:
    """The process that started this one; 0 when it has ended, see proc_pid_stat(5)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def workers(service: Service) -> list[int]:
    """The processes that accept requests for this service.

    Its forkserver, a child of the supervisor, holds the socket too while it starts a worker.
    """
    everybody = (int(process.name) for process in Path("/proc").glob("[0-9]*"))
    sockets = _sockets(LISTENING, local=urlsplit(service.url).port)
    supervisor = service.process.pid
    return [pid for pid in _holders(everybody, sockets) if supervisor not in (pid, _parent(pid))]


def connected_to(pids: Iterable[int], port: int) -> list[int]:
    """Those of the processes that have a connection to this port."""
    return _holders(pids, _sockets(ESTABLISHED, remote=port))


@contextmanager
def connections_to_every_worker(service: Service) -> Iterator[list[http.client.HTTPConnection]]:
    """An open connection to each worker of this service, until the block ends.

    On a quiet machine the same worker is always the first to accept; so whoever has one is stopped
    until the others have theirs.
    """
    where = urlsplit(service.url)
    pids = workers(service)
    made: list[http.client.HTTPConnection] = []
    found: dict[int, http.client.HTTPConnection] = {}
    try:
        while set(found) != set(pids):
            assert len(made) < CONNECTIONS, "no connection reached some worker"
            made.append(http.client.HTTPConnection(where.netloc, timeout=15))
            made[-1].connect()
            worker = _acceptor(made[-1], pids)
            found.setdefault(worker, made[-1])
            os.kill(worker, signal.SIGSTOP)
        _let_go_on(found)
        yield list(found.values())
    finally:
        _let_go_on(found)
        for connection in made:
            connection.close()


def _let_go_on(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _acceptor(connection: http.client.HTTPConnection, pids: list[int]) -> int:
    """The worker that accepted this connection, as soon as one has."""
    found: list[int] = []

    def accepted() -> bool:
        found[:] = connected_to(pids, connection.sock.getsockname()[1])
        return bool(found)

    eventually(accepted, 5)
    return found[0]
