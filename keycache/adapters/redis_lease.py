"""RedisLease: one worker of the fleet fetches, within one budget for all hosts."""

from collections.abc import Callable

from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.core.budget import Limits
from keycache.errors import StoreError
from keycache.events import Cause, Result
from keycache.interfaces import Grant, Refusal
from keycache.issuer import KeySource


class RedisLease:
    """Implements `keycache.interfaces.Lease`.

    lease: seconds. random: uniform in 0 … 1. holder: makes a name that no other worker has.
    """

    def __init__(
        self,
        client: RedisClient,
        limits: Limits,
        lease: float,
        random: Callable[[], float],
        holder: Callable[[], str],
    ) -> None:
        self._client = client
        self._limits = limits
        self._lease = lease
        self._random = random
        self._holder = holder

    async def acquire(
        self, source: KeySource, cause: Cause, floor: int, seen: int
    ) -> Grant | Refusal:
        """See `Lease.acquire`."""
        name = names(source)
        budget = name.forced if cause is Cause.UNKNOWN_KID else name.scheduled
        capacity = 0 if cause is Cause.OPERATOR else self._limits.budget
        holder = self._holder()
        answer = await self._client.step(
            "acquire",
            [name.lease, name.fence, name.backoff, budget, name.record],
            [
                *(holder, int(self._lease * 1000), floor),
                *(capacity, int(self._limits.refill * 1000), seen),
            ],
        )
        match answer:
            case [b"granted", int(version), int(left)]:
                return Grant(version, holder, _attempts(left))
            case [b"shared" | b"held" | b"backing_off" | b"exhausted" as why, int(ms), int(left)]:
                return Refusal(Result(why.decode()), ms / 1000, _attempts(left))
        raise StoreError("Redis answered something else than was asked")

    async def fail(self, source: KeySource, grant: Grant) -> float:
        """See `Lease.fail`."""
        name = names(source)
        limits = self._limits
        pause = await self._client.step(
            "fail",
            [name.lease, name.backoff],
            [
                grant.holder,
                int(limits.backoff_min * 1000),
                int(limits.backoff_max * 1000),
                self._random(),
            ],
        )
        if type(pause) is not int:
            raise StoreError("Redis answered something else than was asked")
        return pause / 1000


def _attempts(thousandths: int) -> float | None:
    return None if thousandths < 0 else thousandths / 1000
