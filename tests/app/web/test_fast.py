"""Connections that answer plain questions themselves: what goes to Sanic, timeouts, the drain."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from itertools import count
from typing import cast

import pytest
from sanic import HTTPResponse, Request, Sanic, text
from sanic.http import Http

from app.web import fast
from app.web.api import add_verify
from app.web.fast import fast_protocol
from app.web.forward_auth import Answer, ForwardAuth
from app.web.server import Application, Server, application, drain, start
from keycache.core.claims import Claims
from keycache.errors import Reason, TokenError
from keycache.rules import Requirement, Rule, RuleTable
from keycache.token_cache import Accepted, digest
from tests.keycache.core import forge

GOOD = b"GET /verify HTTP/1.1\r\nAuthorization: Bearer good\r\n\r\n"
SLOW = GOOD.replace(b"good", b"slow")
BAD = GOOD.replace(b"good", b"bad")
SECONDS = 20.0

_numbers = count()


class Authenticator:
    """Knows a good token, and has to wait for a slow one. `broken`: it has a bug. `revoked`: the
    good one is good no more. `names`: what was let in by which token.
    """

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.broken = False
        self.revoked = False
        self.names: dict[bytes, Accepted] = {}
        self._accepted: dict[str, Accepted] = {}

    def known(self, text: str, /) -> Accepted | None:
        if self.broken:
            raise ZeroDivisionError
        if text == "bad":
            raise TokenError(Reason.EXPIRED, "The token has expired.")
        if self.revoked:
            raise TokenError(Reason.REVOKED, "The token has been revoked.")
        if text == "slow":
            return None
        if text in self._accepted:
            self._accepted[text].found = True
        made = forge.accepted(Claims(iss=forge.issuer().issuer, sub=text))
        return self._accepted.setdefault(text, made)

    def still(self, accepted: Accepted, /) -> bool:
        return not self.revoked

    def named(self, name: bytes, /) -> Accepted | None:
        return None if self.revoked else self.names.get(name)

    def name(self, accepted: Accepted, name: bytes, /) -> None:
        self.names[name] = accepted

    async def authenticate(self, text: str, /) -> Claims:
        await self.may_go_on.wait()
        return Claims(iss=forge.issuer().issuer, sub=text)


class Running:
    """A server on a port of this loop. seen: how many requests Sanic has had."""

    def __init__(self, app: Application, server: Server, port: int, auth: Authenticator) -> None:
        self.app, self.server, self.port, self.auth = app, server, port, auth
        self.seen = 0
        self.clients: list[Client] = []

    async def connect(self) -> "Client":
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """The head of the answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def closed(self) -> bytes:
        """What still comes, until it is closed."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()


def refuse(_: object, error: Exception) -> Answer:
    return Answer(401, {"X-Why": str(error)}, b"", "text/plain")


@asynccontextmanager
async def running(*, fast: bool = True, **config: object) -> AsyncIterator[Running]:
    app = application(f"fast-{next(_numbers)}", response_seconds=SECONDS)
    app.config.update(config)
    forward = ForwardAuth(RuleTable((), issuers=[forge.issuer()]), refuse)
    add_verify(app, forward)
    auth = Authenticator()
    forward.open(auth)

    @app.on_request
    async def seen(_: Request) -> None:
        made.seen += 1

    @app.post("/length")
    async def length(request: Request) -> HTTPResponse:
        return text(str(len(request.body)))

    listener = socket.create_server(("127.0.0.1", 0))
    server = await start(app, listener, fast_protocol(forward) if fast else None)
    made = Running(app, server, listener.getsockname()[1], auth)
    try:
        yield made
    finally:
        for client in made.clients:
            client.writer.close()
        await drain([server], 0.0)
        Sanic.unregister_app(app)


async def test_plain_questions_never_reach_sanic() -> None:
    async with running() as service:
        client = await service.connect()
        heads = [await client.ask(question) for question in (GOOD, BAD, GOOD)]
        assert [b"200", b"401", b"200"] == [head[9:12] for head in heads]
        assert 0 == service.seen


async def test_request_that_comes_again_is_judged_again() -> None:
    async with running() as service:
        client = await service.connect()
        first, *others = [await client.ask(GOOD) for _ in range(4)]
        assert [first] * 3 == others
        service.auth.revoked = True
        assert b"The token has been revoked." in await client.ask(GOOD)
        assert 0 == service.seen


def desks(
    monkeypatch: pytest.MonkeyPatch, *rules: Rule
) -> tuple[fast.Desk, fast.Desk, Authenticator]:
    """For trusted proxies and for strangers, and who knows tokens for both."""
    monkeypatch.setattr(Http, "HEADER_MAX_SIZE", 16384)  # as a server that starts sets it
    proxies = [ip_network("127.0.0.1")]
    forward = ForwardAuth(RuleTable(rules, issuers=[forge.issuer()]), refuse, proxies=proxies)
    auth = Authenticator()
    forward.open(auth)
    return fast.Desk(forward, trusted=True), fast.Desk(forward, trusted=False), auth


def about(path: str) -> bytes:
    """What a proxy asks about a request for this path, with a good token."""
    original = f"X-Original-Method: GET\r\nX-Original-URI: {path}\r\n\r\n"
    return GOOD[:-2] + original.encode()


def status(answer: bytes) -> bytes:
    return answer[9:12]


def test_request_is_known_by_its_digest_once_its_good_token_has_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, _, auth = desks(monkeypatch)
    for _ in range(3):
        desk.answer(BAD)
        desk.answer(SLOW)
    first = desk.answer(GOOD)
    assert {} == auth.names
    assert [first] * 3 == [desk.answer(GOOD) for _ in range(3)]
    assert [digest(GOOD)] == [name[:32] for name in auth.names]


def test_request_that_is_known_by_its_digest_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, _, _ = desks(monkeypatch)
    answers = [desk.answer(GOOD) for _ in range(2)]
    monkeypatch.setattr(fast, "parse", lambda *_, **__: None)
    assert answers[:1] * 3 == [*answers, desk.answer(GOOD)]
    assert b"" == desk.answer(GOOD.replace(b"good", b"also"))


def test_nothing_that_was_sent_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, _, auth = desks(monkeypatch)
    for _ in range(3):
        desk.answer(GOOD)
    assert not [name for name in auth.names if b"good" in name]
    assert b"Bearer" not in repr(vars(desk)).encode()


def test_word_of_a_stranger_is_not_believed_because_a_proxy_said_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusted, strange, _ = desks(monkeypatch, Rule(path="/open"))
    assert [b"200"] * 3 == [status(trusted.answer(about("/open"))) for _ in range(3)]
    assert [b"401"] * 3 == [status(strange.answer(about("/open"))) for _ in range(3)]


def test_request_that_a_rule_refuses_is_refused_again_whatever_else_its_token_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = Rule(path="/strict", requirement=Requirement(scopes=("more",)))
    desk, _, _ = desks(monkeypatch, Rule(path="/open"), strict)
    for _ in range(3):
        assert b"200" == status(desk.answer(about("/open")))
        assert b"401" == status(desk.answer(about("/strict")))


OTHERS = {
    "one that has to wait": SLOW,
    "with a body": GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"),
    "HEAD": GOOD.replace(b"GET", b"HEAD"),
    "HTTP/1.0": GOOD.replace(b"1.1", b"1.0"),
    "close": GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "upgrade": GOOD.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n"),
    "another path": GOOD.replace(b"/verify", b"/other"),
    "a fragment": GOOD.replace(b"/verify", b"/verify#x"),
    "not ASCII": GOOD.replace(b"\r\n\r\n", b"\r\nA: \xc3\xa9\r\n\r\n"),
    "a head that is too large": GOOD.replace(b"\r\n\r\n", b"\r\nA: " + b"a" * 16384 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("request_", OTHERS.values(), ids=OTHERS)
async def test_everything_else_goes_to_sanic(request_: bytes) -> None:
    async with running() as service:
        service.auth.may_go_on.set()
        client = await service.connect()
        assert (await client.ask(request_)).startswith(b"HTTP/1.1 ")
        assert 1 == service.seen


async def test_question_that_comes_in_pieces_goes_to_sanic_and_the_next_does_not() -> None:
    async with running() as service:
        client = await service.connect()
        client.writer.write(GOOD[:20])
        await asyncio.sleep(0.05)
        assert b"200" == (await client.ask(GOOD[20:]))[9:12]
        assert b"200" == (await client.ask(GOOD))[9:12]
        assert 1 == service.seen


async def test_question_behind_half_a_request_is_its_other_half() -> None:
    async with running() as service:
        client = await service.connect()
        await client.ask(GOOD)
        (connection,) = cast("set[asyncio.Protocol]", service.server.connections)
        connection.data_received(b"GET /other HTTP/1.1\r\n")  # both in one turn of the loop
        connection.data_received(GOOD)
        assert b"400" == (await client.answer())[9:12]


async def test_question_behind_one_that_waits_is_answered_after_it() -> None:
    async with running() as service:
        client = await service.connect()
        client.writer.write(SLOW)
        await asyncio.sleep(0.05)
        client.writer.write(GOOD)
        await asyncio.sleep(0.05)
        service.auth.may_go_on.set()
        heads = [await client.answer(), await client.answer()]
        assert [b"X-Auth-Subject: slow", b"X-Auth-Subject: good"] == [
            head.split(b"\r\n")[1] for head in heads
        ]


async def test_body_that_looks_like_a_question_is_a_body() -> None:
    async with running() as service:
        client = await service.connect()
        client.writer.write(b"POST /length HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(GOOD))
        await asyncio.sleep(0.05)
        await client.ask(GOOD)
        assert str(len(GOOD)).encode() == await client.reader.readexactly(2)


async def test_body_that_nobody_reads_is_no_question() -> None:
    async with running() as service:
        client = await service.connect()
        lost = b"POST /nowhere HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(GOOD)
        assert b"404" == (await client.ask(lost))[9:12]
        await client.reader.readuntil(b"}")
        client.writer.write(GOOD)  # the body of what was not found
        await asyncio.sleep(0.05)
        assert b"401" == (await client.ask(BAD))[9:12]


async def test_bug_is_answered_500_as_ever() -> None:
    async with running() as service:
        service.auth.broken = True
        client = await service.connect()
        assert b"500" == (await client.ask(GOOD))[9:12]


async def test_nothing_is_written_to_a_client_that_does_not_read() -> None:
    async with running() as service:
        client = await service.connect()
        await client.ask(GOOD)
        (connection,) = cast("set[asyncio.Protocol]", service.server.connections)
        connection.pause_writing()  # as the loop does when too much waits to be sent
        client.writer.write(GOOD)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.1)
        connection.resume_writing()
        assert b"200" == (await client.answer())[9:12]


@pytest.mark.parametrize("fast", [True, False])
async def test_connection_is_kept_while_it_asks_and_closed_when_it_does_not(fast: object) -> None:
    async with running(fast=bool(fast), KEEP_ALIVE_TIMEOUT=1.0) as service:
        client = await service.connect()
        for _ in range(8):  # longer, all in all, than the timeout
            assert b"200" == (await client.ask(GOOD))[9:12]
            await asyncio.sleep(0.15)
        assert b"" == await client.closed()


@pytest.mark.parametrize("fast", [True, False])
async def test_drain_answers_the_next_question_with_close(fast: object) -> None:
    async with running(fast=bool(fast)) as service:
        client = await service.connect()
        assert b"connection: keep-alive" in await client.ask(GOOD)
        draining = asyncio.create_task(drain([service.server], SECONDS))
        await asyncio.sleep(0)
        assert b"connection: close" in await client.ask(GOOD)
        assert b"" == await client.closed()
        assert await draining


async def test_drain_closes_a_connection_that_only_asked_plain_questions() -> None:
    async with running() as service:
        client = await service.connect()
        await client.ask(GOOD)
        assert await drain([service.server], SECONDS)
        assert b"" == await client.closed()


def test_sanic_of_another_version_keeps_its_own_connections() -> None:
    forward = ForwardAuth(RuleTable((), issuers=[forge.issuer()]), refuse)
    made = [fast_protocol(forward, version) for version in ("25.12.0", "25.12.9", "26.3.0", "25.1")]
    assert [True, True, False, False] == [each is not None for each in made]
