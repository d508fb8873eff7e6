"""KeyCache: one issuer's keys in the memory of this worker, and those who wait for a key.

The read path. `peek` answers from memory without awaiting, locking or touching anything outside
this process. Only the refresher writes (`install`, `give_up`); it sets `wanted`, which this file
calls to wake it.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from keycache.core.decision import Age, Decision, Known, age, decide
from keycache.core.freshness import Freshness
from keycache.core.keys import KeySet, Miss, SigningKey
from keycache.core.record import Record
from keycache.errors import UnavailableError
from keycache.events import NegativeKidsChanged, Observer, Tier, WaitersChanged
from keycache.interfaces import Clock

_WAIT, _FOUND = Decision.WAIT, Known.FOUND  # found once, not for every token


class Held(NamedTuple):
    """What is held in memory: the key set, its record, its moments, and the tier it came from.

    provisional: fetched while the shared cache did not answer. Its version only counts on from the
    last shared one and orders nothing between workers.
    """

    key_set: KeySet
    record: Record
    freshness: Freshness
    tier: Tier
    provisional: bool = False


class _Waiter:
    """A request that waits for a key. `asked_ms`: when its question reached the refresher, by the
    shared clock; an answer with a later version was fetched after the question was asked.
    """

    __slots__ = ("alg", "answer", "asked_ms", "kid")

    def __init__(self, kid: str | None, alg: str) -> None:
        self.kid = kid
        self.alg = alg
        self.asked_ms: int | None = None
        self.answer: asyncio.Future[SigningKey | Miss] = asyncio.get_running_loop().create_future()


class Questions:
    """Questions that were asked before a moment of the shared clock."""

    def __init__(self, waiters: list[_Waiter]) -> None:
        self._waiters = waiters

    def date(self, asked_ms: int) -> None:
        """They were asked at `asked_ms` at the latest."""
        for waiter in self._waiters:
            waiter.asked_ms = asked_ms


class KeyCache:
    """The keys of one issuer, as this worker sees them.

    name: the issuer's configured name. wanted: set by the refresher, called to wake it. replaced:
    called with every key set that differs from the one before. wait, max_waiters: how long
    (seconds) a request waits for a key, and how many may. negative_ttl, negative_size: how long
    (seconds) and how many kids are remembered that the issuer was asked about and did not have.
    """

    def __init__(  # noqa: PLR0913 - each is one number of the design's table
        self,
        name: str,
        clock: Clock,
        observer: Observer,
        *,
        wait: float,
        max_waiters: int,
        negative_ttl: float,
        negative_size: int,
    ) -> None:
        self.name = name
        self.held: Held | None = None
        self.wanted: Callable[[], None] = lambda: None
        self.replaced: Callable[[KeySet], None] = lambda _: None
        self._clock = clock
        self._observer = observer
        self._wait = wait
        self._max_waiters = max_waiters
        self._negative_ttl = negative_ttl
        self._negative_size = negative_size
        self._negative: dict[str, float] = {}  # until when; who leaves first stands first
        self._told_negative = 0
        self._waiters: dict[_Waiter, None] = {}  # in the order in which they came
        self._closed_until = 0.0
        self._closed_because = ""

    # -- reading ---------------------------------------------------------------------------------

    def peek(self, kid: str | None, alg: str, now: float) -> SigningKey | Miss | None:
        """The key, or why there is none, or None: only waiting can tell. Never awaits."""
        found: SigningKey | Miss = Miss.UNKNOWN
        freshness = None
        if self.held is not None:
            freshness = self.held.freshness
            found = self.held.key_set.select(kid, alg)
        known = _FOUND if isinstance(found, SigningKey) else self._known(found, kid, now)
        if decide(freshness, known, now) is _WAIT:
            return None
        return found  # that it is due the refresher knows by its own timer

    def is_live(self, now: float) -> bool:
        """Whether the keys in memory may be used at `now`."""
        return self.held is not None and now < self.held.freshness.stale_until

    async def wait(self, kid: str | None, alg: str) -> SigningKey | Miss:
        """Ask the refresher for a key and wait for its answer, for a bounded time.

        Raises UnavailableError when too many wait already, when the time is over, or when the
        refresher says that it cannot know.
        """
        closed_for = self._closed_until - self._clock.now()
        if closed_for > 0:
            raise UnavailableError(self._closed_because, retry_after=closed_for)
        if len(self._waiters) >= self._max_waiters:
            raise UnavailableError("Too many requests wait for the issuer's keys.", retry_after=1)
        waiter = _Waiter(kid, alg)
        self._waiters[waiter] = None
        self._observer(WaitersChanged(self.name, len(self._waiters)))
        self.wanted()
        try:
            async with asyncio.timeout(self._wait):
                return await waiter.answer
        except TimeoutError:
            raise UnavailableError(
                "The issuer's keys did not arrive in time.", retry_after=1
            ) from None
        finally:
            del self._waiters[waiter]
            self._observer(WaitersChanged(self.name, len(self._waiters)))

    def age(self, now: float) -> Age:
        """How old the keys in memory are."""
        return age(self.held.freshness if self.held else None, now)

    def _known(self, found: Miss, kid: str | None, now: float) -> Known:
        if found is not Miss.UNKNOWN:
            return Known.REFUSED
        if kid is not None and now < self._negative.get(kid, 0.0):
            return Known.NEGATIVE
        return Known.UNKNOWN

    # -- writing: the refresher only -------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version in memory, 0 when there is none."""
        return self.held.record.version if self.held else 0

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a key, and has no answer yet."""
        return any(not waiter.answer.done() for waiter in self._waiters)

    def undated(self) -> "Questions":
        """The questions of those who wait and that have no date yet.

        Take them before asking the shared clock, and date them with what that said.
        """
        return Questions([waiter for waiter in self._waiters if waiter.asked_ms is None])

    def unanswered(self) -> "Questions":
        """The questions of all who wait: each was asked before the lease that is granted next."""
        return Questions([waiter for waiter in self._waiters if not waiter.answer.done()])

    def install(self, held: Held) -> None:
        """Replace what is held, and answer everybody whom it answers. Older versions are ignored.

        A waiter whose kid is not in it is answered when it was fetched after the question; the kid
        is then remembered as unknown. A set with other keys empties that memory, and only the kids
        that the issuer has just taken out stay there: about them it need not be asked again.
        """
        if held.record.version <= self.version:
            return
        previous = self.held.key_set if self.held else None
        key_set = held.key_set.succeeding(previous)
        self.held = held._replace(key_set=key_set)
        self._closed_until = 0.0
        now = self._clock.now()
        if key_set is not previous:
            self._negative.clear()
            for key in previous.keys if previous else ():
                if key_set.select(key.kid, key.algorithms[0]) is Miss.UNKNOWN:
                    self._remember_unknown(key.kid, now)
            self.replaced(key_set)
        for waiter in self._waiters:
            found = key_set.select(waiter.kid, waiter.alg)
            if found is Miss.UNKNOWN:
                if waiter.asked_ms is None or held.record.version < waiter.asked_ms:
                    continue
                self._remember_unknown(waiter.kid, now)
            _answer(waiter, found)
        self.forget_expired()

    def forget_expired(self) -> None:
        """Forget the unknown kids whose time is over; the refresher calls this now and then."""
        now = self._clock.now()
        while self._negative:
            kid, until = next(iter(self._negative.items()))
            if now < until:
                break
            del self._negative[kid]
        if len(self._negative) != self._told_negative:
            self._told_negative = len(self._negative)
            self._observer(NegativeKidsChanged(self.name, self._told_negative))

    def give_up(self, details: str, retry_after: float) -> None:
        """Tell everybody who waits, or comes to wait within `retry_after` seconds, that it cannot
        be known for now. So a flood of forged kids costs no more than this sentence.
        """
        self._closed_until = self._clock.now() + retry_after
        self._closed_because = details
        for waiter in self._waiters:
            if not waiter.answer.done():
                waiter.answer.set_exception(UnavailableError(details, retry_after=retry_after))

    def _remember_unknown(self, kid: str | None, now: float) -> None:
        if kid is None or not self._negative_size:
            return
        self._negative.pop(kid, None)  # to stand last
        while len(self._negative) >= self._negative_size:
            del self._negative[next(iter(self._negative))]
        self._negative[kid] = now + self._negative_ttl


def _answer(waiter: _Waiter, found: SigningKey | Miss) -> None:
    if not waiter.answer.done():
        waiter.answer.set_result(found)
