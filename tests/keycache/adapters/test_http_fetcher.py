"""HttpFetcher over real HTTP on loopback: what it takes, and what it leaves in time and in size."""

import asyncio
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.demo.issuer import DemoIssuer
from keycache.adapters.http_fetcher import HttpFetcher
from keycache.errors import FetchCode, JWKSError
from keycache.events import Event, Fetched, ignore
from keycache.interfaces import Answer
from keycache.issuer import Issuer
from tests.keycache.adapters.raw_http import RawServer, Serve, always, response, serving

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
TIMEOUT = 0.4
MAX_BYTES = 2000


@asynccontextmanager
async def fetching(
    *observers: list[Event], max_bytes: int = MAX_BYTES
) -> AsyncIterator[HttpFetcher]:
    observer = observers[0].append if observers else ignore
    fetcher = HttpFetcher(TIMEOUT, TIMEOUT, max_bytes, observer)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def fetch(issuer: Issuer, max_bytes: int = MAX_BYTES) -> Answer:
    async with fetching(max_bytes=max_bytes) as fetcher:
        return await fetcher.fetch(issuer, None, None)


async def failure(issuer: Issuer, max_bytes: int = MAX_BYTES) -> JWKSError:
    with pytest.raises(JWKSError) as failed:
        await fetch(issuer, max_bytes)
    return failed.value


def discovered(url: str) -> Issuer:
    return Issuer(issuer=url, audiences=("api",), name="demo")


def configured(url: str, path: str = JWKS) -> Issuer:
    """Its keys are at a given URL: one request, no discovery."""
    return Issuer(issuer=url, audiences=("api",), name="demo", jwks_url=url + path)


@pytest.fixture
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer(max_age=77) as running:
        yield running


# Where the keys are -----------------------------------------------------------------------------


async def test_key_set_is_found_by_discovery(demo: DemoIssuer) -> None:
    answer = await fetch(discovered(demo.url))

    assert demo.jwks() == json.loads(answer.document or b"")
    assert (1, 1) == (demo.discovery_fetches, demo.jwks_fetches)


async def test_configured_url_is_asked_without_discovery(demo: DemoIssuer) -> None:
    await fetch(configured(demo.url))

    assert (0, 1) == (demo.discovery_fetches, demo.jwks_fetches)


async def test_discovery_is_asked_once_while_all_goes_well(demo: DemoIssuer) -> None:
    async with fetching() as fetcher:
        for _ in range(3):
            await fetcher.fetch(discovered(demo.url), None, None)

    assert (1, 3) == (demo.discovery_fetches, demo.jwks_fetches)


@pytest.mark.parametrize("fault", ["fail", "hang"])
async def test_discovery_is_asked_again_after_a_failure(demo: DemoIssuer, fault: str) -> None:
    async with fetching() as fetcher:
        await fetcher.fetch(discovered(demo.url), None, None)
        demo.fail(503) if fault == "fail" else demo.hang(5)
        with pytest.raises(JWKSError):
            await fetcher.fetch(discovered(demo.url), None, None)
        demo.heal()
        await fetcher.fetch(discovered(demo.url), None, None)

    assert 2 == demo.discovery_fetches


async def test_without_discovery_the_well_known_path_is_asked() -> None:
    with DemoIssuer(discovery=False) as demo:
        answer = await fetch(discovered(demo.url))

        assert demo.jwks() == json.loads(answer.document or b"")


@pytest.mark.parametrize("base", ["", "/", "/realms/one", "/realms/one/"])
async def test_well_known_paths_are_below_the_issuers_path(base: str) -> None:
    async with serving(always(response(status="404 Not Found"))) as server:
        await failure(discovered(server.url + base))

        below = base.rstrip("/")
        assert [below + DISCOVERY, below + JWKS] == server.paths


