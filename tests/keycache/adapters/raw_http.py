"""A server that answers what a test writes, byte by byte, over TCP or TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""A path, and where to write the answer; the connection is closed afterwards."""


class RawServer:
    """Its URL, the heads of the requests that came, and who showed a certificate with them."""

    def __init__(self, scheme: str, port: int) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.clients: list[str | None] = []

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [request.split(" ")[1] for request in self.requests]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                server.requests.append(head)
                server.clients.append(_common_name(writer))
                await serve(head.split(" ")[1], writer)
        finally:
            writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server = RawServer("https" if tls else "http", listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def response(
    body: bytes = b'{"keys": []}', status: str = "200 OK", *fields: str, length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *fields]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def always(answer: bytes) -> Serve:
    async def serve(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return serve


def _common_name(writer: asyncio.StreamWriter) -> str | None:
    """Of the certificate that the client showed; None when it showed none."""
    certificate = writer.get_extra_info("peercert") or {}
    names = dict(part for parts in certificate.get("subject", ()) for part in parts)
    return names.get("commonName")
