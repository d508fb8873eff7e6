"""What the benches with servers share: a time limit, a Valkey, a client that fills token caches."""

import base64
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from app.embedded import server_binary

SEAL_KEY = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
START_TIMEOUT = 20.0  # seconds
ANSWER_TIMEOUT = 60.0  # seconds
CONNECTIONS = 8
AT_ONCE = 16
"""Requests that are sent on a connection before their answers are read."""


def end_within(seconds: int) -> None:
    """Raise TimeoutError in this thread so long from now, and KeyboardInterrupt on SIGTERM: however
    a bench ends, what it started ends first. `signal.alarm(0)` takes the limit back.
    """
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(seconds)


def _stop(number: int, _: object) -> None:
    if number == signal.SIGALRM:
        raise TimeoutError("the bench took longer than it may")
    raise KeyboardInterrupt


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def redis(directory: Path) -> Iterator[int]:
    """The port of a Valkey on 127.0.0.1 that keeps nothing on disk."""
    port = free_port()
    words = [str(server_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(  # noqa: S603 - our own words
        [*words, "--dir", str(directory)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline = monotonic() + START_TIMEOUT
        while not _answers(port):
            if monotonic() > deadline:
                raise TimeoutError(f"the Valkey did not answer within {START_TIMEOUT:g} s")
            sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
        probe.sendall(b"PING\r\n")
        return probe.recv(16) == b"+PONG\r\n"
    return False


def fill(port: int, path: str, tokens: Sequence[str]) -> None:
    """Send each of these tokens once, over a few connections. Raises ValueError for a refusal."""
    connections = [
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT)
        for _ in range(CONNECTIONS)
    ]
    step = CONNECTIONS * AT_ONCE
    for start in range(0, len(tokens), step):
        shares = [tokens[start + n : start + step : CONNECTIONS] for n in range(CONNECTIONS)]
        for connection, share in zip(connections, shares, strict=True):
            connection.sendall(b"".join(_request(path, token) for token in share))
        for connection, share in zip(connections, shares, strict=True):
            _read(connection, len(share))
    for connection in connections:
        connection.close()


def _request(path: str, token: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )


def _read(connection: socket.socket, answers: int) -> None:
    """Read so many answers of 200, each with a Content-Length."""
    data = b""
    while answers:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = _length(head) if end else 0
        if not end or len(rest) < length:
            more = connection.recv(65536)
            if not more:
                raise ValueError("the server closed the connection")
            data += more
            continue
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"a good token was answered {head[:40]!r}")
        data = rest[length:]
        answers -= 1


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
