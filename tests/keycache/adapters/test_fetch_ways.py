"""How an issuer is asked when https alone is not enough: real TLS, a real proxy, real files."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from keycache.adapters.http_clients import HttpClients
from keycache.adapters.http_fetcher import HttpFetcher
from keycache.errors import ConfigurationError, FetchCode, JWKSError
from keycache.events import ignore
from keycache.issuer import Fetch, Issuer
from keycache.runtime import Options, Runtime
from tests.keycache.adapters.certificates import Authority
from tests.keycache.adapters.forward_proxy import proxying
from tests.keycache.adapters.raw_http import Serve, always, response, serving

SECRET = "hunter2"
TIMEOUT = 20.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def asked(url: str, fetch: Fetch, jwks_url: str | None = None) -> Issuer:
    jwks_url = jwks_url or f"{url}/jwks"
    return Issuer(issuer=url, audiences=("api",), name="corp", jwks_url=jwks_url, fetch=fetch)


@asynccontextmanager
async def fetching() -> AsyncIterator[HttpFetcher]:
    fetcher = HttpFetcher(TIMEOUT, TIMEOUT, 2000, ignore)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def fetch(issuer: Issuer) -> bytes | None:
    async with fetching() as fetcher:
        return (await fetcher.fetch(issuer, None, None)).document


async def failure(issuer: Issuer) -> JWKSError:
    with pytest.raises(JWKSError) as failed:
        await fetch(issuer)
    return failed.value


def field(head: str, name: str) -> str | None:
    """The value of a header field in the head of a request."""
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    return {key.lower(): value for key, value in fields.items()}.get(name)


# Authorities ------------------------------------------------------------------------------------


async def test_private_authority_is_trusted_when_its_bundle_is_named(authority: Authority) -> None:
    async with serving(always(response(b"{}")), authority.server()) as server:
        assert b"{}" == await fetch(asked(server.url, Fetch(ca_bundle=authority.bundle)))


async def test_private_authority_is_trusted_for_no_other_issuer(authority: Authority) -> None:
    async with (
        serving(always(response(b"{}")), authority.server()) as server,
        fetching() as fetcher,
    ):
        await fetcher.fetch(asked(server.url, Fetch(ca_bundle=authority.bundle)), None, None)
        with pytest.raises(JWKSError) as failed:
            await fetcher.fetch(asked(server.url, Fetch()), None, None)

    assert FetchCode.UNREACHABLE is failed.value.code
    assert "CERTIFICATE_VERIFY_FAILED" in failed.value.details


async def test_other_authority_is_not_trusted_when_a_bundle_is_named(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    async with serving(always(response(b"{}")), authority.server()) as server:
        error = await failure(asked(server.url, Fetch(ca_bundle=other.bundle)))

    assert FetchCode.UNREACHABLE is error.code


async def test_hosts_authorities_are_read_when_an_issuer_is_first_asked(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "host.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    async with (
        serving(always(response(b"{}")), authority.server()) as server,
        fetching() as fetcher,
    ):
        issuer = asked(server.url, Fetch())
        fetcher.prepare([issuer])
        shutil.copy(authority.bundle, store)
        assert b"{}" == (await fetcher.fetch(issuer, None, None)).document


async def test_bundle_that_is_gone_fails_the_fetch_and_names_the_file(
    authority: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    shutil.copy(authority.bundle, bundle)
    issuer = asked("https://127.0.0.1:9", Fetch(ca_bundle=str(bundle)))
    async with fetching() as fetcher:
        fetcher.prepare([issuer])
        bundle.unlink()
        with pytest.raises(JWKSError, match=f"ca_bundle: {bundle} cannot be read"):
            await fetcher.fetch(issuer, None, None)


# Client certificates ----------------------------------------------------------------------------


async def test_client_certificate_is_shown(authority: Authority) -> None:
    certificate, key = authority.issue("gateway-1")
    way = Fetch(ca_bundle=authority.bundle, client_certificate=certificate, client_key=key)
    tls = authority.server(asks_for_certificate=True)
    async with serving(always(response(b"{}")), tls) as server:
        await fetch(asked(server.url, way))

        assert ["gateway-1"] == server.clients


async def test_issuer_that_wants_a_certificate_refuses_us_without_one(authority: Authority) -> None:
    tls = authority.server(asks_for_certificate=True)
    async with serving(always(response(b"{}")), tls) as server:
        error = await failure(asked(server.url, Fetch(ca_bundle=authority.bundle)))

        assert (FetchCode.UNREACHABLE, []) == (error.code, server.requests)


async def test_key_may_stand_in_the_file_of_its_certificate(authority: Authority) -> None:
    both = authority.joined(*authority.issue("gateway-2"))
    way = Fetch(ca_bundle=authority.bundle, client_certificate=both)
    tls = authority.server(asks_for_certificate=True)
    async with serving(always(response(b"{}")), tls) as server:
        await fetch(asked(server.url, way))

        assert ["gateway-2"] == server.clients


async def test_renewed_client_certificate_is_shown_from_the_next_fetch(
    authority: Authority,
) -> None:
    certificate, key = authority.issue("before", file="renewed")
    way = Fetch(ca_bundle=authority.bundle, client_certificate=certificate, client_key=key)
    tls = authority.server(asks_for_certificate=True)
    async with serving(always(response(b"{}")), tls) as server, fetching() as fetcher:
        await fetcher.fetch(asked(server.url, way), None, None)
        authority.issue("after", file="renewed")
        await fetcher.fetch(asked(server.url, way), None, None)

        assert ["before", "after"] == server.clients


async def test_certificate_with_another_ones_key_stops_the_start(authority: Authority) -> None:
    certificate, _ = authority.issue("one", file="one")
    _, key = authority.issue("two", file="two")
    way = Fetch(client_certificate=certificate, client_key=key)
    async with fetching() as fetcher:
        with pytest.raises(ConfigurationError, match=r"corp: client_certificate: .*cannot be used"):
            fetcher.prepare([asked("https://127.0.0.1:9", way)])


async def test_certificate_of_no_use_stops_a_runtime(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    issuer = asked("https://127.0.0.1:9", Fetch(ca_bundle=str(tmp_path / "ca.pem")))
    with pytest.raises(ConfigurationError, match=r"corp: ca_bundle: .*ca\.pem cannot be used"):
        Runtime([issuer], Options())


async def test_key_under_a_password_stops_the_start_and_asks_nobody(authority: Authority) -> None:
    certificate, key = authority.issue("one", file="locked", password=b"secret")
    way = Fetch(client_certificate=certificate, client_key=key)
    async with fetching() as fetcher:
        with pytest.raises(ConfigurationError, match="cannot be used"):
            fetcher.prepare([asked("https://127.0.0.1:9", way)])


# Proxies ----------------------------------------------------------------------------------------


async def test_http_goes_through_the_proxy() -> None:
    async with serving(always(response(b"{}"))) as server, proxying() as proxy:
        way = Fetch(proxy=f"http://127.0.0.1:{proxy.port}")

        assert b"{}" == await fetch(asked(server.url, way))
        assert f"GET {server.url}/jwks HTTP/1.1" == proxy.requests[0].splitlines()[0]


async def test_https_goes_through_a_tunnel_that_the_proxy_cannot_read(authority: Authority) -> None:
    async with serving(always(response(b"{}")), authority.server()) as server, proxying() as proxy:
        way = Fetch(proxy=f"http://127.0.0.1:{proxy.port}", ca_bundle=authority.bundle)

        assert b"{}" == await fetch(asked(server.url, way))
        assert [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"] == [
            head.splitlines()[0] for head in proxy.requests
        ]


async def test_password_of_the_proxy_is_told_to_the_proxy_alone() -> None:
    async with serving(always(response(b"{}"))) as server, proxying() as proxy:
        await fetch(asked(server.url, Fetch(proxy=f"http://us:{SECRET}@127.0.0.1:{proxy.port}")))

        assert "Basic dXM6aHVudGVyMg==" == field(proxy.requests[0], "proxy-authorization")
        assert field(server.requests[0], "proxy-authorization") is None
        assert field(server.requests[0], "authorization") is None


async def test_proxy_that_is_down_is_no_reason_to_go_without_it() -> None:
    async with serving(always(response(b"{}"))) as server:
        error = await failure(asked(server.url, Fetch(proxy=f"http://us:{SECRET}@127.0.0.1:9")))

        assert (FetchCode.UNREACHABLE, []) == (error.code, server.requests)
        assert SECRET not in str(error)


async def test_proxy_that_refuses_fails_the_fetch(authority: Authority) -> None:
    refusal = response(b"", "407 Proxy Authentication Required")
    async with serving(always(refusal)) as proxy:
        way = Fetch(proxy=proxy.url, ca_bundle=authority.bundle)
        error = await failure(asked("https://127.0.0.1:9", way))

    assert (FetchCode.UNREACHABLE, True) == (error.code, "407" in error.details)


# Header fields ----------------------------------------------------------------------------------

KEYED = Fetch(headers=(("X-Api-Key", SECRET),))


async def test_header_field_is_sent_to_its_issuer_and_to_no_other() -> None:
    async with (
        serving(always(response())) as ours,
        serving(always(response())) as others,
        fetching() as fetcher,
    ):
        await fetcher.fetch(asked(ours.url, KEYED), None, None)
        await fetcher.fetch(asked(others.url, Fetch()), None, None)

        sent = [field(server.requests[0], "x-api-key") for server in (ours, others)]
        assert [SECRET, None] == sent


async def test_header_field_is_sent_with_the_question_for_the_discovery_document() -> None:
    async with serving(discovery_to("127.0.0.1")) as server:
        await fetch(Issuer(issuer=server.url, audiences=("api",), fetch=KEYED))

        assert [SECRET, SECRET] == [field(head, "x-api-key") for head in server.requests]


async def test_header_field_is_not_sent_to_a_host_that_a_discovery_document_names() -> None:
    async with serving(discovery_to("localhost")) as server:
        await fetch(Issuer(issuer=server.url, audiences=("api",), fetch=KEYED))

        assert [SECRET, None] == [field(head, "x-api-key") for head in server.requests]


async def test_header_field_is_sent_to_the_host_of_a_configured_jwks_url() -> None:
    async with serving(always(response())) as server:
        await fetch(asked("https://id.example.com", KEYED, server.url))

        assert SECRET == field(server.requests[0], "x-api-key")


async def test_header_field_may_replace_how_we_call_ourselves() -> None:
    async with serving(always(response())) as server:
        await fetch(asked(server.url, Fetch(headers=(("user-agent", "corp"),))))

        assert "corp" == field(server.requests[0], "user-agent")


def discovery_to(host: str) -> Serve:
    """A discovery document that says the keys are on the same port of this host."""

    async def serve(_: str, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        issuer, keys = f"http://127.0.0.1:{port}", f"http://{host}:{port}/jwks"
        writer.write(response(f'{{"issuer": "{issuer}", "jwks_uri": "{keys}"}}'.encode()))
        await writer.drain()

    return serve


# Values -----------------------------------------------------------------------------------------


def test_issuers_that_are_asked_alike_share_a_client() -> None:
    clients = HttpClients(httpx.Timeout(1.0))

    assert clients.of(KEYED) is clients.of(Fetch())
    assert clients.of(Fetch(proxy="http://127.0.0.1:9")) is not clients.of(Fetch())


def test_issuers_that_are_asked_at_once_share_a_client() -> None:
    clients = HttpClients(httpx.Timeout(1.0))

    with ThreadPoolExecutor(8) as threads:
        assert 1 == len(set(threads.map(clients.of, [Fetch()] * 8)))


def test_secrets_are_not_in_repr() -> None:
    way = Fetch(headers={"X-Api-Key": SECRET}, proxy=f"http://us:{SECRET}@proxy:3128")  # type: ignore[arg-type]

    assert SECRET not in repr(asked("https://id.example.com", way))


WRONG = [
    (Fetch, {"headers": (("a b", "x"),)}, "headers: 'a b' is not the name of a header field"),
    (Fetch, {"headers": (("Host", "x"),)}, "headers: Host is a matter of the fetcher itself"),
    (Fetch, {"headers": (("X", f"{SECRET}\r\nY: z"),)}, "headers: X: its value is empty, or not"),
    (Fetch, {"headers": (("X", ""),)}, "headers: X: its value is empty, or not plain ASCII"),
    (Fetch, {"headers": (("X", "1"), ("x", "2"))}, "headers: x is given twice"),
    (Fetch, {"client_key": "k.pem"}, "client_key: given without client_certificate"),
    (Fetch, {"proxy": f"socks5://us:{SECRET}@h"}, "proxy: not an absolute http or https URL"),
    (Fetch, {"proxy": "http://h:x"}, "proxy: not a URL"),
    (Fetch, {"proxy": "http://h/path"}, "proxy: must be a host and a port, without a path"),
]


@pytest.mark.parametrize(("make", "values", "said"), WRONG)
def test_way_that_cannot_work_is_refused_without_a_secret(
    make: type[Fetch], values: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make(**values)  # type: ignore[arg-type]

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
