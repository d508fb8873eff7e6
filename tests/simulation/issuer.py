"""A model of an issuer: it publishes keys, signs tokens, answers fetches, and fails on command."""

import asyncio
import base64
import json
from collections.abc import Callable
from functools import cache, lru_cache
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keycache.errors import FetchCode, JWKSError
from keycache.interfaces import Answer
from keycache.issuer import Issuer

EPOCH = 1_800_000_000.0
"""Where the wall clock of every simulation begins, in seconds since 1970."""

ISSUER = Issuer(issuer="https://issuer.example", audiences=("api",), name="sim")
FETCH_TIMEOUT = 5.0
GARBAGE = (
    b"<html>service unavailable</html>",
    b'{"keys": []}',
    b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k0"}]}',
    b'{"keys": [{"kty": "OKP"',
    b"",
)


class SimIssuer:
    """Publishes `kids`; every kid stands for one key and one token signed with it.

    latency: seconds an answer takes. fault: None, "down", "hang" or "garbage".
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.published: dict[str, float] = {}  # kid: since when
        self.removed: dict[str, float] = {}  # kid: since when
        self.latency = 0.02
        self.fault: str | None = None
        self.garbage = GARBAGE[0]
        self.max_age: int | None = None
        self.in_flight: list[str] = []  # the workers whose request is being answered
        self.most_in_flight = 0
        self._count = 0
        self.rotate()

    def rotate(self) -> str:
        """Publish one more key."""
        kid = self.kid_after(0)
        self._count += 1
        self.published[kid] = self._now()
        return kid

    def remove(self, kid: str) -> None:
        """Publish this key no longer."""
        del self.published[kid]
        self.removed[kid] = self._now()

    @property
    def newest(self) -> str:
        """The kid that signs now."""
        return next(reversed(self.published))

    def kid_after(self, rotations: int) -> str:
        """The kid that will be published by the rotation after so many others."""
        return f"key-{self._count + rotations}"

    def fetcher(self, worker: str, reachable: Callable[[], bool]) -> "SimFetcher":
        """The way from one worker to this issuer."""
        return SimFetcher(self, worker, reachable)

    async def answer(self, worker: str, etag: str | None) -> Answer:
        """Answer one request, as things stand when it arrives."""
        self.in_flight.append(worker)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        try:
            return await self._answer(etag)
        finally:
            self.in_flight.remove(worker)

    async def _answer(self, etag: str | None) -> Answer:
        if self.fault == "down":
            await asyncio.sleep(self.latency)
            raise JWKSError(FetchCode.UNREACHABLE, "the issuer is down")
        if self.fault == "hang":
            await asyncio.sleep(FETCH_TIMEOUT)
            raise JWKSError(FetchCode.TIMEOUT, "the issuer hangs")
        document = document_of(tuple(self.published))
        if self.fault == "garbage":
            document = self.garbage
        tag = f'"{crc32(document)}"'
        await asyncio.sleep(self.latency)
        if self.latency > FETCH_TIMEOUT:
            raise JWKSError(FetchCode.TIMEOUT, "the issuer is too slow")
        max_age = f"max-age={self.max_age}" if self.max_age is not None else None
        not_modified = etag == tag and self.fault is None
        return Answer(None if not_modified else document, max_age, None, tag, None, None)


class SimFetcher:
    """Implements `keycache.interfaces.Fetcher` for one worker."""

    def __init__(self, issuer: SimIssuer, worker: str, reachable: Callable[[], bool]) -> None:
        self._issuer = issuer
        self._worker = worker
        self._reachable = reachable

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        if not self._reachable():
            raise JWKSError(FetchCode.UNREACHABLE, "no way to the issuer")
        return await self._issuer.answer(self._worker, etag)


@cache
def document_of(kids: tuple[str, ...]) -> bytes:
    """The JWKS that publishes these kids."""
    return json.dumps({"keys": [_jwk(kid) for kid in kids]}).encode()


@lru_cache(maxsize=4096)
def token_of(kid: str) -> str:
    """A token signed with this key, good for all of a simulation; a forged kid's is not signed."""
    if kid.startswith("forged"):
        return _unsigned(kid) + _encode(bytes(64))
    signing_input = _unsigned(kid)[:-1]
    return f"{signing_input}.{_encode(_private_key(kid).sign(signing_input.encode()))}"


def _unsigned(kid: str) -> str:
    header = {"alg": "EdDSA", "kid": kid}
    return f"{_encode(json.dumps(header))}.{_CLAIMS}."


@cache
def _private_key(kid: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(kid.encode().ljust(32, b"."))


@cache
def _jwk(kid: str) -> dict[str, str]:
    public = _private_key(kid).public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": _encode(public)}


def _encode(data: str | bytes) -> str:
    octets = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


_CLAIMS = _encode(
    json.dumps({"iss": ISSUER.issuer, "aud": "api", "sub": "user", "exp": EPOCH + 10_000_000})
)
