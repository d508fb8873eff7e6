"""HttpFetcher: asks an issuer for its JWKS over HTTPS, within one deadline and a bound on its size.

httpx's time-outs are per operation, so an answer that drips one byte a second would never end: the
whole fetch, discovery included, has one deadline. No redirect is followed (the keys would come from
where nobody configured), nothing is decompressed, and the environment's proxies are not used.
"""

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from time import perf_counter

import httpx

from keycache.adapters.http_clients import FileError, HttpClients
from keycache.errors import ConfigurationError, FetchCode, JWKSError
from keycache.events import Fetched, Observer
from keycache.interfaces import Answer
from keycache.issuer import Issuer, url_problems


class HttpFetcher:
    """Implements `keycache.interfaces.Fetcher`. connect, timeout: seconds; max_bytes: of a body."""

    def __init__(self, connect: float, timeout: float, max_bytes: int, observer: Observer) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._observer = observer
        self._jwks_urls: dict[str, str] = {}
        self._clients = HttpClients(httpx.Timeout(timeout, connect=connect))

    def prepare(self, issuers: Iterable[Issuer]) -> None:
        """Read the files with certificates. Raises ConfigurationError for those of no use."""
        problems = []
        for issuer in issuers:
            try:
                self._clients.check(issuer.fetch)
            except FileError as error:
                problems.append(f"{issuer.name}: {error}")
        if problems:
            raise ConfigurationError(problems)

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        """See `Fetcher.fetch`."""
        with suppress(FileError):  # of which `_get` tells
            # The host's store of authorities, if this is the first: not while the deadline runs.
            await asyncio.to_thread(self._clients.of, issuer.fetch)
        try:
            async with asyncio.timeout(self._timeout):
                url = await self.jwks_url(issuer)
                return await self._fetch_jwks(issuer, url, etag, last_modified)
        except TimeoutError:
            self._jwks_urls.pop(issuer.issuer, None)
            raise JWKSError(
                FetchCode.TIMEOUT, f"no complete answer within {self._timeout:g} s"
            ) from None
        except JWKSError:
            # It may have moved: the next attempt asks the discovery document again.
            self._jwks_urls.pop(issuer.issuer, None)
            raise

    async def jwks_url(self, issuer: Issuer) -> str:
        """Where the keys are: as configured, or as the issuer's discovery document says.

        OpenID Connect Discovery 1.0 section 4; its `issuer` must be exactly the configured one
        (section 4.3). Without such a document: `{issuer}/.well-known/jwks.json`. Raises JWKSError.
        """
        if issuer.jwks_url is not None:
            return issuer.jwks_url
        known = self._jwks_urls.get(issuer.issuer)
        if known is not None:
            return known
        base = issuer.issuer.rstrip("/")
        status, _, body = await self._get(issuer, f"{base}/.well-known/openid-configuration", {})
        if status == httpx.codes.NOT_FOUND:
            url = f"{base}/.well-known/jwks.json"
        else:
            url = _jwks_uri(status, body, issuer)
        self._jwks_urls[issuer.issuer] = url
        return url

    async def aclose(self) -> None:
        """Close every connection."""
        await self._clients.aclose()

    async def _fetch_jwks(
        self, issuer: Issuer, url: str, etag: str | None, last_modified: str | None
    ) -> Answer:
        conditions = {}
        if etag:
            conditions["If-None-Match"] = etag
        if last_modified:
            conditions["If-Modified-Since"] = last_modified
        started = perf_counter()
        status, body = 0, b""
        try:
            status, headers, body = await self._get(issuer, url, conditions)
        finally:
            self._observer(Fetched(issuer.name, status, len(body), perf_counter() - started))
        if status not in (httpx.codes.OK, httpx.codes.NOT_MODIFIED):
            raise JWKSError(FetchCode.HTTP_STATUS, f"{url} answered {status}")
        return Answer(
            document=body if status == httpx.codes.OK else None,
            cache_control=headers.get("cache-control"),
            age=headers.get("age"),
            etag=_short(headers.get("etag")),
            last_modified=_short(headers.get("last-modified")),
            date=headers.get("date"),
        )

    async def _get(
        self, issuer: Issuer, url: str, conditions: dict[str, str]
    ) -> tuple[int, httpx.Headers, bytes]:
        try:
            # A thread: certificates that have changed take a moment to read.
            client = await asyncio.to_thread(self._clients.of, issuer.fetch)
            headers = conditions | _own_headers(issuer, url)
            async with client.stream("GET", url, headers=headers) as response:
                body = b""
                coding = response.headers.get("content-encoding", "identity")
                if coding.lower() != "identity":
                    raise JWKSError(FetchCode.NOT_JSON, f"{url} answered in a content coding")
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise JWKSError(
                            FetchCode.TOO_LARGE, f"{url} answered more than {self._max_bytes} bytes"
                        )
                return response.status_code, response.headers, body
        except FileError as error:
            raise JWKSError(FetchCode.UNREACHABLE, str(error)) from error
        except httpx.TimeoutException as error:
            raise JWKSError(FetchCode.TIMEOUT, f"{url}: {type(error).__name__}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # ValueError: a host name that looks like an internationalised one, and is none.
            raise JWKSError(FetchCode.UNREACHABLE, f"{url}: {_sentence(error)}") from error


def _own_headers(issuer: Issuer, url: str) -> dict[str, str]:
    """The header fields of this issuer, for hosts that its operator named and no other."""
    named = {_origin(own) for own in (issuer.issuer, issuer.jwks_url) if own is not None}
    return dict(issuer.fetch.headers) if _origin(url) in named else {}


def _origin(url: str) -> tuple[str, str, int | None]:
    """RFC 6454 section 4; httpx knows no port where it is the scheme's own."""
    parts = httpx.URL(url)
    return parts.scheme, parts.host, parts.port


def _jwks_uri(status: int, body: bytes, issuer: Issuer) -> str:
    if status != httpx.codes.OK:
        raise JWKSError(FetchCode.DISCOVERY, f"the discovery document answered {status}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise JWKSError(FetchCode.DISCOVERY, "the discovery document is not a JSON object")
    if document.get("issuer") != issuer.issuer:
        raise JWKSError(
            FetchCode.DISCOVERY, "the discovery document names another issuer than the configured"
        )
    url = document.get("jwks_uri")
    if not isinstance(url, str) or url_problems("jwks_uri", url):
        raise JWKSError(FetchCode.DISCOVERY, "the discovery document has no https jwks_uri")
    return url


def _short(value: str | None) -> str | None:
    """A validator to send back later; one of an absurd length, or that no header field of ours can
    carry, is not kept."""
    keep = value is not None and len(value) <= 256 and value.isascii() and value.isprintable()
    return value if keep else None


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]
