"""FakeIssuer: a local identity provider that mints, rotates and, on demand, misbehaves.

A real HTTP server on a loopback port, with a discovery document (OpenID Connect Discovery 1.0)
and a key set (RFC 7517) under `Cache-Control` and `ETag`. Its keys are made anew each time and are
worth nothing, so nobody can mistake its tokens for real ones.

Every method may be called from any thread while requests are served.
"""

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self

from keycache.interfaces import Clock
from keycache.issuer import Fetch, Issuer
from keycache.runtime import Options
from keycache.testing.clock import FakeClock
from keycache.testing.signing import SigningKey, new_key, public_jwk, sign

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


class Trusting(Protocol):
    """What trusts issuers, as `JWTAuth` does, and looks at these when its application starts."""

    issuers: tuple[Issuer, ...]
    options: Options
    clock: Clock | None


class FakeIssuer:
    """One issuer, alive between `start()` and `stop()`, or inside a `with` block.

    audience: the `aud` of its tokens unless a token is minted with another.
    algorithms: one key is made for each; the first signs unless a token is minted with another.
    claims: what its tokens say besides `iss`, `aud`, `iat`, `exp` and `jti`.
    max_age: seconds that its key set may be cached.
    discovery: whether it has a discovery document; without one that path answers 404.
    port: where to listen on 127.0.0.1; 0 takes a free port.
    """

    def __init__(  # noqa: PLR0913 - each has a default that is right for most
        self,
        audience: str = "api",
        *,
        algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA"),
        claims: Mapping[str, object] | None = None,
        max_age: int = 300,
        discovery: bool = True,
        port: int = 0,
    ) -> None:
        self.audience = audience
        self.max_age = max_age
        self.discovery = discovery
        self.clock = FakeClock()
        """The time, for this issuer and for everything that it stands in for."""
        self.clock_offset = 0.0
        """Seconds by which this issuer's clock (its `Date` header and its tokens) is ahead."""
        self.latency = 0.0
        """Seconds before every answer, faults included: an issuer is seldom on the same machine."""
        self._said = {"sub": "user", "client_id": "client", **(claims or {})}
        self._typ: str | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._fault: _Fault | None = None
        self._counts = {DISCOVERY_PATH: 0, JWKS_PATH: 0}
        self._not_modified = 0
        self._keys = [new_key(algorithm) for algorithm in algorithms]
        self._algorithms = tuple(algorithms)
        self._unpublished: dict[str, SigningKey] = {}
        self._replaced: list[tuple[Trusting, tuple[Issuer, ...], Options, Clock | None]] = []
        self._server = _Server(("127.0.0.1", port), self)
        self._identifier = self.url
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fake-issuer", daemon=True
        )

    # Life -----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering, at once, and give the port back; stand in for nobody any more."""
        for trusting, issuers, options, clock in reversed(self._replaced):
            trusting.issuers, trusting.options, trusting.clock = issuers, options, clock
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
        """Where it is: the base of its documents, and the `iss` of its tokens unless it stands in
        for another issuer.
        """
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

    def stand_in(self, trusting: Trusting) -> None:
        """Be the issuers that this JWTAuth trusts, from its application's next start until
        `stop()`: their names and policies stay, their keys come from here, and so does the time.

        Tokens are then minted as the first of them would: with its `iss`, its first audience, an
        algorithm and a `typ` that it accepts. Redis and snapshots, which belong to the real keys,
        are left alone.
        """
        before = (trusting, trusting.issuers, trusting.options, trusting.clock)
        self._replaced.append(before)
        trusting.issuers = tuple(
            replace(issuer, jwks_url=self.jwks_url, jwks_file=None, fetch=Fetch())
            for issuer in trusting.issuers
        )
        trusting.options = replace(trusting.options, redis_url=None, snapshot=None)
        trusting.clock = self.clock
        first = trusting.issuers[0]
        self._identifier, self.audience = first.issuer, first.audiences[0]
        self._typ = first.typ[0] if first.typ else None
        accepted = [alg for alg in self._algorithms if alg in first.algorithms]
        self._algorithms = (*accepted, *self._algorithms)

    # Tokens ---------------------------------------------------------------------------------------

    def mint(
        self,
        *,
        alg: str | None = None,
        kid: str | None = None,
        headers: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Sign a token that lives an hour.

        alg: the algorithm, one of those it was made with; its newest key signs.
        kid: sign with this published key instead.
        headers: members of the header to add or to replace.
        claims: claims to add or to replace; one that is None is left out.

        Raises KeyError when there is no such key.
        """
        with self._lock:
            key = self._published(alg or self._algorithms[0], kid)
            payload = self._claims(claims)
            expires = payload.get("exp")
            if isinstance(expires, int | float):
                key.needed_until = max(key.needed_until, expires)
        return sign(key, payload, self._header(headers))

    def bearer(self, **claims: object) -> dict[str, str]:
        """The header field of a request with a good token, for a client's `headers=`."""
        return {"Authorization": f"Bearer {self.mint(**claims)}"}  # type: ignore[arg-type]

    def forge(
        self,
        *,
        alg: str | None = None,
        kid: str | None = None,
        headers: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Sign a token with a key that this issuer never publishes.

        It names the kid of the newest published key of this algorithm, or the given one. The other
        parameters are those of `mint`.
        """
        alg = alg or self._algorithms[0]
        with self._lock:
            if alg not in self._unpublished:
                self._unpublished[alg] = new_key(alg)
            key = self._unpublished[alg]
            kid = kid or self._published(alg, None).kid
            payload = self._claims(claims)
        return sign(key, payload, {"kid": kid, **self._header(headers)})

    def _header(self, overrides: Mapping[str, object] | None) -> dict[str, object]:
        return {**({"typ": self._typ} if self._typ else {}), **(overrides or {})}

    def _claims(self, overrides: Mapping[str, object]) -> dict[str, Any]:
        now = int(self.now())
        claims = {
            "iss": self._identifier,
            "aud": self.audience,
            **self._said,
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

    def rotate(self, alg: str | None = None) -> str:
        """Publish a new key for this algorithm and sign with it from now on; returns its kid.

        An older key stays published as long as a token that it signed is alive, as a real issuer
        keeps it; after that the next rotation drops it.
        """
        alg = alg or self._algorithms[0]
        fresh = new_key(alg)
        with self._lock:
            now = self.now()
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

    def now(self) -> float:
        """What this issuer's clock shows, in seconds since the epoch."""
        return self.clock.now() + self.clock_offset

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
                "id_token_signing_alg_values_supported": list(dict.fromkeys(self._algorithms)),
            }
            return json.dumps(metadata).encode()
        return None

    def pause(self, seconds: float) -> bool:
        """Wait, but no longer than this issuer lives; says whether it still does."""
        return not self._stopping.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a request that hangs on purpose must not hold `stop()`
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], issuer: FakeIssuer) -> None:
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
            timestamp = self.server.issuer.now()
        return super().date_time_string(timestamp)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name above us)
        """Say nothing: whoever plays with it has a screen of their own."""
