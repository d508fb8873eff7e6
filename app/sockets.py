"""The listening sockets: bound once, by the supervisor, and shared by all workers.

A shared socket has one queue of connections. Whatever happens to one worker, the others take what
is waiting there; with a socket for each worker (SO_REUSEPORT) a queue would die with its worker.
"""

import errno
import os
import socket

from keycache.errors import ConfigurationError

BACKLOG = 1024
"""Connections that may wait to be accepted (the kernel caps it at net.core.somaxconn)."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket listening on `host` (a name, an IPv4 or IPv6 address) and `port` (0: any free one).

    `setting` is what its settings begin with: "" or "ADMIN_". Raises ConfigurationError with what
    to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigurationError(
            [f"KEYCACHE_{setting}HOST: {host!r} is no address of this machine ({error})"]
        ) from None
    listener = socket.socket(family, kind, protocol)
    # A port whose last owner has just gone may be taken; one that somebody listens on may not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError([_problem(error, host, port, setting)]) from None
    listener.settimeout(0)
    return listener


def url(listener: socket.socket) -> str:
    """Where it listens, with the real port: http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _problem(error: OSError, host: str, port: int, setting: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use; set KEYCACHE_{setting}PORT"
        case errno.EACCES:
            return f"port {port} is for root only; set KEYCACHE_{setting}PORT to 1024 or above"
        case errno.EADDRNOTAVAIL:
            return f"KEYCACHE_{setting}HOST: {host!r} is no address of this machine"
        case _:
            reason = os.strerror(error.errno or 0)
            return f"cannot listen on {host} port {port}: {reason}; set KEYCACHE_{setting}PORT"
