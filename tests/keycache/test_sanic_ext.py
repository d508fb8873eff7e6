"""JWTAuth where sanic-ext is: claims as arguments of handlers, and OpenAPI's security schemes."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from sanic import Blueprint, HTTPResponse, Request, text
from sanic import json as json_answer
from sanic.views import HTTPMethodView
from sanic_ext import Extend
from sanic_ext.extensions.openapi.builders import OperationStore, SpecificationBuilder

from app.demo.issuer import DemoIssuer
from keycache import Claims
from keycache.sanic import Access, JWTAuth, Requirement, Rule, TokenSource
from tests.keycache.sanic_api import CHALLENGE, Api, App, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class User:
    sub: str
    scope: str = ""


MORE = {
    "claims_type": User,
    "sources": [
        TokenSource(header="Authorization"),
        TokenSource(header="Cf-Access-Jwt-Assertion"),
        TokenSource(cookie="token"),
    ],
    "rules": [
        Rule(path="/api/**", requirement=Requirement(scopes=("api",))),
        Rule(path="/maybe/**", access=Access.OPTIONAL, sources=("token",)),
        Rule(path="/**", access=Access.ANONYMOUS),
    ],
}


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


def extended(app: App, auth: JWTAuth) -> None:
    OperationStore.reset()  # type: ignore[no-untyped-call]
    SpecificationBuilder.reset()  # type: ignore[no-untyped-call]
    Extend(app)

    @app.get("/api/<name:str>")
    async def api(_: Request, name: str, user: User) -> HTTPResponse:
        return json_answer([name, user.sub])

    @app.get("/asks")
    async def asks(_: Request, claims: Claims) -> HTTPResponse:
        return json_answer(claims["sub"])

    @app.get("/maybe/asks")
    async def maybe(_: Request, claims: Claims | None, user: User | None) -> HTTPResponse:
        return json_answer([claims and claims["sub"], user and user.sub])

    @app.get("/scopes")
    @auth.required(scopes="a", any_scope="b c")
    async def scopes(_: Request, user: User, claims: Claims) -> HTTPResponse:
        return json_answer([user.sub, claims["sub"]])

    @app.get("/optional")
    @auth.optional
    async def optional(_: Request, user: User | None) -> HTTPResponse:
        return json_answer(user and user.sub)

    class View(HTTPMethodView, attach=app, uri="/view"):
        @auth.required
        async def get(self, _: Request, user: User) -> HTTPResponse:
            return json_answer(user.sub)

        @auth.optional
        async def post(self, _: Request, user: User | None) -> HTTPResponse:
            return json_answer(user and user.sub)

    blueprint = Blueprint("inside", "/inside")

    @blueprint.get("/")
    async def inside(_: Request, user: User) -> HTTPResponse:
        return json_answer(user.sub)

    auth.protect(blueprint, scopes="in")
    app.blueprint(blueprint)

    @app.get("/open")
    async def opened(_: Request) -> HTTPResponse:
        return text("open")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(demo: DemoIssuer) -> AsyncIterator[Api]:
    async with running(demo, extended, more=MORE) as api:
        yield api


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        *(("/api/x", ["x", "ada"]), ("/asks", "ada"), ("/scopes", ["ada", "ada"])),
        *(("/optional", "ada"), ("/view", "ada"), ("/inside/", "ada")),
    ],
)
async def test_claims_are_injected_by_type(
    api: Api, demo: DemoIssuer, path: str, answer: object
) -> None:
    reply = await api.bearer(demo.mint(sub="ada", scope="api a b in"), path)

    assert (200, answer) == (reply.status, reply.document)


async def test_claims_from_the_source_that_the_rule_names(api: Api, demo: DemoIssuer) -> None:
    reply = await api.get("/maybe/asks", Cookie=f"token={demo.mint(sub='ada')}")

    assert ["ada", "ada"] == reply.document


@pytest.mark.parametrize(("path", "answer"), [("/maybe/asks", [None, None]), ("/optional", None)])
async def test_none_is_injected_where_no_token_is_needed(
    api: Api, path: str, answer: object
) -> None:
    reply = await api.get(path)

    assert (200, answer) == (reply.status, reply.document)


@pytest.mark.parametrize("path", ["/api/x", "/asks", "/scopes", "/view", "/inside/"])
async def test_who_asks_for_claims_needs_a_token(api: Api, demo: DemoIssuer, path: str) -> None:
    replies = [await api.get(path), await api.bearer(demo.mint(exp=1), path)]

    assert [401, 401] == [reply.status for reply in replies]
    assert CHALLENGE == replies[0].field("www-authenticate")
    assert {"error": "No token provided"} == replies[0].document


@pytest.mark.parametrize("path", ["/api/x", "/scopes", "/inside/"])
async def test_injected_claims_are_held_against_the_rule(
    api: Api, demo: DemoIssuer, path: str
) -> None:
    assert 403 == (await api.bearer(demo.mint(scope="none"), path)).status


async def test_method_of_a_view_has_its_own_rule(api: Api) -> None:
    statuses = [(await api.get("/view", method=method)).status for method in ("GET", "POST")]

    assert [401, 200] == statuses


async def test_injection_does_not_verify_a_token_twice(demo: DemoIssuer) -> None:
    async with running(demo, extended, more=MORE) as api:
        await api.bearer(demo.mint(scope="a b"), "/scopes")

    assert 1 == sum(type(event).__name__ == "Verified" for event in api.events)


# OpenAPI ----------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(demo: DemoIssuer) -> Any:  # noqa: ANN401
    async with running(demo, extended, more=MORE) as api:
        return (await api.get("/docs/openapi.json")).document


async def test_sources_of_tokens_are_security_schemes(document: Any) -> None:  # noqa: ANN401
    assert {
        "authorization": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "cf-access-jwt-assertion": {
            "type": "apiKey",
            "in": "header",
            "name": "cf-access-jwt-assertion",
        },
        "token": {"type": "apiKey", "in": "cookie", "name": "token"},
    } == document["components"]["securitySchemes"]


ALL: list[dict[str, list[str]]] = [
    {"authorization": []},
    {"cf-access-jwt-assertion": []},
    {"token": []},
]


@pytest.mark.parametrize(
    ("path", "security"),
    [
        *(("/api/{name}", ALL), ("/scopes", ALL), ("/view", ALL), ("/inside", ALL)),
        *(("/optional", [{}, *ALL]), ("/maybe/asks", [{}, {"token": []}]), ("/open", None)),
    ],
)
async def test_operation_says_which_tokens_it_needs(
    document: Any,  # noqa: ANN401
    path: str,
    security: object,
) -> None:
    assert security == document["paths"][path]["get"].get("security")


async def test_operation_says_how_it_refuses(document: Any) -> None:  # noqa: ANN401
    responses = document["paths"]["/scopes"]["get"]["responses"]

    assert {
        "401": "No token, or one that is not good.",
        "403": "The token must grant a, b or c.",
    } == {status: each["description"] for status, each in responses.items()}
