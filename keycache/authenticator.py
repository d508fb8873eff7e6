"""Authenticator: token text → Claims, or the one right error; the one step that may await.

A token that is known, or whose key is known, is decided without awaiting: no lock, no Redis, no
issuer, whatever they are doing. The checks stand in the order of their price, so that a forged
token costs less than a good one, and nothing is fetched for a token that could not be accepted
anyway.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import NamedTuple

import msgspec

from keycache.cache import KeyCache
from keycache.core.claims import Claims, check_times
from keycache.core.keys import Miss, SigningKey
from keycache.core.token import Header, UnverifiedToken, parse_token
from keycache.core.verifier import Verdict, check_signature, judge, verify
from keycache.errors import Reason, TokenError, UnavailableError
from keycache.events import Observer, Path, Rejected, Staged, Tier, Unverifiable, Verified
from keycache.interfaces import Clock
from keycache.issuer import Issuer
from keycache.revocations import Revocations
from keycache.token_cache import Accepted, TokenCache, token_digest

MEASURED = 64
"""Of so many verifications that needed a key, one has its stages measured."""

# Read for every token: to find a member in its enumeration costs as much as to make a fact.
_CACHED, _MEMORY, _WAITED = Path
_TOKEN_CACHE, _IN_MEMORY = Tier.TOKEN_CACHE, Tier.MEMORY


class Trusted(NamedTuple):
    """An issuer, the cache of its keys, and what of it is revoked (None: nobody looks)."""

    issuer: Issuer
    cache: KeyCache
    revocations: Revocations | None = None


class _Asking(msgspec.Struct, frozen=True, gc=False):
    """A token whose key is to be asked for. started, parsed: when, for the measurements."""

    token: UnverifiedToken
    issuer: Issuer
    cache: KeyCache
    revocations: Revocations | None
    digest: bytes
    started: float
    parsed: float


class Authenticator:
    """Decides about tokens. trusted: by exact `iss`. token_bytes, kid_chars: limits of size."""

    def __init__(  # noqa: PLR0913 - the composition root names each part once
        self,
        trusted: Mapping[str, Trusted],
        tokens: TokenCache,
        clock: Clock,
        observer: Observer,
        *,
        token_bytes: int,
        kid_chars: int,
    ) -> None:
        self._trusted = trusted
        self._tokens = tokens
        self._clock = clock
        self._observer = observer
        self._token_bytes = token_bytes
        self._kid_chars = kid_chars
        self._unmeasured = 0  # verifications until the next one is measured

    async def authenticate(self, text: str) -> Claims:
        """The claims of this token. Raises TokenError, or UnavailableError when nobody can know."""
        found = self._decide(text)
        accepted = await self._ask(found) if isinstance(found, _Asking) else found
        return accepted.claims

    def known(self, text: str) -> Accepted | None:
        """The token whose claims `authenticate` returns, when that need not wait; None, and nothing
        has happened, when it must. Raises TokenError, and UnavailableError where waiting would be
        of no use.
        """
        found = self._decide(text)
        return None if isinstance(found, _Asking) else found

    def still(self, accepted: Accepted) -> bool:
        """Whether `known` would find this token, which it found in the token cache before, there
        again: it has then been presented once more. Where not, nothing has happened.
        """
        started = perf_counter()
        if not self._tokens.still(accepted, self._clock.now()):
            return False
        seconds = perf_counter() - started
        self._observer(Verified(accepted.cache.name, _CACHED, seconds, _TOKEN_CACHE))
        return True

    def named(self, name: bytes) -> Accepted | None:
        """The token that was given this name, if it still holds: it has then been presented once
        more. Where not, nothing has happened.
        """
        started = perf_counter()
        accepted = self._tokens.named(name, self._clock.now())
        if accepted is not None:
            seconds = perf_counter() - started
            self._observer(Verified(accepted.cache.name, _CACHED, seconds, _TOKEN_CACHE))
        return accepted

    def name(self, accepted: Accepted, name: bytes) -> None:
        """Let a token that `known` found in the token cache be found by `named` as well, under the
        digest of a request whose fate hangs on this token alone.
        """
        self._tokens.name(accepted, name)

    def _decide(self, text: str) -> Accepted | _Asking:
        """The token, or, when only waiting can tell, what is to be asked. Raises TokenError, and
        UnavailableError where waiting would be of no use.
        """
        started = perf_counter()
        now = self._clock.now()
        digest = token_digest(text) if self._tokens.size else b""
        accepted = self._tokens.get(digest, now)
        if accepted is not None:
            seconds = perf_counter() - started
            self._observer(Verified(accepted.cache.name, _CACHED, seconds, _TOKEN_CACHE))
            return accepted
        try:
            token = parse_token(text, self._token_bytes, self._kid_chars)
            issuer, cache, revocations = self._trust(token)
            parsed = perf_counter()
        except TokenError as error:
            seconds = perf_counter() - started
            self._observer(Rejected(None, error.reason, _MEMORY, seconds))
            raise
        asking = _Asking(token, issuer, cache, revocations, digest, started, parsed)
        header = token.header
        tier = None
        try:
            _check_header(header, issuer)
            found = cache.peek(header.kid, header.alg, now)
            if found is None:
                check_times(token.payload, issuer.leeway, now)
                return asking
            if not isinstance(found, SigningKey):
                tier = Tier.NEGATIVE if found is Miss.UNKNOWN else None
                raise _no_key(found)
            tier = _IN_MEMORY
            return self._verify(asking, found, now, _MEMORY, tier)
        except TokenError as error:
            seconds = perf_counter() - started
            self._observer(Rejected(issuer.name, error.reason, _MEMORY, seconds, tier))
            raise
        except UnavailableError:  # what is revoked is not known
            seconds = perf_counter() - started
            self._observer(Unverifiable(issuer.name, _MEMORY, seconds, tier))
            raise

    async def _ask(self, asking: _Asking) -> Accepted:
        """Wait for the key. Raises TokenError, UnavailableError."""
        name, started, cache = asking.issuer.name, asking.started, asking.cache
        tier = None
        try:
            found = await self._wait(cache, asking.token.header)
            tier = cache.held.tier if cache.held else Tier.ISSUER
            if not isinstance(found, SigningKey):
                raise _no_key(found)
            return self._verify(asking, found, self._clock.now(), _WAITED, tier)
        except TokenError as error:
            seconds = perf_counter() - started
            self._observer(Rejected(name, error.reason, _WAITED, seconds, tier))
            raise
        except UnavailableError:
            self._observer(Unverifiable(name, _WAITED, perf_counter() - started, tier))
            raise

    def _verify(
        self, asking: _Asking, key: SigningKey, now: float, path: Path, tier: Tier
    ) -> Accepted:
        """Verify a token with the key that was found for it. Raises TokenError, and
        UnavailableError when it cannot be known whether the token is revoked.
        """
        if self._unmeasured:
            self._unmeasured -= 1
            verdict = verify(asking.token, key, asking.issuer, now)
        else:
            verdict = self._measured(asking, key, now)
        if asking.revocations is not None:
            verdict = asking.revocations.judge(verdict, now)
        accepted = self._tokens.put(asking.digest, verdict, key, asking.cache)
        seconds = perf_counter() - asking.started
        self._observer(Verified(asking.issuer.name, path, seconds, tier))
        return accepted

    def _measured(self, asking: _Asking, key: SigningKey, now: float) -> Verdict:
        """`verify`, with its stages measured."""
        found = perf_counter()
        check_signature(asking.token, key, asking.issuer)
        checked = perf_counter()
        verdict = judge(asking.token, asking.issuer, now)
        judged = perf_counter()
        self._unmeasured = MEASURED - 1
        parse, wait = asking.parsed - asking.started, found - asking.parsed
        self._observer(Staged(parse, wait, checked - found, judged - checked))
        return verdict

    def _trust(self, token: UnverifiedToken) -> Trusted:
        """The configured issuer of a token: an unknown one reaches neither cache nor network."""
        claimed = token.payload.get("iss")
        if type(claimed) is not str:
            if claimed is None:
                raise TokenError(Reason.MISSING_CLAIM, "The required claim iss is missing.")
            raise TokenError(Reason.INVALID_CLAIM, "The claim iss is not a string.")
        trusted = self._trusted.get(claimed)
        if trusted is None:
            raise TokenError(Reason.UNKNOWN_ISSUER, "The issuer of the token is not trusted here.")
        return trusted

    async def _wait(self, cache: KeyCache, header: Header) -> SigningKey | Miss:
        """Wait for a key, then take it from the set that is current when we are awake again."""
        found = await cache.wait(header.kid, header.alg)
        if isinstance(found, SigningKey):
            current = cache.peek(header.kid, header.alg, self._clock.now())
            if current is None:
                raise UnavailableError("The issuer's keys changed just now.", retry_after=1)
            found = current
        return found


def _check_header(header: Header, issuer: Issuer) -> None:
    if header.alg not in issuer.algorithms:
        raise TokenError(
            Reason.UNSUPPORTED_ALGORITHM, "The algorithm of the token is not accepted here."
        )
    if header.kid is None and not issuer.kid_optional:
        raise TokenError(Reason.MISSING_KID, "The header has no kid.")


def _no_key(miss: Miss) -> TokenError:
    match miss:
        case Miss.UNKNOWN:
            return TokenError(Reason.UNKNOWN_KEY, "The issuer has no key of this kid.")
        case Miss.UNUSABLE:
            return TokenError(Reason.UNKNOWN_KEY, "The issuer's key of this kid cannot be used.")
        case Miss.MISMATCH:
            return TokenError(
                Reason.UNSUPPORTED_ALGORITHM, "The key of this kid is not for this algorithm."
            )
        case Miss.AMBIGUOUS:
            return TokenError(
                Reason.MISSING_KID, "The header has no kid, and not exactly one key would fit."
            )
