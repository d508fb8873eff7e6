"""JWTAuth in real Sanic applications, asked over real sockets: the contract on the wire."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sanic import HTTPResponse, Request, text
from sanic import json as json_answer

from app.demo.issuer import DemoIssuer
from keycache.core.freshness import Lifetimes
from keycache.events import Path, Rejected, Verified
from keycache.sanic import JWTAuth
from tests.keycache.sanic_api import CHALLENGE, CLOSED, SECRET, Api, App, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoIssuer]:
    """An issuer that every test may ask, and none may change."""
    with DemoIssuer() as issuer:
        yield issuer


@pytest.fixture
def own() -> Iterator[DemoIssuer]:
    """An issuer for this test alone."""
    with DemoIssuer() as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(demo: DemoIssuer) -> AsyncIterator[Api]:
    """An application for every test that leaves it as it is."""
    async with running(demo) as api:
        yield api


# The contract -----------------------------------------------------------------------------------


async def test_good_token_is_let_in_and_its_claims_are_the_user(api: Api, demo: DemoIssuer) -> None:
    reply = await api.bearer(demo.mint(sub="ada", roles=["x", {"y": 1}]))

    assert (200, SECRET) == (reply.status, reply.document["message"])
    user = reply.document["user"]
    assert (demo.url, "ada", ["x", {"y": 1}]) == (user["iss"], user["sub"], user["roles"])


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_tokens_of_every_default_algorithm_are_let_in(
    api: Api, demo: DemoIssuer, alg: str
) -> None:
    assert 200 == (await api.bearer(demo.mint(alg=alg))).status


async def test_nothing_sent_is_401_without_an_error_code(api: Api) -> None:
    reply = await api.get()

    assert (401, {"error": "No token provided"}) == (reply.status, reply.document)
    assert CHALLENGE == reply.field("www-authenticate")


def described(code: str, details: str, more: str = "") -> str:
    return f'{CHALLENGE}, error="{code}", error_description="{details}"{more}'


async def test_bad_token_is_401_with_reason_details_and_challenge(
    api: Api, demo: DemoIssuer
) -> None:
    reply = await api.bearer(demo.mint(exp=1))

    details = "The token has expired."
    assert (401, {"error": "Invalid token", "reason": "expired", "details": details}) == (
        reply.status,
        reply.document,
    )
    assert described("invalid_token", details) == reply.field("www-authenticate")
    assert ("no-store", "application/json") == (
        reply.field("cache-control"),
        reply.field("content-type"),
    )


NOW = int(time.time())


@pytest.mark.parametrize(
    ("reason", "claims", "headers"),
    [
        ("expired", {"exp": NOW - 31}, {}),
        ("not_yet_valid", {"nbf": NOW + 3600}, {}),
        ("wrong_audience", {"aud": "somebody else"}, {}),
        ("unknown_issuer", {"iss": "https://evil.example.com"}, {}),
        ("missing_claim", {"exp": None}, {}),
        ("missing_claim", {"iss": None}, {}),
        ("invalid_claim", {"exp": "soon"}, {}),
        ("invalid_claim", {"aud": 7}, {}),
        ("wrong_type", {}, {"typ": "id+jwt"}),
        ("unsupported_header", {}, {"crit": ["exp"]}),
        ("malformed", {}, {"kid": "x" * 129}),
        ("too_large", {"filler": "x" * 8192}, {}),
    ],
)
async def test_refused_token_has_its_reason_on_the_wire(
    api: Api, demo: DemoIssuer, reason: str, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    reply = await api.bearer(demo.mint(headers=headers, **claims))

    assert (401, reason) == (reply.status, reply.document["reason"])


async def test_forged_signature_is_401_bad_signature(api: Api, demo: DemoIssuer) -> None:
    forged = demo.forge(alg="RS256", kid=demo.kids("RS256")[-1])

    assert "bad_signature" == (await api.bearer(forged)).document["reason"]


async def test_kid_that_the_issuer_does_not_have_is_401_unknown_key(demo: DemoIssuer) -> None:
    async with running(demo) as api:
        assert "unknown_key" == (await api.bearer(demo.forge())).document["reason"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b'{"alg":"none","kid":"x"}', "unsupported_algorithm"),
        (b'{"alg":"HS256","kid":"x"}', "unsupported_algorithm"),
        (b'{"alg":"RS256"}', "missing_kid"),
    ],
)
async def test_header_that_no_key_could_help_is_refused(
    api: Api, demo: DemoIssuer, header: bytes, reason: str
) -> None:
    _, payload, signature = demo.mint().split(".")
    encoded = base64.urlsafe_b64encode(header).decode().rstrip("=")

    reply = await api.bearer(f"{encoded}.{payload}.{signature}")

    assert (401, reason) == (reply.status, reply.document["reason"])


# Scopes -----------------------------------------------------------------------------------------


async def test_missing_scope_is_403_and_names_what_is_needed(api: Api, demo: DemoIssuer) -> None:
    reply = await api.bearer(demo.mint(scope="read write"), "/admin")

    details = "The token does not grant what this request needs."
    assert (
        403,
        {"error": "Insufficient scope", "reason": "insufficient_scope", "details": details},
    ) == (reply.status, reply.document)
    assert described("insufficient_scope", details, ', scope="admin read"') == reply.field(
        "www-authenticate"
    )


@pytest.mark.parametrize(
    "claims",
    [{"scope": "read admin more"}, {"scope": None, "scp": ["admin", "read"]}, {"scp": "admin"}],
)
async def test_granted_scopes_are_let_in(
    api: Api, demo: DemoIssuer, claims: dict[str, Any]
) -> None:
    assert 200 == (await api.bearer(demo.mint(**claims), "/admin")).status


@pytest.mark.parametrize(
    "scope", ["", "administrator read", "admin", "ADMIN READ", 7, None, {"admin": 1}, [["admin"]]]
)
async def test_scopes_that_are_not_all_granted_are_403(
    api: Api, demo: DemoIssuer, scope: object
) -> None:
    assert 403 == (await api.bearer(demo.mint(scope=scope), "/admin")).status


async def test_prefix_and_scopes_together_verify_a_token_once(demo: DemoIssuer) -> None:
    async with running(demo) as api:
        await api.bearer(demo.mint(scope="admin"), "/api/admin")

    assert 1 == sum(isinstance(event, Verified) for event in api.events)


async def test_without_a_token_scopes_are_not_told(api: Api) -> None:
    reply = await api.get("/admin")

    assert (401, CHALLENGE) == (reply.status, reply.field("www-authenticate"))


# The header -------------------------------------------------------------------------------------

MALFORMED, NOTHING = (400, "malformed_header"), (401, None)
TWICE = (400, "multiple_tokens")
GOOD = (200, None)
BAD = (401, "malformed")

HEADERS: dict[str, tuple[list[bytes], tuple[int, str | None]]] = {
    "as it should be": ([b"Bearer %b"], GOOD),
    "lower case": ([b"bearer %b"], GOOD),
    "upper case": ([b"BEARER %b"], GOOD),
    "mixed case": ([b"bEaReR %b"], GOOD),
    "several spaces": ([b"Bearer   %b"], GOOD),
    "white space around": ([b" \t Bearer %b \t "], GOOD),
    "two fields, both good": ([b"Bearer %b", b"Bearer %b"], TWICE),
    "two fields, one empty": ([b"", b"Bearer %b"], TWICE),
    "two fields, one of another scheme": ([b"Basic eDp5", b"Bearer %b"], TWICE),
    "two tokens": ([b"Bearer %b %b"], MALFORMED),
    "two tokens with a comma": ([b"Bearer %b, Bearer %b"], MALFORMED),
    "comma at the end": ([b"Bearer %b,"], MALFORMED),
    "a parameter": ([b'Bearer %b, realm="x"'], MALFORMED),
    "tab inside": ([b"Bearer %b\tx"], MALFORMED),
    "scheme alone": ([b"Bearer"], MALFORMED),
    "scheme and spaces": ([b"Bearer    "], MALFORMED),
    "tab instead of a space": ([b"Bearer\t%b"], NOTHING),
    "nothing between": ([b"Bearer%b"], NOTHING),
    "no scheme": ([b"%b"], NOTHING),
    "empty": ([b""], NOTHING),
    "spaces": ([b"   "], NOTHING),
    "Token": ([b"Token %b"], NOTHING),
    "XBearer": ([b"XBearer %b"], NOTHING),
    "Bearer:": ([b"Bearer: %b"], NOTHING),
    "Basic": ([b"Basic eDp5"], NOTHING),
    "DPoP": ([b"DPoP %b"], NOTHING),
    "quoted": ([b'Bearer "%b"'], BAD),
    "Bearer twice": ([b"Bearer Bearer"], BAD),
    "four letters more": ([b"Bearer %bAAAA"], (401, "bad_signature")),
    "padding": ([b"Bearer %b="], BAD),
    "Latin-1": ([b"Bearer \xe9.\xff.\x80"], BAD),
    "UTF-8": (["Bearer ünï.cö.dé".encode()], BAD),
    "no-break space": ([b"Bearer\xa0%b"], NOTHING),
    "zero byte": ([b"Bearer %b\x00"], BAD),
    "escape sequence": ([b"Bearer \x1b[31m"], BAD),
    "dots": ([b"Bearer .."], BAD),
    "many dots": ([b"Bearer " + b"." * 8000], BAD),
    "12,000 letters": ([b"Bearer " + b"x" * 12_000], (401, "too_large")),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_header_has_one_meaning(api: Api, demo: DemoIssuer, name: str) -> None:
    templates, expected = HEADERS[name]
    token = demo.mint(alg="RS256").encode()
    reply = await api.get("/api/reports", *(field.replace(b"%b", token) for field in templates))

    assert expected == (reply.status, reply.document.get("reason"))
    assert SECRET.encode() in reply.body or 200 != reply.status


async def test_token_of_a_hundred_kilobytes_is_refused_by_one_limit_or_another(api: Api) -> None:
    reply = await api.bearer("x" * 100_000)

    assert reply.status in (400, 401, 403, 413)


async def test_folded_header_is_no_way_to_hide_a_token(api: Api, demo: DemoIssuer) -> None:
    request = (
        b"GET /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer\r\n %b\r\n\r\n"
    )
    reply = await api.raw(request.replace(b"%b", demo.mint().encode()))

    assert reply.status in (400, 401)


@pytest.mark.parametrize(
    "path", ["/api/reports?access_token=%s", "/api/reports?token=%s", "/api/reports#%s"]
)
async def test_token_in_the_url_is_not_read(api: Api, demo: DemoIssuer, path: str) -> None:
    """RFC 6750 section 2.3 advises against it; and URLs stand in every log."""
    assert 401 == (await api.get(path % demo.mint())).status


async def test_token_in_a_cookie_or_another_header_is_not_read(api: Api, demo: DemoIssuer) -> None:
    token = demo.mint()
    reply = await api.get(
        Cookie=f"access_token={token}", X_Authorization=f"Bearer {token}", Token=token
    )

    assert 401 == reply.status


# Prefixes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api?x=1",
        "/api#x",
        "/api/reports",
        "/api/reports/",
        "/api/reports?x=/open",
        "/api/x/parts",
        "/api/nobody/is/here",
        "/api//reports",
        "//api",
        "//api/reports",
        "///api///reports",
        "/%61pi",
        "/%61%70%69/reports",
        "/api%2Freports",
        "/api%2freports",
        "/%2Fapi/reports",
        "/api/%72eports",
        "/open/../api/reports",
        "/open/%2e%2e/api/reports",
        "/open/..%2fapi/reports",
        "/./api/reports",
        "/%2e/api/reports",
        "/api/../api/reports",
        "/api/./reports",
        "/x/y/../../api",
        "/../api/reports",
        "/api/..",
        "/api/../open",
        "http://api/api/reports",
        "http://other.example.com/api",
    ],
)
async def test_prefix_cannot_be_walked_around(api: Api, path: str) -> None:
    methods = ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "BREW", "get")
    replies = {method: await api.get(path, method=method) for method in methods}

    assert {reply.status for reply in replies.values()} <= {400, 401}
    assert not any(SECRET.encode() in reply.body for reply in replies.values())


@pytest.mark.parametrize(
    "path",
    ["/", "/open", "/apis", "/apiary/x", "/ap", "/open/api", "/open/%7Ex", "/a;b/c", "/A//b/../c"],
)
async def test_other_paths_are_open(api: Api, path: str) -> None:
    reply = await api.get(path)

    assert b"open: " == reply.body[:6] or 404 == reply.status


@pytest.mark.parametrize("path", ["/API", "/%2561pi", "/api;x", "/open/../api", "/api/../open"])
async def test_path_that_may_mean_a_protected_one_is_400(
    api: Api, demo: DemoIssuer, path: str
) -> None:
    replies = [await api.get(path), await api.bearer(demo.mint(), path)]

    assert [(400, "ambiguous_path")] * 2 == [(r.status, r.document["reason"]) for r in replies]


async def test_path_below_the_prefix_without_a_route_is_404_with_a_token_only(
    demo: DemoIssuer,
) -> None:
    def nothing(app: App, _: JWTAuth) -> None:
        @app.get("/open")
        async def opened(_: Request) -> HTTPResponse:
            return text("open")

    async with running(demo, nothing) as api:
        assert (401, 404) == (
            (await api.get("/api/x")).status,
            (await api.bearer(demo.mint(), "/api/x")).status,
        )


async def test_wrong_method_is_405_with_a_token_only(api: Api, demo: DemoIssuer) -> None:
    assert (401, 405) == (
        (await api.get(method="DELETE")).status,
        (await api.bearer(demo.mint(), method="DELETE")).status,
    )


@pytest.mark.parametrize("protect", ["/", "/api", "/api/"])
async def test_prefix_with_or_without_a_slash_is_the_same(demo: DemoIssuer, protect: str) -> None:
    async with running(demo, protect=protect) as api:
        assert (401, 401) == ((await api.get("/api")).status, (await api.get("/api/x")).status)


async def test_root_prefix_covers_everything(demo: DemoIssuer) -> None:
    async with running(demo, protect="/") as api:
        assert {401} == {(await api.get(path)).status for path in ("/", "/open", "//", "/x/../y")}


async def test_prefix_below_another_changes_nothing(demo: DemoIssuer) -> None:
    async with running(demo, protect=["/api", "/api/v1", "/x"]) as api:
        statuses = [(await api.get(path)).status for path in ("/api/v1", "/api", "/x/y", "/open")]

    assert [401, 401, 401, 200] == statuses


async def test_websocket_below_the_prefix_needs_a_token(api: Api) -> None:
    reply = await api.raw(
        b"GET /api/socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    assert 401 == reply.status


ASK = {"Origin": "https://app.example.com", "Access_Control_Request_Method": "GET"}


async def test_preflight_reaches_a_handler_for_options_alone(api: Api) -> None:
    reply = await api.get(method="OPTIONS", **ASK)

    assert (200, "*") == (reply.status, reply.field("access-control-allow-origin"))


@pytest.mark.parametrize("missing", ASK)
async def test_options_that_is_no_preflight_needs_a_token(api: Api, missing: str) -> None:
    half = {name: value for name, value in ASK.items() if name != missing}

    assert 401 == (await api.get(method="OPTIONS", **half)).status


@pytest.mark.parametrize("path", ["/api/all", "/api/nobody", "/api"])
async def test_preflight_reaches_no_other_handler(api: Api, path: str) -> None:
    assert 401 == (await api.get(path, method="OPTIONS", **ASK)).status


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_other_method_that_looks_like_a_preflight_needs_a_token(
    api: Api, method: str
) -> None:
    assert 401 == (await api.get(method=method, **ASK)).status


async def test_file_below_the_prefix_cannot_be_had_by_another_spelling(
    demo: DemoIssuer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name in ("api", "open"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(SECRET if name == "api" else "open", encoding="ascii")

    def files(app: App, _: JWTAuth) -> None:
        app.static("/", folder)

    async with running(demo, files) as api:
        paths = [
            *("/api/file", "//api/file", "/%61pi/file", "/open/../api/file", "/./api/file"),
            *("/open/%2e%2e/api/file", "/open%2f..%2fapi/file", "/open/..%2fapi//file"),
        ]
        assert b"open" == (await api.get("/open/file")).body
        assert SECRET.encode() == (await api.bearer(demo.mint(), "/api/file")).body
        assert {(await api.get(path)).status for path in paths} <= {400, 401}


# Handlers ---------------------------------------------------------------------------------------


async def test_decorated_handler_needs_a_token_and_has_its_user(api: Api, demo: DemoIssuer) -> None:
    assert 401 == (await api.get("/me")).status
    assert "ada" == (await api.bearer(demo.mint(sub="ada"), "/me")).document["sub"]


async def test_decorated_handler_may_be_a_plain_function(api: Api, demo: DemoIssuer) -> None:
    assert "ada" == (await api.bearer(demo.mint(sub="ada"), "/me/blocking")).document


async def test_handler_cannot_change_the_claims_that_another_request_reads(
    demo: DemoIssuer,
) -> None:
    def writes(app: App, _: JWTAuth) -> None:
        @app.get("/api")
        async def change(request: Request) -> HTTPResponse:
            user = request.ctx.user
            seen = json_answer(user)
            with pytest.raises(TypeError):
                user.update(admin=True)
            with pytest.raises(TypeError):
                user["deep"]["admin"] = True
            assert isinstance(user["list"], tuple)
            return seen

    async with running(demo, writes) as api:
        token = demo.mint(deep={"admin": False}, list=["user"])
        first, second = [(await api.bearer(token, "/api")).document for _ in range(2)]

    assert ({"admin": False}, ["user"]) == (second["deep"], second["list"])
    assert first == second
    assert [Path.WAITED, Path.CACHED] == [e.path for e in api.events if isinstance(e, Verified)]


async def test_claims_of_one_request_are_not_seen_by_the_next_on_its_connection(
    api: Api, demo: DemoIssuer
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as client:
        good = {"Authorization": f"Bearer {demo.mint()}"}
        statuses = [
            (await client.get("/api/reports", headers=headers)).status_code
            for headers in (good, {}, good, {})
        ]

    assert [200, 401, 200, 401] == statuses


async def test_runtime_is_there_only_while_the_server_runs(demo: DemoIssuer) -> None:
    async with running(demo) as api:
        assert "demo" == api.auth.runtime.health()[0].name

    with pytest.raises(RuntimeError, match="before_server_start"):
        _ = api.auth.runtime


# Keys -------------------------------------------------------------------------------------------


async def test_known_key_is_decided_without_awaiting(api: Api, demo: DemoIssuer) -> None:
    await api.bearer(demo.mint())
    for token in (demo.mint(sub="ada"), demo.mint(sub="ada", alg="ES256")):
        with pytest.raises(StopIteration) as returned:
            api.auth.runtime.authenticator.authenticate(token).send(None)

        assert "ada" == returned.value.value["sub"]


async def test_rotated_key_is_accepted_on_its_first_request(own: DemoIssuer) -> None:
    async with running(own) as api:
        await api.bearer(own.mint())
        own.rotate()

        assert 200 == (await api.bearer(own.mint())).status


async def test_two_requests_with_an_unknown_kid_share_one_fetch(own: DemoIssuer) -> None:
    async with running(own) as api:
        await api.bearer(own.mint())
        own.rotate()
        before = own.jwks_fetches
        replies = await asyncio.gather(*(api.bearer(own.mint(sub=f"{n}")) for n in range(2)))

        assert [200, 200] == [reply.status for reply in replies]
        assert 1 == own.jwks_fetches - before


async def test_forged_kids_at_the_same_moment_share_one_fetch(own: DemoIssuer) -> None:
    async with running(own) as api:
        await api.bearer(own.mint())
        before = own.jwks_fetches
        replies = await asyncio.gather(*(api.bearer(own.forge()) for _ in range(10)))

        assert {401} == {reply.status for reply in replies}
        assert 1 == own.jwks_fetches - before


async def test_fifty_cold_requests_share_one_fetch(own: DemoIssuer) -> None:
    async with running(own) as api:
        replies = await asyncio.gather(*(api.bearer(own.mint(sub=f"{n}")) for n in range(50)))

        assert ({200}, 1) == ({reply.status for reply in replies}, own.jwks_fetches)


@pytest.mark.parametrize("fault", ["fails", "hangs", "talks rubbish"])
async def test_issuer_that_is_down_is_503_with_retry_after(own: DemoIssuer, fault: str) -> None:
    match fault:
        case "fails":
            own.fail(503)
        case "hangs":
            own.hang(60)
        case _:
            own.malformed(b"<html>")
    async with running(own, wait=0.3, fetch_timeout=0.5, fetch_connect=0.5) as api:
        started = time.perf_counter()
        reply = await api.bearer(own.mint())

        assert time.perf_counter() - started < 2.0
    assert (503, "temporarily_unavailable") == (reply.status, reply.document["reason"])
    assert int(reply.field("retry-after") or "0") >= 1
    assert reply.field("www-authenticate") is None


async def test_known_keys_serve_on_while_the_issuer_is_down(own: DemoIssuer) -> None:
    lifetimes = Lifetimes(ttl=0.1, ttl_min=0.1, ttl_max=0.1)
    async with running(own, lifetimes=lifetimes) as api:
        await api.bearer(own.mint())
        own.fail(503)
        await asyncio.sleep(0.3)

        assert 200 == (await api.bearer(own.mint())).status


# Nothing leaks ----------------------------------------------------------------------------------


async def test_no_token_stands_in_an_answer_a_log_or_a_fact(
    own: DemoIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(own, wait=0.2) as api:
        tokens = [
            own.mint(),
            own.mint(exp=1),
            own.forge(),
            own.forge(alg="RS256", kid=own.kids("RS256")[-1]),
            own.mint() + "=",
            own.mint(iss="https://evil.example.com"),
        ]
        own.rotate("ES256")
        tokens.append(own.mint(alg="ES256"))
        replies = [await api.bearer(token) for token in tokens]
        own.fail(503)
        replies += [await api.bearer(own.forge()), await api.get("/api", *["Bearer a b"] * 2)]
    said = [record.getMessage() for record in caplog.records]
    said += [str(record.exc_info) for record in caplog.records]
    said += [str((reply.fields, reply.body)) for reply in replies] + [str(e) for e in api.events]
    everything = "\n".join(said)

    pieces = {piece for token in tokens for piece in token.split(".") if len(piece) > 8}
    assert set() == {piece for piece in pieces if piece in everything}
    assert any(isinstance(event, Rejected) for event in api.events)


async def test_answers_to_rubbish_repeat_nothing_of_it(api: Api) -> None:
    marker = "0123456789abcdef"
    for field in (
        f"Bearer {marker}",
        f"Bearer {marker} {marker}",
        f"{marker} x",
        f"Bearer {marker},",
    ):
        reply = await api.get("/api/reports", field)

        assert marker not in str(reply)


HOSTILE = {
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n",
    "authority": b"CONNECT api:443 HTTP/1.1\r\nHost: x\r\n",
    "no path": b"GET http://api HTTP/1.1\r\nHost: x\r\n",
    "query alone": b"GET ?x HTTP/1.1\r\nHost: x\r\n",
    "no host": b"GET /api HTTP/1.1\r\n",
    "two hosts": b"GET /api HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
    "broken escape": b"GET /api/%zz%f HTTP/1.1\r\nHost: x\r\n",
    "escape of no UTF-8": b"GET /api/%ff%fe HTTP/1.1\r\nHost: x\r\n",
    "escaped zero": b"GET /api/%00 HTTP/1.1\r\nHost: x\r\n",
    "raw bytes": b"GET /api/\xff HTTP/1.1\r\nHost: x\r\n",
    "HTTP/1.0": b"GET /api HTTP/1.0\r\n",
    "cookie rubbish": b"GET /api HTTP/1.1\r\nHost: x\r\nCookie: \xff=;;=;\x01\r\n",
    "content type rubbish": b"GET /api HTTP/1.1\r\nHost: x\r\nContent-Type: ;;;=\r\n",
    "origin rubbish": b"OPTIONS /api/reports HTTP/1.1\r\nHost: x\r\nOrigin: \xff\r\n",
    "two lengths": b"GET /api HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 1\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_request_is_never_500(api: Api, name: str) -> None:
    reply = await api.raw(HOSTILE[name] + b"Connection: close\r\n\r\n")

    assert reply.status in (CLOSED, 400, 401, 403, 404, 405)
    assert SECRET.encode() not in reply.body
