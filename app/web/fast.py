"""A shorter way for `/verify`: answers of which nothing has to be waited for.

A question that is known at once costs far less to answer than a web framework's way from bytes to
handler and back. So a connection of ours looks at what arrives first. One whole, plain request for
`/verify`, on a connection where Sanic waits for a request and nothing else, is answered here; and
everything else, to the last byte, goes to Sanic as if this file were not there. Who asks cannot
tell the difference: the same function decides (`ForwardAuth.decide`), or has decided before about
the same request (`ForwardAuth.again`), the bytes are the same, and so are the timeouts, the
counting and the drain. Where in doubt, it is Sanic's.

It relies on what Sanic 25.12 does between requests (sanic/http/http1.py, `Http.http1`): it waits in
`receive_more` with `stage` IDLE, an empty buffer and no request. A body that nobody has read yet is
waited for with the request still there.
"""

import logging
from time import monotonic

from sanic import __version__ as sanic_version
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from app.web.forward_auth import Answer, ForwardAuth
from app.web.original import is_trusted
from app.web.question import parse
from keycache.token_cache import digest

logger = logging.getLogger("keycache.web")

MADE_FOR = "25.12"


def fast_protocol(forward: ForwardAuth, version: str = sanic_version) -> type[HttpProtocol] | None:
    """A protocol for `Sanic.create_server` whose connections ask `forward` themselves; None, which
    is Sanic's own, where Sanic's version is another than the one that this was made for.
    """
    if not version.startswith(f"{MADE_FOR}."):
        logger.warning("FAST_VERIFY is off: it knows Sanic %s, and this is %s", MADE_FOR, version)
        return None
    desks = {trusted: Desk(forward, trusted=trusted) for trusted in (True, False)}

    class FastVerify(HttpProtocol):
        """See the head of this file."""

        __slots__ = ("_desk",)

        def connection_made(self, transport: object) -> None:
            super().connection_made(transport)  # type: ignore[no-untyped-call] # Sanic's
            peer = self.conn_info.client_ip if self.conn_info else None
            self._desk = desks[is_trusted(peer, forward.proxies)]

        def data_received(self, data: bytes) -> None:
            answer = self._desk.answer(data) if self._waits_for_a_request() else b""
            if not answer or self.transport is None:
                super().data_received(data)
                return
            self.transport.write(answer)
            self.state["requests_count"] += 1
            self._time = monotonic()

        def _waits_for_a_request(self) -> bool:
            http = self.http
            return (
                http is not None
                and http.stage is Stage.IDLE
                and not self.recv_buffer
                and getattr(http, "request", http) is None
                and self.app.config["KEEP_ALIVE"]
                and self._can_write.is_set()
                and self.transport is not None
                and not self.transport.is_closing()
                and not self.access_log
            )

    return FastVerify


class Desk:
    """Answers the peers that are trusted proxies, or those that are not."""

    def __init__(self, forward: ForwardAuth, *, trusted: bool) -> None:
        self._forward = forward
        self._trusted = trusted
        self._kind = b"trusted" if trusted else b"stranger"

    def answer(self, data: bytes) -> bytes:
        """The answer, nothing where it is Sanic's to give.

        A client that asks the same again sends the same again, to the last byte: it is then known
        by its digest, and not read.
        """
        if len(data) > Http.HEADER_MAX_SIZE:
            return b""
        try:
            name = digest(data) + self._kind
            answer = self._forward.again(name)
            if answer is None:
                question = parse(data, Http.HEADER_MAX_SIZE, trusted=self._trusted)
                answer = self._forward.decide(question, name) if question else None
            return b"" if answer is None else answer.wire or _written(answer)
        except Exception:  # noqa: BLE001 - a bug; Sanic will meet it too, answer 500 and log it
            return b""


def _written(answer: Answer) -> bytes:
    """The bytes of an answer, as `Http.http1_response_header` writes them."""
    lines = [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
    lines.append(f"content-length: {len(answer.body)}\r\nconnection: keep-alive\r\n")
    lines.append(f"content-type: {answer.content_type}\r\n\r\n")
    status_line = format_http1_response(answer.status, ()).removesuffix(b"\r\n")
    answer.wire = status_line + "".join(lines).encode("ascii") + answer.body
    return answer.wire
