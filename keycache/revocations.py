"""Revocations: which tokens of one issuer are refused before they expire, as this worker knows it.

An operator's `keycache revoke`, or a handler's `Runtime.revoke`, writes the issuer's list in the
shared cache; a message wakes every worker, and a poll stands behind it. A verification asks memory
alone: with nothing revoked that costs a comparison, and a hit in the token cache costs nothing,
because the tokens that a new revocation is about leave that cache when it arrives.

What cannot be known is refused, as unavailable: until the list has been read once, and from `stale`
seconds after it should have been read again. A list that cannot be opened has not been read; it
never counts as empty.

A worker forgets no revocation before its time, whatever becomes of the list: what is missing there
it writes back, also what only the previous seal key opens. So a Redis that comes back empty loses
nothing as long as one worker lives. Who can write to Redis cannot revoke, for the list is sealed;
but they can delete it, or put an older one back, which workers that start before another one has
mended it believe; and by rubbish they can keep workers that start from accepting anything.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from keycache.core.claims import Claims, Validity
from keycache.core.revocation import (
    Index,
    Kind,
    Revocation,
    Tokens,
    digest_of,
    index_of,
    is_revoked,
    merged,
    seal,
    unseal,
)
from keycache.core.verifier import Verdict
from keycache.errors import (
    ConfigurationError,
    Reason,
    RecordCode,
    RecordError,
    StoreCode,
    StoreError,
    TokenError,
    UnavailableError,
)
from keycache.events import Observer, RecordRefused, RevocationsRead, StoreFailed
from keycache.interfaces import Clock, Loaded, RevocationStore
from keycache.issuer import Issuer

MOST = 1000
"""Revocations of one issuer at a time. Who has to revoke more tokens than that changes the key."""

LONGEST_LIFE = 86400.0
"""Seconds that a token lives at most, unless its issuer's policy or the operator knows better."""

LONGEST = 366 * 86400.0
"""Seconds for which a revocation may be kept: a slip of the hand must not keep one for ever."""

MOST_AHEAD = 300.0
"""Seconds that `before` may lie in the future, for an issuer whose clock is ahead."""

AGAIN = 1.0
"""Seconds until a store that failed is asked again."""

LOOKS = 2
"""So many looks may fail before the list begins to be stale."""

_ATTEMPTS = 10
_AHEAD = 86400_000  # ms; no version of ours lies further in the future


class RevocationPolicy(NamedTuple):
    """The numbers and secrets. poll: seconds between looks at the list; stale: seconds for which it
    holds when it could not be read any more.
    """

    seal_keys: tuple[bytes, ...]
    poll: float
    stale: float


