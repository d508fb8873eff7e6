"""A forward proxy on loopback: CONNECT for https, an absolute URI for http (RFC 9110, RFC 9112)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class ForwardProxy:
    """Its port, and the heads of the requests that it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            method, target, _ = head.split(" ", 2)
            where = urlsplit(f"//{target}" if method == "CONNECT" else target)
            upstream, downstream = await asyncio.open_connection(where.hostname, where.port)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                own = [line for line in head.split("\r\n") if not line.lower().startswith("proxy-")]
                request = "\r\n".join(own).replace(target, where.path, 1)
                downstream.write(request.encode("latin-1"))
            try:
                await asyncio.gather(_copy(reader, downstream), _copy(upstream, writer))
            finally:
                await _close(downstream)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def proxying() -> AsyncIterator[ForwardProxy]:
    """A proxy that runs while the block does."""
    proxy = ForwardProxy()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            try:
                await proxy.serve(reader, writer)
            finally:
                await _close(writer)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
