"""HttpClients: one HTTP client for all issuers that are asked in the same way.

Files with certificates are read again when they have changed: client certificates live for days or
hours, processes for months. The host's own store of authorities is read when an issuer is first
asked: it can take longer than all else that a worker does until it serves, and beside a warm Redis
most workers never ask.
"""

import ssl
import threading
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import httpcore  # noqa: F401 - httpx imports it late, with its first client: while a worker starts
import httpx

from keycache.issuer import Fetch


class HttpClients:
    """timeout: seconds, for single operations."""

    def __init__(self, timeout: httpx.Timeout) -> None:
        self._timeout = timeout
        self._clients: dict[_Way, httpx.AsyncClient] = {}
        self._making = threading.Lock()

    def check(self, fetch: Fetch) -> None:
        """Make the client that asks in this way, if it is one of the operator's own, with files
        that may be of no use. Raises FileError.
        """
        if _way(fetch) != _PLAIN:
            self.of(fetch)

    def of(self, fetch: Fetch) -> httpx.AsyncClient:
        """The client that asks in this way; may be called in any thread. Raises FileError."""
        way = _way(fetch)
        with self._making:  # in a cold start all issuers are asked at once: one of them makes it
            if way not in self._clients:
                # Who is replaced has nothing to be closed: no connection is kept after its answer.
                current = {other: c for other, c in self._clients.items() if other.is_current()}
                self._clients = current | {way: self._made(fetch)}
            return self._clients[way]

    def _made(self, fetch: Fetch) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=False,
            verify=_tls(fetch),
            proxy=fetch.proxy,
            # An issuer's cookies are neither kept nor sent back.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # Fetches are minutes apart: a kept connection would mostly be found closed.
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=0),
            headers={
                "User-Agent": f"sanic-keycache/{version('sanic-keycache')}",
                "Accept": "application/jwk-set+json, application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


class FileError(Exception):
    """A file with certificates is of no use; the sentence names it, and nothing it holds."""


class _Way(NamedTuple):
    """How an issuer is asked: its clients differ when these do."""

    proxy: str | None
    files: tuple[tuple[str, str], ...]  # what they are for, and their paths
    stamps: tuple[tuple[int, int], ...]  # when they were changed, and their sizes

    def is_current(self) -> bool:
        """Whether the files are those that were read."""
        try:
            return _stamps(self.files) == self.stamps
        except FileError:
            return False


_PLAIN = _Way(None, (), ())


def _way(fetch: Fetch) -> _Way:
    names = ("ca_bundle", "client_certificate", "client_key")
    files = tuple((name, path) for name in names if (path := getattr(fetch, name)))
    return _Way(fetch.proxy, files, _stamps(files))


def _stamps(files: tuple[tuple[str, str], ...]) -> tuple[tuple[int, int], ...]:
    found = []
    for name, path in files:
        try:
            status = Path(path).stat()
        except OSError as error:
            raise FileError(f"{name}: {path} cannot be read ({error.strerror})") from error
        found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _tls(fetch: Fetch) -> ssl.SSLContext:
    """Whom we trust, and what we show (RFC 8446). Without a bundle: the host's own store of
    certificate authorities, as its operator has set it up.
    """
    try:
        context = ssl.create_default_context(cafile=fetch.ca_bundle)
    except (OSError, ValueError) as error:
        raise FileError(f"ca_bundle: {fetch.ca_bundle} cannot be used ({error})") from error
    if fetch.client_certificate:
        try:
            # A password would be asked for on the terminal; a worker has none.
            context.load_cert_chain(fetch.client_certificate, fetch.client_key, password="")
        except (OSError, ValueError) as error:
            files = " and ".join(filter(None, (fetch.client_certificate, fetch.client_key)))
            raise FileError(f"client_certificate: {files} cannot be used ({error})") from error
    return context
