"""How long a key set may be used: refreshed from, fresh until, served stale until.

    fetched_at      refresh_from       fresh_until                stale_until
        │  fresh         │  due             │  stale (issuer down)     │  dead
        └────────────────┴──────────────────┴──────────────────────────┴───────▶

The soft TTL is the issuer's `Cache-Control: max-age` (RFC 9111 section 5.2.2.1) within clamps. A
stale set is still served, as RFC 5861's stale-if-error does, for a bounded time; a dead one never.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from keycache.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Policy, all in seconds but `refresh_at`, which is a share of the TTL."""

    ttl: float = 300.0
    ttl_min: float = 60.0
    ttl_max: float = 86400.0
    refresh_at: float = 0.8
    stale: float = 3600.0

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.ttl_min <= self.ttl <= self.ttl_max < inf:
            problems.append(
                f"ttl: needs 0 < TTL_MIN ({self.ttl_min:g}) <= TTL ({self.ttl:g})"
                f" <= TTL_MAX ({self.ttl_max:g}) seconds"
            )
        if not 0.1 <= self.refresh_at <= 0.9:
            problems.append(
                f"refresh_at: {self.refresh_at:g} is not within 0.1 … 0.9 of the TTL"
                " (10 % jitter must fit on both sides)"
            )
        if not 0 <= self.stale < inf:  # not a number would never be over either
            problems.append(
                f"stale: {self.stale:g} s is negative or endless; 0 turns serving stale keys off"
            )
        if problems:
            raise ConfigurationError(problems)


class Freshness(NamedTuple):
    """The four moments of a key set, in seconds since the epoch."""

    fetched_at: float
    refresh_from: float
    fresh_until: float
    stale_until: float


def soft_ttl(cache_control: str | None, age: str | None, lifetimes: Lifetimes) -> float:
    """The seconds for which an answer is fresh, from its headers and the clamps.

    `max-age` less `Age` (RFC 9111 section 4.2); without `max-age`, or when it cannot be read, our
    own TTL. `no-store` and `no-cache` give the least: a shared cache is what we are for.
    """
    seconds = lifetimes.ttl
    for directive in (cache_control or "").lower().split(","):
        name, _, value = directive.strip().partition("=")
        value = value.strip('"')
        if name in ("no-store", "no-cache"):
            return lifetimes.ttl_min
        if name == "max-age" and value.isascii() and value.isdigit():
            spent = _delta_seconds(age) if age and age.isascii() and age.isdigit() else 0
            seconds = float(_delta_seconds(value) - spent)
    return min(max(seconds, lifetimes.ttl_min), lifetimes.ttl_max)


def _delta_seconds(digits: str) -> int:
    """RFC 9111 section 1.2.2: what is too large to hold is 2147483648."""
    return min(int(digits.lstrip("0")[:11] or "0"), 2**31)


def freshness(fetched_at: float, ttl: float, lifetimes: Lifetimes, jitter: float) -> Freshness:
    """The moments of a set fetched at `fetched_at`; `jitter` in -1 … 1 moves refresh_from ± 10 %.


    Every worker draws its own jitter, so that one of them comes first and the others find the work
    done.
    """
    return Freshness(
        fetched_at=fetched_at,
        refresh_from=fetched_at + ttl * lifetimes.refresh_at * (1 + 0.1 * jitter),
        fresh_until=fetched_at + ttl,
        stale_until=fetched_at + ttl + lifetimes.stale,
    )
