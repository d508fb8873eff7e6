"""JWTAuth around handlers: decorators, views, blueprints, WebSockets, and claims of a type."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
import pytest_asyncio
from sanic import Blueprint, HTTPResponse, Request, Websocket, text
from sanic import json as json_answer
from sanic.views import HTTPMethodView

from app.demo.issuer import DemoIssuer
from keycache.errors import ConfigurationError, Reason, TokenError
from keycache.events import Event, Refused
from keycache.issuer import Issuer
from keycache.sanic import JWTAuth
from tests.keycache.sanic_api import CHALLENGE, Api, App, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


async def sub(request: Request, **_: str) -> HTTPResponse:
    user = request.ctx.user
    return json_answer(user and user["sub"])


async def opened(_: Request) -> HTTPResponse:
    return text("open")


def handlers(app: App, auth: JWTAuth) -> None:
    """No prefix and no rule: what is guarded is guarded by name."""
    for name, asked in {
        "plain": auth.required,
        "optional": auth.optional,
        "any": auth.required(any_scope="read write"),
        "both": auth.required(scopes=["read"], any_scope=["a", "b"]),
        "claims": auth.required(claims={"realm_access.roles": {"contains": "admin"}}),
        "issuers": auth.required(issuers=["demo"]),
    }.items():
        # Each needs a function of its own, as whoever writes handlers has.
        def handler(request: Request) -> Any:  # noqa: ANN401
            return sub(request)

        app.add_route(asked(handler), f"/{name}", name=name)

    views(app, auth)
    sockets(app, auth)
    blueprints(app, auth)


def views(app: App, auth: JWTAuth) -> None:
    class View(HTTPMethodView, attach=app, uri="/view"):
        @auth.required(scopes="read")
        async def get(self, request: Request) -> HTTPResponse:
            return await sub(request)

        async def post(self, request: Request) -> HTTPResponse:
            return await opened(request)

    class Whole(HTTPMethodView, attach=app, uri="/whole"):
        decorators = [auth.required]  # noqa: RUF012 - as Sanic has it

        async def get(self, request: Request) -> HTTPResponse:
            return await sub(request)


def sockets(app: App, auth: JWTAuth) -> None:
    def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        async def log(request: Request, *args: object) -> object:
            return await handler(request, *args)

        return log

    app.add_websocket_route(logged(auth.required(scopes="read")(talk)), "/socket", name="socket")
    app.add_websocket_route(talk, "/open-socket", name="open_socket")


async def talk(_: Request, websocket: Websocket) -> None:
    await websocket.send("hello")


def blueprints(app: App, auth: JWTAuth) -> None:
    inside, group, free = Blueprint("in", "/in"), Blueprint("deep", "/deep"), Blueprint("free")
    for blueprint in (inside, group):
        blueprint.add_route(sub, "/<name:str>", name="who")
    free.add_route(opened, "/free", name="free")
    inside.add_websocket_route(talk, "/socket")
    auth.protect(inside)
    auth.protect(Blueprint.group(Blueprint.group(group), url_prefix="/group"), scopes="read")
    app.blueprint(Blueprint.group(inside, free))
    app.blueprint(Blueprint.group(group, url_prefix="/group"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(demo: DemoIssuer) -> AsyncIterator[Api]:
    async with running(demo, handlers, protect=[]) as api:
        yield api


@pytest.mark.parametrize("path", ["/plain", "/issuers", "/whole", "/in/x"])
async def test_required_is_for_good_tokens_alone(api: Api, demo: DemoIssuer, path: str) -> None:
    replies = [
        await api.get(path),
        await api.bearer(demo.mint(exp=1), path),
        await api.bearer(demo.mint(sub="ada"), path),
    ]

    assert [401, 401, 200] == [reply.status for reply in replies]
    assert "ada" == replies[2].document


async def test_optional_is_for_everybody_without_a_bad_token(api: Api, demo: DemoIssuer) -> None:
    replies = [
        await api.get("/optional"),
        await api.get("/optional", "Basic eDp5"),
        await api.bearer(demo.mint(sub="ada"), "/optional"),
        await api.bearer(demo.mint(exp=1), "/optional"),
        await api.get("/optional", "Bearer a b"),
    ]

    assert [200, 200, 200, 401, 400] == [reply.status for reply in replies]
    assert [None, None, "ada"] == [reply.document for reply in replies[:3]]


@pytest.mark.parametrize(
    ("path", "scope", "status"),
    [
        *(("/any", "read", 200), ("/any", "x write", 200), ("/any", "x", 403)),
        *(("/both", "read b", 200), ("/both", "read", 403), ("/both", "a b", 403)),
        *(("/view", "read", 200), ("/view", "x", 403)),
        *(("/group/deep/x", "read", 200), ("/group/deep/x", "x", 403)),
    ],
)
async def test_scopes_that_a_decorator_asks_for(
    api: Api, demo: DemoIssuer, path: str, scope: str, status: int
) -> None:
    assert status == (await api.bearer(demo.mint(scope=scope), path)).status


async def test_claims_that_a_decorator_asks_for(api: Api, demo: DemoIssuer) -> None:
    access = [{"roles": ["admin"]}, {"roles": ["user"]}, ["admin"], None]
    replies = [await api.bearer(demo.mint(realm_access=each), "/claims") for each in access]

    assert [200, 403, 403, 403] == [reply.status for reply in replies]


async def test_method_of_a_view_is_guarded_without_the_others(api: Api) -> None:
    assert (401, 200) == (
        (await api.get("/view")).status,
        (await api.get("/view", method="POST")).status,
    )


async def test_blueprint_is_guarded_and_its_neighbour_is_not(api: Api) -> None:
    paths = ("/in/x", "/group/deep/x", "/free")

    assert [401, 401, 200] == [(await api.get(path)).status for path in paths]


async def test_blueprint_that_the_application_has_already_is_refused(api: Api) -> None:
    with pytest.raises(ConfigurationError, match="too late"):
        api.auth.protect(api.app.blueprints["free"])


@pytest.mark.parametrize("path", ["/socket", "/in/socket"])
async def test_handshake_without_a_token_is_refused_before_the_upgrade(
    api: Api, demo: DemoIssuer, path: str
) -> None:
    good = f"Authorization: Bearer {demo.mint(scope='read')}"
    without, granted = await api.shake(path), await api.shake(path, good)

    assert (401, CHALLENGE) == (without.status, without.field("www-authenticate"))
    assert 101 == granted.status


async def test_handshake_with_too_few_scopes_is_403(api: Api, demo: DemoIssuer) -> None:
    few = f"Authorization: Bearer {demo.mint(scope='write')}"

    assert 403 == (await api.shake("/socket", few)).status


async def test_handshake_of_an_open_websocket_needs_no_token(api: Api) -> None:
    assert 101 == (await api.shake("/open-socket")).status


async def test_refusal_is_a_fact_for_the_observer(demo: DemoIssuer) -> None:
    facts: list[Event] = []

    async with running(demo, handlers, protect=[], more={"observer": facts.append}) as api:
        await api.shake("/socket")

    assert [Refused(Reason.NO_TOKEN)] == [fact for fact in facts if isinstance(fact, Refused)]


async def test_application_that_starts_again_guards_its_websockets_once(demo: DemoIssuer) -> None:
    asked: list[Request] = []

    def refused(request: Request, _error: object, _answer: object) -> None:
        asked.append(request)

    async with running(demo, handlers, protect=[], more={"on_refusal": refused}) as api:
        await api.auth._open(asked_app := api.app)
        await api.auth._close(asked_app)
        await api.shake("/socket")

    assert 1 == len(asked)


async def test_jwtauth_beside_another_one_does_not_take_its_word(
    demo: DemoIssuer,
) -> None:
    def two(app: App, _: JWTAuth) -> None:
        other = JWTAuth(app, issuer=Issuer(issuer=demo.url, audiences=("other",)))

        @app.get("/api/both")
        @other.required
        async def both(request: Request) -> HTTPResponse:
            return await sub(request)

    async with running(demo, two) as api:
        replies = [
            await api.bearer(demo.mint(aud=aud), "/api/both")
            for aud in (demo.audience, "other", [demo.audience, "other"])
        ]

    assert [401, 401, 200] == [reply.status for reply in replies]


async def test_two_applications_may_share_one_jwtauth(demo: DemoIssuer) -> None:
    async with running(demo, handlers, protect=[]) as first:
        runtime = first.auth.runtime
        async with running(demo, handlers, shared=first.auth) as second:
            token = demo.mint()
            statuses = [(await each.bearer(token, "/plain")).status for each in (first, second)]
            assert runtime is second.auth.runtime
        after = (await first.bearer(token, "/plain")).status

    assert ([200, 200], 200) == (statuses, after)


async def test_claims_are_had_by_hand_too(demo: DemoIssuer) -> None:
    def by_hand(app: App, auth: JWTAuth) -> None:
        @app.get("/hand")
        async def hand(request: Request) -> HTTPResponse:
            try:
                claims = await auth.authenticate(request)
            except TokenError as error:
                return text(str(error.reason), status=418)
            return json_answer(claims["sub"])

    async with running(demo, by_hand, protect=[]) as api:
        assert (418, b"no_token") == (await api.get("/hand"))[::2]
        assert "ada" == (await api.bearer(demo.mint(sub="ada"), "/hand")).document


# Claims of a type -------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsDataclass:
    sub: str
    roles: list[str]
    exp: int
    tenant: str = "none"


class AsStruct(msgspec.Struct):
    sub: str
    roles: tuple[str, ...]
    exp: float
    tenant: str = "none"


class AsModel(pydantic.BaseModel):
    sub: str
    roles: frozenset[str]
    exp: int
    tenant: str = "none"


class AsDictionary(TypedDict):
    sub: str
    roles: list[str]


TYPES = [AsDataclass, AsStruct, AsModel, AsDictionary]


def typed(app: App, auth: JWTAuth) -> None:
    @app.get("/typed")
    @auth.optional
    async def show(request: Request) -> HTTPResponse:
        user, claims = request.ctx.user, request.ctx.admitted.claims
        if user is None:
            return json_answer(None)
        values = user if isinstance(user, dict) else {n: getattr(user, n) for n in ("sub", "roles")}
        kind = type(user).__name__
        return json_answer([kind, values["sub"], sorted(values["roles"]), claims["sub"]])


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
async def test_user_is_an_object_of_the_type_that_was_asked_for(
    demo: DemoIssuer, kind: type
) -> None:
    async with running(demo, typed, protect=[], more={"claims_type": kind}) as api:
        token = demo.mint(sub="ada", roles=["b", "a"], nobody_asked_for="this")
        replies = [await api.bearer(token, "/typed") for _ in range(2)]
        without = await api.get("/typed")

    name = "dict" if kind is AsDictionary else kind.__name__
    assert [[name, "ada", ["a", "b"], "ada"]] * 2 == [reply.document for reply in replies]
    assert (200, None) == (without.status, without.document)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("roles", [None, "admin", [7], {"admin": True}], ids=str)
async def test_claims_that_do_not_fit_are_401_and_are_not_repeated(
    demo: DemoIssuer, kind: type, roles: object
) -> None:
    async with running(demo, typed, protect=[], more={"claims_type": kind}) as api:
        reply = await api.bearer(demo.mint(roles=roles), "/typed")

    details = "The claims of the token are not those that are needed here."
    assert (401, {"error": "Invalid token", "reason": "invalid_claim", "details": details}) == (
        reply.status,
        reply.document,
    )


async def test_why_claims_do_not_fit_is_told_to_the_log(demo: DemoIssuer) -> None:
    errors: list[TokenError] = []

    def refused(_request: Request, error: TokenError, _answer: object) -> None:
        errors.append(error)

    more = {"claims_type": AsDataclass, "on_refusal": refused}
    async with running(demo, typed, protect=[], more=more) as api:
        await api.bearer(demo.mint(roles="admin"), "/typed")

    assert ["Expected `array`, got `str` - at `$.roles`"] == [str(e.__cause__) for e in errors]


async def test_object_is_made_anew_for_every_request(demo: DemoIssuer) -> None:
    def changes(app: App, auth: JWTAuth) -> None:
        @app.get("/change")
        @auth.required
        async def change(request: Request) -> HTTPResponse:
            before = list(request.ctx.user.roles)
            request.ctx.user.roles.append("admin")
            return json_answer(before)

    async with running(demo, changes, protect=[], more={"claims_type": AsDataclass}) as api:
        token = demo.mint(roles=["user"])

        assert [["user"]] * 3 == [(await api.bearer(token, "/change")).document for _ in range(3)]
