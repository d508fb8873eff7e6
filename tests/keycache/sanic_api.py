"""A Sanic application behind JWTAuth, on a real port of this loop, and raw requests to it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

from sanic import HTTPResponse, Request, Sanic, Websocket, text
from sanic import json as json_answer

from app.demo.issuer import DemoIssuer
from keycache.events import Event
from keycache.issuer import Issuer
from keycache.runtime import Options
from keycache.sanic import JWTAuth

SECRET = "for those with a token"
CHALLENGE = 'Bearer realm="test"'
HEAD_BYTES = 65536
App = Sanic[Any, Any]
HANDSHAKE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
CLOSED = 0  # the status of a connection that was closed without an answer
Build = Callable[[App, JWTAuth], None]

_numbers = count()


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        """The one field of this name, or None."""
        values = [value for key, value in self.fields if key == name]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever the body says
        """The body as JSON."""
        return json.loads(self.body)


def parsed(head: bytes, body: bytes) -> Reply:
    """An answer, or CLOSED when there was none."""
    if not head:
        return Reply(CLOSED, [], b"")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name.lower(), value) for name, _, value in (x.partition(": ") for x in lines)]
    return Reply(int(status.split(" ")[1]), fields, body)


class Api:
    """A running application, its JWTAuth, and what was told to its observer."""

    def __init__(self, port: int, auth: JWTAuth, events: list[Event], app: App) -> None:
        self.port = port
        self.app = app
        self.auth = auth
        self.events = events

    async def raw(self, request: bytes) -> Reply:
        """Send these bytes, read until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return parsed(head, body)

    async def shake(self, path: str, *fields: str) -> Reply:
        """Ask for a WebSocket; 101 when it is granted."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = [f"GET {path} HTTP/1.1", "Host: api", *HANDSHAKE, *fields]
        try:
            writer.write("\r\n".join([*head, "", ""]).encode())
            async with asyncio.timeout(10):
                answer, _, _ = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return parsed(answer, b"")

    async def get(
        self,
        path: str = "/api/reports",
        *authorization: bytes | str,
        method: str = "GET",
        **more: str,
    ) -> Reply:
        """A request with these Authorization fields, on a connection of its own."""
        values = [v.encode() if isinstance(v, str) else v for v in authorization]
        head = [f"{method} {path} HTTP/1.1".encode(), b"Host: api", b"Connection: close"]
        head += [b"Authorization: " + value for value in values]
        head += [f"{name.replace('_', '-')}: {value}".encode() for name, value in more.items()]
        return await self.raw(b"\r\n".join(head) + b"\r\n\r\n")

    async def bearer(self, token: str, path: str = "/api/reports", method: str = "GET") -> Reply:
        return await self.get(path, f"Bearer {token}", method=method)


def routes(app: App, auth: JWTAuth) -> None:
    """Handlers below /api, protected by prefix; others by decorator; and open ones."""

    async def secret(request: Request, **_: str) -> HTTPResponse:
        return json_answer({"message": SECRET, "user": request.ctx.user})

    for number, path in enumerate(("/api", "/api/reports", "/api/<name:str>/parts")):
        app.add_route(secret, path, name=f"secret{number}")
    app.add_route(secret, "/api/all", methods=["GET", "OPTIONS"], name="all")

    @app.options("/api/reports")
    async def preflight(_: Request) -> HTTPResponse:
        return text("", headers={"Access-Control-Allow-Origin": "*"})

    @app.get("/<anything:path>", name="anything")
    async def anything(_request: Request, anything: str) -> HTTPResponse:
        return text(f"open: {len(anything)}")

    @app.get("/me")
    @auth.required
    async def me(request: Request) -> HTTPResponse:
        return json_answer(request.ctx.user)

    @app.get("/me/blocking")
    @auth.required
    def blocking(request: Request) -> HTTPResponse:
        return json_answer(request.ctx.user["sub"])

    @app.get("/admin")
    @auth.required(scopes="admin read")
    async def admin(_: Request) -> HTTPResponse:
        return text(SECRET)

    @app.get("/api/admin")
    @auth.required(scopes=["admin"])
    async def admin_below(_: Request) -> HTTPResponse:
        return text(SECRET)

    async def talk(_request: Request, websocket: Websocket) -> None:
        await websocket.send(SECRET)

    app.add_websocket_route(talk, "/api/socket")


@asynccontextmanager
async def running(
    demo: DemoIssuer,
    build: Build = routes,
    *,
    protect: str | list[str] = "/api",
    more: Mapping[str, Any] | None = None,
    shared: JWTAuth | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Api]:
    """The application on a free port of this loop. more: for JWTAuth, its `issuer` or others.
    shared: a JWTAuth of another application, to be this one's too.
    """
    app: App = Sanic(f"test{next(_numbers)}", configure_logging=False)
    app.config.update({"TOUCHUP": False, "MOTD": False, "AUTO_EXTEND": False})
    app.config.update({"REQUEST_MAX_HEADER_SIZE": HEAD_BYTES, "GRACEFUL_SHUTDOWN_TIMEOUT": 0.1})
    events: list[Event] = []
    said: dict[str, Any] = {
        "issuer": Issuer(issuer=demo.url, audiences=(demo.audience,), name="demo"),
        "options": Options(**options),
        "observer": events.append,
        "realm": "test",
        "protect": () if "rules" in (more or {}) else protect,
    }
    auth = shared or JWTAuth(**said | dict(more or {}))
    auth.init_app(app)
    build(app, auth)
    listener = socket.create_server(("127.0.0.1", 0))
    server: Any = await app.create_server(
        sock=listener, asyncio_server_kwargs={"start_serving": False}
    )
    await server.startup()
    await server.before_start()
    await server.start_serving()
    try:
        yield Api(listener.getsockname()[1], auth, events, app)
    finally:
        server.server.close()
        await server.before_stop()
        for connection in list(server.connections):
            connection.abort()
        await server.after_stop()
        Sanic.unregister_app(app)
