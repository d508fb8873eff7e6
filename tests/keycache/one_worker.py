"""One worker's authenticator with real parts, a clock that a test sets, and an issuer by hand."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from keycache.adapters.memory_store import MemoryRevocations
from keycache.authenticator import Authenticator, Trusted
from keycache.cache import Held, KeyCache
from keycache.core.claims import Claims
from keycache.core.freshness import Lifetimes, freshness
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record
from keycache.core.revocation import Kind
from keycache.errors import StoreError, TokenError, UnavailableError
from keycache.events import Event, Path, Tier, Verified, ignore
from keycache.guard import Guard
from keycache.interfaces import Loaded
from keycache.issuer import Issuer, KeySource
from keycache.revocations import RevocationPolicy, Revocations
from keycache.rules import Rule, RuleTable
from keycache.token_cache import TokenCache
from tests.keycache.core.forge import NOW


class SetClock:
    """Stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


class Sent(NamedTuple):
    """A request with this bearer token."""

    token: str
    method: str = "GET"
    path: str = "/"

    def header(self, name: str) -> Sequence[str]:
        return (f"Bearer {self.token}",) if name == "authorization" else ()

    def cookie(self, name: str) -> Sequence[str]:
        return ()


ANY = Rule(path="/**")


class SometimesDown(MemoryRevocations):
    """A store of revocations that can be down."""

    down = False

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        if self.down:
            raise StoreError("down")
        return await super().load(source, known_version)


class Worker:
    """An authenticator for these issuers. Every key set that is published is there at once; whoever
    asks for an unknown kid hears that the issuer was asked and has sent the same keys.

    token_cache: how many tokens are kept. events: what the observer was told, if it is kept.
    revocation: whether tokens can be revoked; `look` then reads which ones are.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        token_cache: int,
        *,
        lifetimes: Lifetimes | None = None,
        revocation: bool = False,
    ) -> None:
        self.clock = SetClock()
        self.events: list[Event] = []
        self._lifetimes = lifetimes or Lifetimes()
        self._runner = asyncio.Runner()
        self._version = 0
        tokens = TokenCache(token_cache)
        self._caches: dict[str, KeyCache] = {}
        self.redis = SometimesDown(self.clock)
        self._revocations: dict[str, Revocations] = {}
        for issuer in issuers:
            cache = KeyCache(
                issuer.name,
                self.clock,
                ignore,
                wait=1.5,
                max_waiters=64,
                negative_ttl=30,
                negative_size=256,
            )
            cache.replaced = partial(tokens.keep_only, cache)
            cache.wanted = partial(self._ask_again, cache)
            self._caches[issuer.issuer] = cache
            if revocation:
                self._revocations[issuer.issuer] = revocations = Revocations(
                    issuer,
                    store=self.redis,
                    clock=self.clock,
                    observer=ignore,
                    policy=RevocationPolicy((), 5, self._lifetimes.stale),
                    nonce=lambda: bytes(12),
                )
                revocations.forget = partial(tokens.forget, cache)
        self.authenticator = Authenticator(
            {
                url: Trusted(issuer, self._caches[url], self._revocations.get(url))
                for issuer in issuers
                for url in [issuer.issuer]
            },
            tokens,
            self.clock,
            self.events.append,
            token_bytes=8192,
            kid_chars=128,
        )

        self.guard = Guard(RuleTable((), issuers=issuers), self.authenticator)

    def publish(self, issuer: str, jwks: Sequence[Mapping[str, Any]]) -> None:
        """The issuer has these keys from now on, fetched at the clock's time."""
        document = json.dumps({"keys": list(jwks)}).encode()
        self._version += 1
        now = self.clock.now()
        lifetimes = self._lifetimes
        self._caches[issuer].install(
            Held(
                parse_jwks(document, 100),
                Record(self._version, now, lifetimes.ttl, document, None, None),
                freshness(now, lifetimes.ttl, lifetimes, 0),
                Tier.ISSUER,
            )
        )

    def revoke(self, issuer: str, kind: Kind, identifier: str, before: float | None) -> None:
        """Revoke these tokens, for longer than any of them lives."""
        revoking = self._revocations[issuer].revoke(kind, identifier, before=before, seconds=1e6)
        self._runner.run(revoking)

    def look(self) -> None:
        """Read what is revoked, of every issuer."""
        for revocations in self._revocations.values():
            self._runner.run(revocations.turn())

    def decide(self, text: str) -> Claims | str:
        """The claims, or the reason of the refusal, or `unavailable`."""
        self.events.clear()
        try:
            return self._runner.run(self.authenticator.authenticate(text))
        except TokenError as error:
            return error.reason
        except UnavailableError:
            return "unavailable"

    def let_in(self, text: str) -> Claims | str | None:
        """The same for a request with this token in its header, as a guard decides that must not
        wait; None when it would have to.
        """
        self.events.clear()
        try:
            known = self.guard.known_by(ANY, Sent(text))
        except TokenError as error:
            return error.reason
        except UnavailableError:
            return "unavailable"
        if known and known.token:
            self.authenticator.name(known.token, text.encode())
        return known.admitted.claims if known else None

    def again(self, text: str) -> Claims | None:
        """The claims for a request that comes again after it was let in with this token, where it
        is known by its name.
        """
        found = self.authenticator.named(text.encode())
        return found.claims if found else None

    @property
    def found_it(self) -> bool:
        """Whether the last token was found in the token cache."""
        return any(type(event) is Verified and event.path is Path.CACHED for event in self.events)

    def close(self) -> None:
        """Close the event loop."""
        self._runner.close()

    def _ask_again(self, cache: KeyCache) -> None:
        if cache.held is None or not cache.is_live(self.clock.now()):
            cache.give_up("nothing to be had", 0)
            return
        cache.unanswered().date(self._version)
        self._version += 1
        cache.install(cache.held._replace(record=cache.held.record._replace(version=self._version)))
