"""How both applications meet the network: their limits, their start, and how they drain.

Draining, in this order, so that a client never loses a request that it was right to send:

1. `Connection: close` goes into every answer from now on, to requests in flight and to those that
   still arrive on idle connections. A client in conversation learns so, and goes elsewhere.
2. After a moment (`ACCEPTING`) nothing more is accepted.
3. After another one, for the requests of those who have just connected, idle connections close.
4. Requests in flight are waited for, until the grace period ends.

What cannot be avoided: a request sent on an idle connection in the very moment that we close it
(RFC 9112 section 9.3.1; the client may repeat it). The moments before make that rare.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any, Protocol, cast

from httptools import HttpParserInvalidURLError, parse_url
from sanic import Request, Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.http.constants import HTTP, Stage

from app.settings import HEADER_BYTES
from app.sockets import ACCEPTING, BACKLOG
from app.web.answers import answer_errors_in_json

logger = logging.getLogger("keycache.web")

LINGER = 0.5
"""Seconds between steps 2 and 3: longer than it takes to send a request on a new connection."""

Application = Sanic[Config, Any]


class Http(Protocol):
    """What we use of Sanic's Http: where a connection is in its conversation."""

    stage: Stage
    keep_alive: bool


class Connection(Protocol):
    """What we use of Sanic's HttpProtocol: one connection. `http` is None before and after."""

    http: Http | None
    recv_buffer: bytearray

    def close(self) -> None:
        """Close it when what was written has been sent."""

    def abort(self) -> None:
        """Close it at once."""


class Server(Protocol):
    """What we use of Sanic's AsyncioServer, which has no types of its own."""

    app: Application
    connections: set[Connection]
    server: asyncio.Server

    async def startup(self) -> None:
        """Complete the routes."""

    async def before_start(self) -> None:
        """Run the before_server_start listeners."""

    async def start_serving(self) -> None:
        """Accept connections."""

    async def after_start(self) -> None:
        """Run the after_server_start listeners."""

    async def before_stop(self) -> None:
        """Run the before_server_stop listeners."""

    async def after_stop(self) -> None:
        """Run the after_server_stop listeners."""


class RootedRequest(Request):
    """A request whose target has a path: one without (`GET http://host`, `CONNECT host`, `GET ?x`)
    is for `/` (RFC 9110 section 4.2.3). Sanic 25.12 answers such a target 500, or not at all.
    """

    def __init__(self, url_bytes: bytes, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(url_bytes if _has_path(url_bytes) else b"/", *args, **kwargs)


def _has_path(target: bytes) -> bool:
    try:
        return target.startswith(b"/") or bool(parse_url(target).path)
    except HttpParserInvalidURLError:
        return False


def application(name: str, *, response_seconds: float, optimise: bool = False) -> Application:
    """An application without routes, with our limits and our errors.

    `response_seconds` is how long a handler may take; the client then gets 503. `optimise` has
    Sanic rewrite its classes at start (TouchUp): it can do so for one application in a process.
    """
    config = Config(env_prefix=None)  # SANIC_… variables are not our settings
    config.update(
        {
            "REQUEST_MAX_HEADER_SIZE": HEADER_BYTES,  # a token, and a browser's cookies
            "REQUEST_MAX_SIZE": HEADER_BYTES,  # no endpoint reads a body; Sanic wants >= the head
            "REQUEST_TIMEOUT": 10,  # to send the head: who drips bytes does not hold a connection
            "RESPONSE_TIMEOUT": response_seconds,
            "KEEP_ALIVE_TIMEOUT": 75,  # longer than proxies keep theirs (nginx: 60), so they close
            "ACCESS_LOG": False,  # a line a request costs more than a verification
            "AUTO_EXTEND": False,  # no extension that happens to be installed
            "MOTD": False,
            "TOUCHUP": optimise,
        }
    )
    app: Application = Sanic(
        name, config=config, request_class=RootedRequest, configure_logging=False
    )
    answer_errors_in_json(app)
    return app


async def start(
    app: Application, listener: socket.socket, protocol: type[asyncio.Protocol] | None = None
) -> Server:
    """Run the application's start listeners, then accept on `listener`.

    protocol: what a connection is; Sanic's own unless given.
    """
    made = await app.create_server(
        sock=listener,
        protocol=protocol,
        backlog=BACKLOG,
        asyncio_server_kwargs={"start_serving": False},
    )
    server = cast("Server", made)
    # Tells TouchUp that there is no HTTP/3 to advertise; else every answer has an empty Alt-Svc.
    settings = {"version": HTTP.VERSION_1}
    app.state.server_info.append(ApplicationServerInfo(settings=settings))
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    return server


async def drain(servers: Sequence[Server], seconds: float) -> bool:
    """Drain all servers together, within `seconds`, then run their stop listeners.

    Returns whether all requests in flight were answered.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for server in servers:
        server.app.config.KEEP_ALIVE = False
        for connection in server.connections:
            if connection.http is not None:
                connection.http.keep_alive = False
    await asyncio.sleep(min(ACCEPTING, seconds))
    for server in servers:
        server.server.close()
    linger_until = min(loop.time() + LINGER, deadline)
    while any(server.connections for server in servers) and loop.time() < deadline:
        if loop.time() >= linger_until:
            for server in servers:
                _close_idle(server)
        await asyncio.sleep(0.02)
    clean = not any(server.connections for server in servers)
    for server in servers:
        await server.before_stop()
        for connection in list(server.connections):  # each leaves the set
            logger.warning("a request was cut: the grace period of %g s is over", seconds)
            connection.abort()
        await server.after_stop()
    return clean


def _close_idle(server: Server) -> None:
    for connection in list(server.connections):
        # Idle by its stage, and nothing received since that its task has not seen yet.
        idle = connection.http is None or connection.http.stage is Stage.IDLE
        if idle and not connection.recv_buffer:
            connection.close()
