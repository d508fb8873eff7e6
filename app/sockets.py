"""The listening sockets: bound once, by the supervisor, and shared by all workers.

A shared socket has one queue of connections. Whatever happens to one worker, the others take what
is waiting there; with a socket for each worker (SO_REUSEPORT) a queue would die with its worker.
"""

import ctypes
import errno
import os
import socket
import struct
from contextlib import suppress

from keycache.errors import ConfigurationError

SO_ATTACH_FILTER = 26
"""socket(7); Python's socket module has no name for it."""

ACCEPTING = 0.5
"""Seconds for which a worker still accepts after SIGTERM. Its answers say `Connection: close`, so a
client in conversation learns that it should go elsewhere."""

DEAF_AFTER = 0.3
"""Seconds after the workers' SIGTERM when the supervisor lets no new connection into the queue: the
workers then have the rest of `ACCEPTING` to empty it."""

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


def turn_deaf(listener: socket.socket) -> None:
    """Let no new connection into the queue of this socket, whoever shares it; what is in it stays.

    Closing a listening socket resets who waits in its queue. So, before the last one is closed,
    the kernel is told to drop what comes (a filter that passes nothing). A client that connects in
    this moment tries again after a second, as after a lost packet, and is then refused.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET 0
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    with suppress(OSError):  # a sandbox may forbid filters; then some may be reset
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


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