async def test_discovery_document_of_another_issuer_is_refused(demo: DemoIssuer) -> None:
    error = await failure(discovered(demo.url + "/"))

    assert FetchCode.DISCOVERY is error.code
    assert 0 == demo.jwks_fetches


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"[" * 1900,
        b"\xff\xfe{}",
        b"{}",
        b'{"issuer": "%(url)b"}',
        b'{"issuer": "%(url)b", "jwks_uri": 7}',
        b'{"issuer": "%(url)b", "jwks_uri": ""}',
        b'{"issuer": "%(url)b", "jwks_uri": "/jwks"}',
        b'{"issuer": "%(url)b", "jwks_uri": "ftp://127.0.0.1/jwks"}',
        b'{"issuer": "%(url)b", "jwks_uri": "file:///etc/passwd"}',
        b'{"issuer": "%(url)b", "jwks_uri": "http://keys.example.com/jwks"}',
        b'{"issuer": "%(url)b", "jwks_uri": "https://u:p@keys.example.com/jwks"}',
        b'{"issuer": "%(url)b", "jwks_uri": "https://[::1/jwks"}',
        b'{"issuer": ["%(url)b"], "jwks_uri": "%(url)b/jwks"}',
        b'{"jwks_uri": "%(url)b/jwks"}',
    ],
)
async def test_discovery_document_that_cannot_be_used_is_refused(document: bytes) -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        text = document.replace(b"%(url)b", server.url.encode())
        writer.write(response(text if path == DISCOVERY else b"{}"))

    async with serving(serve) as server:
        error = await failure(discovered(server.url))

        assert FetchCode.DISCOVERY is error.code
        assert [DISCOVERY] == server.paths


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "403 No", "500 Oh"])
async def test_discovery_that_fails_is_no_reason_to_guess(status: str) -> None:
    async with serving(always(response(b"", status, "Location: /elsewhere"))) as server:
        error = await failure(discovered(server.url))

        assert FetchCode.DISCOVERY is error.code
        assert [DISCOVERY] == server.paths


# The answer -------------------------------------------------------------------------------------


async def test_header_fields_come_as_they_are() -> None:
    fields = (
        "Cache-Control: public, max-age=9",
        "Age: 3",
        'ETag: "abc"',
        "Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT",
        "Date: Sun, 02 Jan 2022 00:00:00 GMT",
    )
    async with serving(always(response(b"{}", "200 OK", *fields))) as server:
        answer = await fetch(configured(server.url))

    assert (
        Answer(
            b"{}",
            "public, max-age=9",
            "3",
            '"abc"',
            "Sat, 01 Jan 2022 00:00:00 GMT",
            "Sun, 02 Jan 2022 00:00:00 GMT",
        )
        == answer
    )


async def test_known_etag_is_answered_without_a_document(demo: DemoIssuer) -> None:
    async with fetching() as fetcher:
        first = await fetcher.fetch(configured(demo.url), None, None)
        second = await fetcher.fetch(configured(demo.url), first.etag, None)

    assert (None, "public, max-age=77", 1) == (
        second.document,
        second.cache_control,
        demo.not_modified,
    )


async def test_both_validators_are_sent_when_they_are_known() -> None:
    async with serving(always(response())) as server, fetching() as fetcher:
        await fetcher.fetch(configured(server.url), '"abc"', "Sat, 01 Jan 2022 00:00:00 GMT")
        (head,) = server.requests

    assert 'if-none-match: "abc"\r\n' in head.lower()
    assert "if-modified-since: sat, 01 jan 2022 00:00:00 gmt\r\n" in head.lower()


@pytest.mark.parametrize("value", ['"' + "x" * 300 + '"', '"\x01"', '"é"'])
async def test_absurd_validator_is_not_kept_or_can_be_sent_back(value: str) -> None:
    answer = response(b"{}", "200 OK", f"ETag: {value}")
    async with serving(always(answer)) as server, fetching() as fetcher:
        try:
            etag = (await fetcher.fetch(configured(server.url), None, None)).etag
        except JWKSError:
            return  # not HTTP at all
        await fetcher.fetch(configured(server.url), etag, None)

        assert 2 == len(server.requests)


async def test_request_says_who_asks_and_wants_no_compression() -> None:
    async with serving(always(response())) as server:
        await fetch(configured(server.url))
        (head,) = server.requests

    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    assert fields["user-agent"].startswith("sanic-keycache/")
    assert "identity" == fields["accept-encoding"]
    assert {"authorization", "cookie"}.isdisjoint(fields)


