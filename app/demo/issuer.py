"""DemoIssuer: a local identity provider that mints, rotates and, on demand, misbehaves.

A real HTTP server on a loopback port, with a discovery document (OpenID Connect Discovery 1.0)
and a key set (RFC 7517) under `Cache-Control` and `ETag`. It plays the other side in the demo and
in tests, so it knows nothing of keycache.

Every method may be called from any thread while requests are served.
"""

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from app.demo.signing import ALGORITHMS, SigningKey, new_key, new_kid, public_jwk, sign

DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/.well-known/jwks.json"


@dataclass(frozen=True, slots=True)
class _Fail:
    status: int


@dataclass(frozen=True, slots=True)
class _Hang:
    seconds: float


@dataclass(frozen=True, slots=True)
class _Malformed:
    document: bytes


@dataclass(frozen=True, slots=True)
class _Drip:
    pause: float


_Fault = _Fail | _Hang | _Malformed | _Drip


class DemoIssuer:
    """One issuer, alive between `start()` and `stop()`, or inside a `with` block.

    audience: the `aud` of its tokens unless a token is minted with another.
    max_age: seconds that its key set may be cached.
    discovery: whether it has a discovery document; without one that path answers 404.
    port: where to listen on 127.0.0.1; 0 takes a free port.
    """

    def __init__(
        self,
        audience: str = "demo-api",
        *,
        max_age: int = 300,
        discovery: bool = True,
        port: int = 0,
    ) -> None:
        self.audience = audience
        self.max_age = max_age
        self.discovery = discovery
        self.clock_offset = 0.0
        """Seconds by which this issuer's clock (its `Date` header and its tokens) is ahead."""
        self.latency = 0.0
        """Seconds before every answer, faults included: an issuer is seldom on the same machine."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._fault: _Fault | None = None
        self._counts = {DISCOVERY_PATH: 0, JWKS_PATH: 0}
        self._not_modified = 0
        self._keys = [new_key(algorithm) for algorithm in ALGORITHMS]
        self._unpublished: dict[str, SigningKey] = {}
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="demo-issuer", daemon=True
        )

    # Life -----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering, at once, and give the port back."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Where and what -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The issuer identifier: the `iss` of its tokens and the base of its documents."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def jwks_url(self) -> str:
        """Where its key set is."""
        return self.url + JWKS_PATH

    @property
    def jwks_fetches(self) -> int:
        """Requests for the key set so far, whatever was answered."""
        with self._lock:
            return self._counts[JWKS_PATH]

    @property
    def discovery_fetches(self) -> int:
        """Requests for the discovery document so far, whatever was answered."""
        with self._lock:
            return self._counts[DISCOVERY_PATH]

    @property
    def not_modified(self) -> int:
        """How many of the answers were 304 Not Modified."""
        with self._lock:
            return self._not_modified

    def kids(self, alg: str | None = None) -> list[str]:
        """The published kids, of one algorithm or of all, the newest last."""
        with self._lock:
            return [key.kid for key in self._keys if alg in (None, key.algorithm)]

    def jwks(self) -> dict[str, Any]:
        """The key set as published now."""
        with self._lock:
            return {"keys": [public_jwk(key) for key in self._keys]}

    # Tokens ---------------------------------------------------------------------------------------

    def mint(
        self,
        *,
        alg: str = "RS256",
        kid: str | None = None,
        headers: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Sign a token that lives an hour.

        alg: the algorithm, one of `ALGORITHMS`; its newest key signs.
        kid: sign with this published key instead.
        headers: members of the header to add or to replace.
        claims: claims to add or to replace; one that is None is left out.

        Raises KeyError when there is no such key.
        """
        with self._lock:
            key = self._published(alg, kid)
            payload = self._claims(claims)
            expires = payload.get("exp")
            if isinstance(expires, int | float):
                key.needed_until = max(key.needed_until, expires)
        return sign(key, payload, headers)

    def forge(
        self,
        *,
        alg: str = "ES256",
        kid: str | None = None,
        headers: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Sign a token with a key that this issuer never publishes.

        Without `kid` it names a kid that nobody knows, another one each time; with the kid of a
        published key its signature does not verify. The other parameters are those of `mint`.
        """
        with self._lock:
            if alg not in self._unpublished:
                self._unpublished[alg] = new_key(alg)
            key = self._unpublished[alg]
            payload = self._claims(claims)
        return sign(key, payload, {"kid": kid or new_kid(alg), **(headers or {})})

    def _claims(self, overrides: Mapping[str, object]) -> dict[str, Any]:
        now = int(time.time() + self.clock_offset)
        claims = {
            "iss": self.url,
            "aud": self.audience,
            "sub": "demo-user",
            "client_id": "keycache-demo",
            "scope": "read",
            "iat": now,
            "exp": now + 3600,
            "jti": secrets.token_hex(8),
            **overrides,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def _published(self, alg: str, kid: str | None) -> SigningKey:
        for key in reversed(self._keys):
            if key.kid == kid or (kid is None and key.algorithm == alg):
                return key
        raise KeyError(kid or alg)

    # Keys -----------------------------------------------------------------------------------------

    def rotate(self, alg: str = "RS256") -> str:
        """Publish a new key for this algorithm and sign with it from now on; returns its kid.

        An older key stays published as long as a token that it signed is alive, as a real issuer
        keeps it; after that the next rotation drops it.
        """
        fresh = new_key(alg)
        with self._lock:
            now = time.time() + self.clock_offset
            self._keys = [
                key for key in self._keys if key.algorithm != alg or key.needed_until > now
            ]
            self._keys.append(fresh)
        return fresh.kid

    def remove(self, kid: str) -> None:
        """Publish this key no more, whatever it signed. Raises KeyError when it is not there."""
        with self._lock:
            if all(key.kid != kid for key in self._keys):
                raise KeyError(kid)
            self._keys = [key for key in self._keys if key.kid != kid]

    # Faults: one at a time, for every request until `heal()` --------------------------------------

    def fail(self, status: int) -> None:
        """Answer every request with this HTTP status."""
        self._set_fault(_Fail(status))

    def hang(self, seconds: float) -> None:
        """Wait this long before each answer."""
        self._set_fault(_Hang(seconds))

    def malformed(self, document: bytes) -> None:
        """Publish these bytes in the place of the key set; the discovery document stays right."""
        self._set_fault(_Malformed(document))

    def drip(self, pause: float) -> None:
        """Send each body byte by byte, with this many seconds between two bytes."""
        self._set_fault(_Drip(pause))

    def heal(self) -> None:
        """End the fault."""
        self._set_fault(None)

    def _set_fault(self, fault: _Fault | None) -> None:
        with self._lock:
            self._fault = fault

    # Answers, called by the server's threads ------------------------------------------------------

    def count(self, path: str) -> _Fault | None:
        """Count a request for a document; returns the fault that it meets."""
        with self._lock:
            if path in self._counts:
                self._counts[path] += 1
            return self._fault

    def count_not_modified(self) -> None:
        """Count an answer of 304."""
        with self._lock:
            self._not_modified += 1

    def document(self, path: str) -> bytes | None:
        """The document at this path, or None."""
        if path == JWKS_PATH:
            return json.dumps(self.jwks()).encode()
        if path == DISCOVERY_PATH and self.discovery:
            metadata = {
                "issuer": self.url,
                "jwks_uri": self.jwks_url,
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": list(ALGORITHMS),
            }
            return json.dumps(metadata).encode()
        return None

    def pause(self, seconds: float) -> bool:
        """Wait, but no longer than this issuer lives; says whether it still does."""
        return not self._stopping.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a request that hangs on purpose must not hold `stop()`
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], issuer: DemoIssuer) -> None:
        super().__init__(address, _Handler)
        self.issuer = issuer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that gives up is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        issuer = self.server.issuer
        fault = issuer.count(self.path)
        document = issuer.document(self.path)
        if issuer.latency and not issuer.pause(issuer.latency):
            return
        pause = 0.0
        match fault:
            case _Fail(status):
                self._answer(status, b"")
                return
            case _Hang(seconds):
                if not issuer.pause(seconds):
                    return
            case _Malformed(replacement) if self.path == JWKS_PATH:
                document = replacement
            case _Drip(seconds):
                pause = seconds
            case _:
                pass
        if document is None:
            self._answer(HTTPStatus.NOT_FOUND, b"")
            return
        etag = f'"{sha256(document).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            issuer.count_not_modified()
            self._answer(HTTPStatus.NOT_MODIFIED, b"", etag=etag)
            return
        self._answer(HTTPStatus.OK, document, etag=etag, pause=pause)

    def _answer(self, status: int, body: bytes, *, etag: str = "", pause: float = 0.0) -> None:
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
            self.send_header("Cache-Control", f"public, max-age={self.server.issuer.max_age}")
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        # One request a connection: so `stop()` leaves no connection that still answers.
        self.send_header("Connection", "close")
        self.end_headers()
        if not pause:
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.write(bytes([byte]))
            if not self.server.issuer.pause(pause):
                return

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header, by this issuer's clock."""
        if timestamp is None:
            timestamp = time.time() + self.server.issuer.clock_offset
        return super().date_time_string(timestamp)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name above us)
        """Say nothing: the demo has its own screen."""
