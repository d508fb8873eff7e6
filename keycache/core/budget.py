"""How often the issuer may be asked: a token bucket, and the pause after failures.

The bucket is paid before the attempt, so an issuer that fails or hangs is spared like one that
answers. Forced refreshes (a kid nobody knows: strangers can cause them) and scheduled ones (the
clock causes them) have a bucket each, so that a flood cannot starve the rotation.

The fleet's buckets are in Redis (`adapters/lua/acquire.lua`, the same arithmetic); this file serves
the worker that has no Redis, or has lost it.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from keycache.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """budget: refreshes that may follow each other at once; refill: seconds until one more may;
    backoff_min, backoff_max: seconds, the least and greatest pause after failures.
    """

    budget: int = 2
    refill: float = 30.0
    backoff_min: float = 1.0
    backoff_max: float = 60.0

    def __post_init__(self) -> None:
        problems = []
        if self.budget < 1:
            problems.append(f"budget: {self.budget} would never fetch a rotated key; at least 1")
        if not 0 < self.refill < inf:
            problems.append(f"budget_refill: {self.refill:g} s must be more than 0, and finite")
        if not 0 < self.backoff_min <= self.backoff_max < inf:
            problems.append(
                f"backoff: needs 0 < BACKOFF_MIN ({self.backoff_min:g})"
                f" <= BACKOFF_MAX ({self.backoff_max:g}) seconds"
            )
        if problems:
            raise ConfigurationError(problems)


class Bucket(NamedTuple):
    """What is left of a budget, as of the moment `at` (seconds)."""

    left: float
    at: float


def take(bucket: Bucket | None, now: float, limits: Limits) -> tuple[Bucket, float]:
    """Take one attempt. Returns the bucket afterwards, and 0 or the seconds until one is there."""
    if bucket is None:
        left = float(limits.budget)
    else:
        left = min(limits.budget, bucket.left + max(0.0, now - bucket.at) / limits.refill)
    if left >= 1:
        return Bucket(left - 1, now), 0.0
    return Bucket(left, now), (1 - left) * limits.refill


def pause(failures: int, chance: float, limits: Limits) -> float:
    """Seconds nobody should try for after this many failures in a row (at least 1).

    Exponential with full jitter: `chance`, in 0 … 1, is the share of the longest pause that is
    taken (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    doublings = min(failures - 1, 32)
    longest: float = min(limits.backoff_max, limits.backoff_min * 2**doublings)
    return chance * longest
