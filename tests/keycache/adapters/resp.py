"""A server that speaks the Redis protocol (RESP3), and answers as each test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Command = list[bytes]
Answer = Callable[[Command], Awaitable[bytes | None]]
"""A command to the bytes of its answer; None closes the connection."""


class Server:
    """Where it listens, and what came."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.connections = 0
        self.commands: list[bytes] = []
        self._answer = answer
        self._came = asyncio.Condition()

    async def received(self, command: bytes) -> None:
        """Wait until this command has come."""
        async with self._came:
            await self._came.wait_for(lambda: command in self.commands)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    command = await _command(reader)
                    async with self._came:
                        self.commands.append(command[0].upper())
                        self._came.notify_all()
                    answer = await self._reply(command)
                    if answer is None:
                        return
                    writer.write(answer)
                    await writer.drain()
        finally:
            writer.close()

    async def _reply(self, command: Command) -> bytes | None:
        if command[0].upper() == b"HELLO":
            return b"%1\r\n+proto\r\n:3\r\n"
        if command[0].upper() in (b"CLIENT", b"SELECT"):
            return b"+OK\r\n"
        return await self._answer(command)


async def _command(reader: asyncio.StreamReader) -> Command:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


@asynccontextmanager
async def serving(answer: Answer, port: int = 0) -> AsyncIterator[Server]:
    """A running server on loopback; at the end every connection is cut."""
    server = Server(answer)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await server.serve(reader, writer)
        tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", port)
    server.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