async def test_cookie_of_the_issuer_is_not_sent_back() -> None:
    answer = response(b"{}", "200 OK", "Set-Cookie: lb=7; Path=/")
    async with serving(always(answer)) as server, fetching() as fetcher:
        for _ in range(2):
            await fetcher.fetch(configured(server.url), None, None)

        assert not any("cookie" in head.lower() for head in server.requests)


async def test_environments_proxies_are_not_asked(
    demo: DemoIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(always(response())) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        await fetch(configured(demo.url))

        assert ([], 1) == (proxy.requests, demo.jwks_fetches)


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 T", "308 P"])
async def test_redirect_is_not_followed(demo: DemoIssuer, status: str) -> None:
    answer = response(b"", status, f"Location: {demo.jwks_url}")
    async with serving(always(answer)) as server:
        error = await failure(configured(server.url))

    assert (FetchCode.HTTP_STATUS, 0) == (error.code, demo.jwks_fetches)


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial", "404 Not Found", "500 Oh"])
async def test_status_other_than_200_and_304_is_a_failure(status: str) -> None:
    async with serving(always(response(b"", status))) as server:
        assert FetchCode.HTTP_STATUS is (await failure(configured(server.url))).code


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate", "x-unknown", "identity, gzip"])
async def test_compressed_answer_is_refused(coding: str) -> None:
    body = gzip.compress(b'{"keys": []}')
    answer = response(body, "200 OK", f"Content-Encoding: {coding}")
    async with serving(always(answer)) as server:
        assert FetchCode.NOT_JSON is (await failure(configured(server.url))).code


async def test_answer_in_the_identity_coding_is_taken() -> None:
    answer = response(b"{}", "200 OK", "Content-Encoding: Identity")
    async with serving(always(answer)) as server:
        assert b"{}" == (await fetch(configured(server.url))).document


async def test_answer_as_large_as_allowed_is_taken() -> None:
    async with serving(always(response(b"x" * MAX_BYTES))) as server:
        assert MAX_BYTES == len((await fetch(configured(server.url))).document or b"")


async def test_answer_one_byte_larger_is_refused() -> None:
    async with serving(always(response(b"x" * (MAX_BYTES + 1)))) as server:
        assert FetchCode.TOO_LARGE is (await failure(configured(server.url))).code


@pytest.mark.parametrize("path", [JWKS, DISCOVERY])
async def test_huge_answer_is_left_with_little_of_it_read(path: str) -> None:
    sent = 0

    async def flood(_: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(response(b"", length=50_000_000))
        while sent < 50_000_000:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(flood) as server:
        issuer = configured(server.url) if path == JWKS else discovered(server.url)
        await failure(configured(server.url))  # what is made once only is not counted
        sent = 0
        tracemalloc.start()
        try:
            error = await failure(issuer, 500_000)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert FetchCode.TOO_LARGE is error.code
    assert most < 10_000_000
    assert sent < 20_000_000  # the kernel's buffers hold some


async def timed_failure(serve: Serve, *, by_discovery: bool = False) -> JWKSError:
    async with serving(serve) as server:
        started = time.perf_counter()
        error = await failure((discovered if by_discovery else configured)(server.url))
        assert time.perf_counter() - started < TIMEOUT + 0.5
    return error


async def drip(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(response(b"", length=1900))
    for _ in range(1900):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_the_head(_: str, writer: asyncio.StreamWriter) -> None:
    for byte in response():
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def never(_path: str, _: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("by_discovery", [False, True])
@pytest.mark.parametrize("serve", [drip, drip_the_head, never])
async def test_slow_answer_is_left_at_the_deadline(serve: Serve, *, by_discovery: bool) -> None:
    error = await timed_failure(serve, by_discovery=by_discovery)

    assert FetchCode.TIMEOUT is error.code


async def test_discovery_and_key_set_share_one_deadline() -> None:
    async def slow(path: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(deadline * 0.6)
        document = {"issuer": server.url, "jwks_uri": server.url + JWKS}
        writer.write(response(json.dumps(document).encode() if path == DISCOVERY else b"{}"))

    deadline = 1.5
    fetcher = HttpFetcher(deadline, deadline, MAX_BYTES, ignore)
    async with serving(slow) as server:
        with pytest.raises(JWKSError) as failed:
            await fetcher.fetch(discovered(server.url), None, None)
        assert FetchCode.TIMEOUT is failed.value.code
        assert [DISCOVERY, JWKS] == server.paths
    await fetcher.aclose()


async def test_refused_connection_is_unreachable() -> None:
    with DemoIssuer() as stopped:
        pass

    assert FetchCode.UNREACHABLE is (await failure(configured(stopped.url))).code


async def test_host_without_an_address_is_unreachable() -> None:
    issuer = Issuer(issuer="https://nobody.invalid", audiences=("api",))

    assert (await failure(issuer)).code in (FetchCode.UNREACHABLE, FetchCode.TIMEOUT)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        response(b"half", length=1000),
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_answer_that_is_no_whole_http_is_unreachable(answer: bytes) -> None:
    async with serving(always(answer)) as server:
        assert FetchCode.UNREACHABLE is (await failure(configured(server.url))).code


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + response(b"{}"),
        response(b"{}", "200 OK", *(f"X-{n}: y" for n in range(500))),
        response(b"\xff\xfe not UTF-8"),
        b"HTTP/9.9 200 OK\r\n\r\n",
        response(b"{}", "200 OK", "Content-Type: text/html; charset=utf-7"),
        response(b"{}", "200 " + "é" * 50),
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_odd_answer_is_taken_as_bytes_or_refused_in_time(answer: bytes) -> None:
    async with serving(always(answer)) as server:
        with suppress(JWKSError):
            await fetch(configured(server.url))


@given(st.binary(max_size=60), st.binary(max_size=60))
@example(b"200 OK\r\nETag: \xff\xff", b"")
@example(b"200 OK\r\nContent-Encoding: \xe9", b"")
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_bytes_are_an_answer_or_a_jwks_error(head: bytes, body: bytes) -> None:
    async def attempt() -> None:
        async with serving(always(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)) as server:
            with suppress(JWKSError):
                await fetch(configured(server.url))

    asyncio.run(attempt())


@given(st.text(max_size=30))
@example("http://127.0.0.1:1/\x00")
@example("http://127.0.0.1:1/ \r\nX: y")
@example("https://\ud800/")
@example("https://xn--/")
@example("https://" + "a" * 300 + "/")
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_jwks_uri_is_asked_or_a_jwks_error(uri: str) -> None:
    async def attempt() -> None:
        async def serve(path: str, writer: asyncio.StreamWriter) -> None:
            document = {"issuer": server.url, "jwks_uri": uri.replace(":1/", f":{port(server)}/")}
            writer.write(response(json.dumps(document).encode() if path == DISCOVERY else b"{}"))

        async with serving(serve) as server:
            with suppress(JWKSError):
                await fetch(discovered(server.url))

    asyncio.run(attempt())


def port(server: RawServer) -> str:
    return server.url.rpartition(":")[2]


async def test_error_repeats_no_bytes_of_the_answer_without_bound() -> None:
    async with serving(always(b"HTTP/1.1 " + b"x" * 50_000 + b"\r\n\r\n")) as server:
        assert len(str(await failure(configured(server.url)))) < 400


# Facts ------------------------------------------------------------------------------------------


async def fetched(issuer: Issuer) -> list[tuple[str, int, int]]:
    events: list[Event] = []
    async with fetching(events) as fetcher:
        with suppress(JWKSError):
            await fetcher.fetch(issuer, None, None)
    return [(e.issuer, e.status, e.size) for e in events if isinstance(e, Fetched)]


async def test_fetch_is_reported_with_its_status_and_size() -> None:
    async with serving(always(response(b"12345"))) as server:
        assert [("demo", 200, 5)] == await fetched(configured(server.url))


async def test_status_of_a_failure_is_reported() -> None:
    async with serving(always(response(b"", "503 Oh"))) as server:
        assert [("demo", 503, 0)] == await fetched(configured(server.url))


@pytest.mark.parametrize("serve", [never, always(b"rubbish\r\n\r\n")])
async def test_fetch_without_an_answer_is_reported_as_status_0(serve: Serve) -> None:
    async with serving(serve) as server:
        assert [("demo", 0, 0)] == await fetched(configured(server.url))


async def test_discovery_is_not_reported_as_a_fetch_of_keys(demo: DemoIssuer) -> None:
    assert 1 == len(await fetched(discovered(demo.url)))
