"""JWTAuth with rules from code: issuers, scopes, claims, token sources, and what nobody allows."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from sanic import HTTPResponse, Request
from sanic import json as json_answer

from app.demo.issuer import DemoIssuer
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.sanic import Access, JWTAuth, Requirement, Rule, TokenSource
from tests.keycache.sanic_api import CHALLENGE, Api, App, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = (
    Rule(path="/health", methods=("GET",), access=Access.ANONYMOUS),
    Rule(path="/maybe/**", access=Access.OPTIONAL),
    Rule(path="/orders/*", methods=("GET",), requirement=Requirement(any_scope=("read", "all"))),
    Rule(path="/orders/**", requirement=Requirement(scopes=("write",))),
    Rule(path="/tenant", requirement=Requirement(claims={"tenant": "acme"})),
    Rule(path="/partner", requirement=Requirement(issuers=("partner",))),
    Rule(path="/both", requirement=Requirement(all_issuers=("demo", "partner"))),
    Rule(path="/cookie", sources=("token",)),
    Rule(path="/signed-in"),
)
SOURCES = (
    TokenSource(header="Authorization"),
    TokenSource(header="Cf-Access-Jwt-Assertion"),
    TokenSource(cookie="token"),
)
BARE = "Cf-Access-Jwt-Assertion"


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def partner() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


def echo(app: App, _: JWTAuth) -> None:
    """Every path: who the handler thinks is there."""

    async def who(request: Request, **_: str) -> HTTPResponse:
        admitted = getattr(request.ctx, "admitted", None)
        return json_answer(
            {
                "user": getattr(request.ctx, "user", "nobody looked"),
                "issuer": admitted and admitted.issuer,
                "all": sorted(admitted.all) if admitted else [],
            }
        )

    methods = ["GET", "POST", "HEAD"]
    app.add_route(who, "/<anything:path>", name="any", methods=methods)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(demo: DemoIssuer, partner: DemoIssuer) -> AsyncIterator[Api]:
    issuers = [
        Issuer(issuer=each.url, audiences=(each.audience,), name=name)
        for name, each in (("demo", demo), ("partner", partner))
    ]
    more: dict[str, Any] = {"issuer": issuers, "rules": RULES, "sources": SOURCES}
    async with running(demo, echo, more=more) as api:
        yield api


async def test_path_without_a_rule_is_403_without_a_challenge(api: Api, demo: DemoIssuer) -> None:
    replies = [await api.get("/nowhere"), await api.bearer(demo.mint(), "/nowhere")]

    assert [(403, "no_rule", None)] * 2 == [
        (reply.status, reply.document["reason"], reply.field("www-authenticate"))
        for reply in replies
    ]


async def test_method_without_a_rule_is_403(api: Api) -> None:
    assert (200, 403) == (
        (await api.get("/health")).status,
        (await api.get("/health", method="POST")).status,
    )


async def test_anonymous_rule_looks_at_no_token(api: Api) -> None:
    reply = await api.get("/health", "Bearer a b", "Bearer c")

    assert (200, "nobody looked") == (reply.status, reply.document["user"])


async def test_optional_rule_needs_no_token_but_takes_no_bad_one(
    api: Api, demo: DemoIssuer
) -> None:
    without, good, bad = (
        await api.get("/maybe/x"),
        await api.bearer(demo.mint(sub="ada"), "/maybe/x"),
        await api.bearer(demo.mint(exp=1), "/maybe/x"),
    )

    assert (200, None) == (without.status, without.document["user"])
    assert (200, "ada") == (good.status, good.document["user"]["sub"])
    assert (401, "expired") == (bad.status, bad.document["reason"])


@pytest.mark.parametrize(
    ("request_line", "scope", "status"),
    [
        ("GET /orders/7", "read", 200),
        ("HEAD /orders/7", "read", 200),
        ("GET /orders/7", "other all", 200),
        ("GET /orders/7", "other", 403),
        ("POST /orders/7", "read", 403),
        ("POST /orders/7", "read write", 200),
        ("GET /orders/7/items", "read", 403),
        ("GET /orders/7/items", "write", 200),
    ],
)
async def test_first_rule_that_matches_says_which_scopes_are_needed(
    api: Api, demo: DemoIssuer, request_line: str, scope: str, status: int
) -> None:
    method, path = request_line.split()

    assert status == (await api.bearer(demo.mint(scope=scope), path, method)).status


async def test_one_scope_of_several_is_asked_for_by_naming_them_all(
    api: Api, demo: DemoIssuer
) -> None:
    reply = await api.bearer(demo.mint(scope="x"), "/orders/7")

    assert (reply.field("www-authenticate") or "").endswith(', scope="read all"')


async def test_claim_with_another_value_is_403_forbidden(api: Api, demo: DemoIssuer) -> None:
    replies = [await api.bearer(demo.mint(tenant=each), "/tenant") for each in ("acme", "evil")]

    assert [200, 403] == [reply.status for reply in replies]
    assert "forbidden" == replies[1].document["reason"]
    assert "evil" not in str(replies[1])


async def test_good_token_of_another_issuer_is_403_where_one_is_named(
    api: Api, demo: DemoIssuer, partner: DemoIssuer
) -> None:
    replies = [await api.bearer(each.mint(), "/partner") for each in (demo, partner)]

    assert [403, 200] == [reply.status for reply in replies]
    assert "partner" == replies[1].document["issuer"]


async def test_tokens_of_two_issuers_are_needed_where_a_rule_says_so(
    api: Api, demo: DemoIssuer, partner: DemoIssuer
) -> None:
    one, other = f"Bearer {demo.mint(sub='ada')}", partner.mint()
    reply = await api.get("/both", one, Cf_Access_Jwt_Assertion=other)

    assert 401 == (await api.get("/both", one)).status
    assert (200, "ada", ["demo", "partner"]) == (
        reply.status,
        reply.document["user"]["sub"],
        reply.document["all"],
    )


async def test_token_is_found_in_a_header_of_another_name_and_in_a_cookie(
    api: Api, demo: DemoIssuer
) -> None:
    token = demo.mint()
    replies = [
        await api.get("/signed-in", Cf_Access_Jwt_Assertion=token),
        await api.get("/signed-in", Cookie=f"other=1; token={token}"),
        await api.get("/cookie", Cookie=f"token={token}"),
    ]

    assert [200] * 3 == [reply.status for reply in replies]


async def test_two_tokens_are_400_unless_the_rule_says_which(api: Api, demo: DemoIssuer) -> None:
    token = demo.mint()
    replies = [
        await api.get(path, f"Bearer {token}", Cookie=f"token={token}")
        for path in ("/signed-in", "/cookie")
    ]

    assert [400, 200] == [reply.status for reply in replies]
    assert "multiple_tokens" == replies[0].document["reason"]


@pytest.mark.parametrize("cookie", ["token=%s; token=%s", "token=%s;token=x", "token=; token=%s"])
async def test_cookie_that_is_sent_twice_is_400(api: Api, demo: DemoIssuer, cookie: str) -> None:
    reply = await api.get("/cookie", Cookie=cookie.replace("%s", demo.mint()))

    assert (400, "multiple_tokens") == (reply.status, reply.document["reason"])


@pytest.mark.parametrize("name", ["__Host-token", "__Secure-token", "Token", "tokens"])
async def test_cookie_of_a_name_that_only_looks_alike_is_none(
    api: Api, demo: DemoIssuer, name: str
) -> None:
    assert 401 == (await api.get("/cookie", Cookie=f"{name}={demo.mint()}")).status


async def test_source_that_the_rule_does_not_name_is_not_looked_at(
    api: Api, demo: DemoIssuer
) -> None:
    reply = await api.bearer(demo.mint(), "/cookie")

    assert (401, CHALLENGE) == (reply.status, reply.field("www-authenticate"))


WRONG: list[dict[str, Any]] = [
    {"rules": [Rule(path="/a/**"), Rule(path="/a/b")]},
    {"rules": [Rule(path="a")]},
    {"rules": [Rule(path="/a", requirement=Requirement(issuers=("nobody",)))]},
    {"rules": [Rule(path="/a", sources=("nothing",))]},
    {"rules": [Rule(path="/a")], "protect": "/a"},
    {"sources": ()},
    {"resource": "api"},
    {"claims_type": object()},
    {"claims_type": Issuer.__class__},
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_settings_that_cannot_work_are_refused_before_anything_is_served(
    demo: DemoIssuer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        JWTAuth(issuer=demo.url, audience="api", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"issuers": "nobody"}, {"scopes": "é"}, {"any_scope": ['"']}, {"claims": {"": 1}}]
)
async def test_decorator_that_asks_for_the_impossible_is_refused(
    demo: DemoIssuer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        JWTAuth(issuer=demo.url, audience="api").required(**wrong)


# RFC 9728 ---------------------------------------------------------------------------------------

METADATA = "/.well-known/oauth-protected-resource/api"


@pytest.mark.parametrize("judged", [{"protect": "/"}, {"rules": [Rule(path="/api/**")]}], ids=str)
async def test_metadata_is_served_to_who_has_no_token(
    demo: DemoIssuer, judged: dict[str, Any]
) -> None:
    more = {"resource": "https://api.example.com/api", **judged}
    async with running(demo, echo, more=more) as api:
        refused, metadata = await api.get("/api/x"), await api.get(METADATA)

    assert (f'{CHALLENGE}, resource_metadata="https://api.example.com{METADATA}"') == refused.field(
        "www-authenticate"
    )
    assert (200, "application/json") == (metadata.status, metadata.field("content-type"))
    assert {
        "resource": "https://api.example.com/api",
        "authorization_servers": [demo.url],
        "bearer_methods_supported": ["header"],
    } == metadata.document


async def test_metadata_path_is_open_for_reading_only(demo: DemoIssuer) -> None:
    more = {"resource": "https://api.example.com/api", "protect": "/"}
    async with running(demo, echo, more=more) as api:
        statuses = [
            (await api.get(f"{METADATA}{more}", method=method)).status
            for method, more in (("GET", ""), ("POST", ""), ("GET", "/x"), ("GET", "/../x"))
        ]

    assert [200, 401, 401, 401] == statuses


async def test_every_refusal_says_where_the_metadata_is(demo: DemoIssuer) -> None:
    more = {"resource": "https://api.example.com", "rules": RULES[2:3]}
    async with running(demo, echo, more=more) as api:
        replies = [
            await api.bearer(demo.mint(exp=1), "/orders/7"),
            await api.bearer(demo.mint(scope="x"), "/orders/7"),
            await api.get("/orders/7", "Bearer a b"),
        ]
    wanted = f'{CHALLENGE}, resource_metadata="https://api.example.com{METADATA[:-4]}", error='

    assert [401, 403, 400] == [reply.status for reply in replies]
    assert [wanted] * 3 == [
        (reply.field("www-authenticate") or "")[: len(wanted)] for reply in replies
    ]
