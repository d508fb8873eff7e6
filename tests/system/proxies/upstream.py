"""Recorder: the other end of a proxy, which keeps every request exactly as it arrived."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self


class Received(NamedTuple):
    """A request as it arrived: every field as it was written, in the order it had."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values under this name, upper or lower case."""
        return [value for field, value in self.fields if field.lower() == name.lower()]


class Reply(NamedTuple):
    """What a Recorder answers, after so many seconds."""

    status: int = 200
    fields: Mapping[str, str] = {}
    body: bytes = b""
    seconds: float = 0.0


class Recorder:
    """A server on a loopback port, inside a `with` block. `reply` decides what it answers."""

    def __init__(self, reply: Callable[[Received], Reply]) -> None:
        self.reply = reply
        self.received: list[Received] = []
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._server.server_address[1])

    def targets(self) -> list[str]:
        """The request targets so far."""
        return [received.target for received in self.received]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], recorder: Recorder) -> None:
        super().__init__(address, _Handler)
        self.recorder = recorder

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        self.recorder.connections += 1
        return super().get_request()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a proxy may hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 20

    def _answer(self) -> None:
        recorder = self.server.recorder
        received = Received(self.command, self.path, list(self.headers.items()), self._body())
        recorder.received.append(received)
        reply = recorder.reply(received)
        time.sleep(reply.seconds)
        self.send_response(reply.status)
        for name, value in reply.fields.items():
            self.send_header(name, value)
        if reply.status == 101:
            self.close_connection = True  # the new protocol has nothing to say
        else:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def __getattr__(self, name: str) -> object:
        # do_GET, do_POST, ...: every method has the same answer.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name above us)
        """Say nothing: `received` has it all."""