class Revocations:
    """Keeps and asks the list of one issuer.

    forget: set by whoever keeps accepted tokens; called with what tells whether to forget one.
    nonce: 12 random bytes, new ones at each call.
    """

    def __init__(  # noqa: PLR0913 - the composition root names each part once
        self,
        issuer: Issuer,
        *,
        store: RevocationStore,
        clock: Clock,
        observer: Observer,
        policy: RevocationPolicy,
        nonce: Callable[[], bytes],
    ) -> None:
        self.forget: Callable[[Callable[[Claims], bool]], None] = lambda _: None
        self._name = issuer.name
        self._source = issuer.source
        # Once for what is forgiven at exp, once for an issuer whose clock is as far ahead.
        self._leeway = 2 * issuer.leeway
        self._longest = min(issuer.max_lifetime or LONGEST_LIFE, LONGEST)
        self._store = store
        self._clock = clock
        self._observer = observer
        self._policy = policy
        self._nonce = nonce
        self._wake = asyncio.Event()
        self._revoked: dict[Tokens, Revocation] = {}
        self._index: Index = {}
        self._ends = -inf  # when what we know is too old
        self._version = 0  # of the list in the store, when it was read last
        self._whole = True  # whether that list holds all we know, sealed with the current key
        self._mend_from = -inf  # by the loop's clock

    # -- reading ---------------------------------------------------------------------------------

    def judge(self, verdict: Verdict, now: float) -> Verdict:
        """The verdict about a good token, for no longer than we know what is revoked.

        Raises TokenError (revoked), or UnavailableError when we do not know.
        """
        if not self.is_known(now):
            raise UnavailableError(
                "Which tokens are revoked cannot be known at the moment.",
                retry_after=self._policy.poll,
            )
        if self._index and is_revoked(self._index, verdict.claims):
            raise TokenError(Reason.REVOKED, "The token has been revoked.")
        starts, ends = verdict.validity.starts, verdict.validity.ends
        if ends <= self._ends:
            return verdict
        return Verdict(verdict.claims, Validity(starts, self._ends))

    def is_known(self, now: float) -> bool:
        """Whether what is revoked is known at `now` (seconds since the epoch)."""
        return now < self._ends

    # -- keeping ---------------------------------------------------------------------------------

    def changed(self) -> None:
        """The shared cache may hold another list: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look at the list again and again, until cancelled."""
        while True:
            self._wake.clear()
            try:
                seconds = await self.turn()
            except Exception:  # noqa: BLE001 - a bug here must not end all looking
                self._observer(StoreFailed(StoreCode.OTHER, 0.0))
                seconds = self._policy.poll
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def turn(self) -> float:
        """Look at the list once; returns the seconds until the next look is due."""
        asked = self._clock.now()
        try:
            loaded = await self._store.load(self._source, self._version)
            try:
                self._read(loaded, asked)
            except RecordError as error:
                self._observer(RecordRefused(self._name, error.code))
                self._whole = False
            if not self._whole and self._ends > -inf:
                await self._mend(loaded)
        except StoreError:
            return min(AGAIN, self._policy.poll)
        return self._policy.poll

    def _read(self, loaded: Loaded, asked: float) -> None:
        """Take what the store holds. Raises RecordError."""
        added: list[Revocation] = []
        if loaded.version != self._version:
            listed, current = self._opened(loaded)
            revoked = merged([*self._revoked.values(), *listed.values()], asked)
            added = [each for tokens, each in revoked.items() if each != self._revoked.get(tokens)]
            self._whole = current and all(
                listed.get(each.tokens) == each for each in revoked.values()
            )
            self._version = loaded.version
        else:
            revoked = merged(self._revoked.values(), asked)
        if revoked != self._revoked:
            self._revoked, self._index = revoked, index_of(revoked.values())
        ends = asked + LOOKS * self._policy.poll + self._policy.stale
        if ends < self._ends:  # the clock was turned back: no accepted token may outlive this
            self.forget(lambda _: True)
        elif added:
            index = index_of(added)
            self.forget(lambda claims: is_revoked(index, claims))
        self._ends = ends
        self._observer(RevocationsRead(self._name, len(revoked), len(added), asked))

    def _opened(self, loaded: Loaded) -> tuple[dict[Tokens, Revocation], bool]:
        """The list, and whether it is sealed with the current key. Raises RecordError."""
        if loaded.record is None:
            return {}, True
        keys = self._policy.seal_keys
        try:
            return unseal(loaded.record, loaded.version, self._source, keys[:1]), True
        except RecordError as error:
            if error.code is not RecordCode.SEAL or len(keys) == 1:
                raise
            return unseal(loaded.record, loaded.version, self._source, keys[1:]), False

    async def _mend(self, loaded: Loaded) -> None:
        """Write what is known over a list that lacks some of it, or that cannot be opened.

        At most once per poll: two hosts with different seal keys would otherwise replace each
        other's lists for ever.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._mend_from:
            self._mend_from = now + self._policy.poll
            await self._save(loaded, self._revoked)

    async def _save(self, seen: Loaded, revoked: dict[Tokens, Revocation]) -> bool:
        # Any that no list has had; by the clock, which rubbish in the version cannot exhaust.
        version = seen.now_ms
        if version <= seen.version < version + _AHEAD:
            version = seen.version + 1
        sealed = seal(revoked, version, self._source, self._policy.seal_keys, self._nonce())
        ends = max((each.until for each in revoked.values()), default=0.0)
        keep = max(1.0, ends - seen.now_ms / 1000)
        return await self._store.save(self._source, sealed, version, keep, seen.version)

    # -- revoking --------------------------------------------------------------------------------

    async def revoke(
        self, kind: Kind, identifier: str, *, before: float | None, seconds: float | None
    ) -> Revocation:
        """Refuse the tokens whose claim of this kind is `identifier`, from now on, everywhere.

        before: by SUB, those issued until then (seconds since the epoch; None: until now). seconds:
        how long a token lives; after that the revocation is forgotten (None: the issuer's
        `max_lifetime`, or LONGEST_LIFE). Returns what is in force then, which an earlier
        revocation may have made wider. Raises ConfigurationError for times that make no sense;
        StoreError; RecordError when the list there cannot be opened; UnavailableError when there
        are MOST of them, or when too many revoke at once.
        """
        seconds = self._longest if seconds is None else seconds
        _check(before, seconds, self._clock.now())
        for _ in range(_ATTEMPTS):
            seen = await self._store.load(self._source, 0)
            listed, _ = self._opened(seen)
            now = seen.now_ms / 1000
            issued = now if before is None else before
            revocation = Revocation(
                kind,
                digest_of(kind, identifier),
                before=issued if kind is Kind.SUB else None,
                revoked_at=now,
                until=max(now, issued) + seconds + self._leeway,
            )
            revoked = merged([*self._revoked.values(), *listed.values(), revocation], now)
            if len(revoked) > MOST:
                raise UnavailableError(
                    f"{MOST} revocations of this issuer are in force, and more are not kept;"
                    " change its signing key instead",
                    retry_after=self._policy.poll,
                )
            if await self._save(seen, revoked):
                await self.turn()
                return revoked[revocation.tokens]
        raise UnavailableError("Too many revoke tokens at once.", retry_after=1)

    async def in_force(self) -> list[Revocation]:
        """What is revoked, the latest first. Raises StoreError and RecordError."""
        loaded = await self._store.load(self._source, 0)
        listed, _ = self._opened(loaded)
        revoked = merged(listed.values(), loaded.now_ms / 1000)
        return sorted(revoked.values(), key=lambda each: -each.revoked_at)


def _check(before: float | None, seconds: float, now: float) -> None:
    problems = []
    if before is not None and not 0 <= before <= now + MOST_AHEAD:
        problems.append(
            f"before: not a time until {MOST_AHEAD:g} s from now; who then gets a new token would"
            " be refused too"
        )
    if not 0 < seconds <= LONGEST:
        problems.append(f"for: {seconds:g} s is not more than 0 and at most {LONGEST:g} s")
    if problems:
        raise ConfigurationError(problems)
