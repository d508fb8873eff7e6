"""Runtime: introduces the parts of one process to each other, opens them and closes them.

The only file that knows the adapters. Everything it makes lives for one event loop, between
`open()` and `close()`.
"""

from dataclasses import dataclass, field

from keycache.core.budget import Limits
from keycache.core.freshness import Lifetimes
from keycache.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this process verifies and shares keys; times in seconds, sizes in bytes.

    redis_url: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. None: the keys
        are shared with nobody (each process fetches its own).
    seal_keys: the 32-byte keys that seal records in Redis: the current one first, then the previous.
    allow_unsealed: run with a Redis and no seal key. Whoever can write there can then mint tokens.
    wait, waiters: how long a request waits for an unknown kid, and how many may wait at once.
    poll: how often a worker reads the version in Redis, in case a message was lost.

    Raises ConfigurationError with every contradiction at once, and its numbers.
    """

    redis_url: str | None = None
    seal_keys: tuple[bytes, ...] = field(default=(), repr=False)
    allow_unsealed: bool = False
    redis_connect: float = 0.25
    redis_timeout: float = 0.5
    poll: float = 5.0
    lifetimes: Lifetimes = Lifetimes()
    limits: Limits = Limits()
    lease: float = 10.0
    negative_ttl: float = 30.0
    negative_size: int = 256
    wait: float = 1.5
    waiters: int = 64
    fetch_connect: float = 2.0
    fetch_timeout: float = 5.0
    fetch_bytes: int = 524288
    fetch_keys: int = 100
    token_bytes: int = 8192
    kid_chars: int = 128
    token_cache: int = 10000

    def __post_init__(self) -> None:
        problems = []
        if self.lease <= self.fetch_timeout:
            problems.append(
                f"lease: LEASE ({self.lease:g} s) must be longer than FETCH_TIMEOUT"
                f" ({self.fetch_timeout:g} s), or two workers would fetch at once"
            )
        if self.fetch_connect > self.fetch_timeout:
            problems.append(
                f"fetch_connect: FETCH_CONNECT ({self.fetch_connect:g} s) is longer than"
                f" FETCH_TIMEOUT ({self.fetch_timeout:g} s), which holds for the whole request"
            )
        if self.redis_url and not self.seal_keys and not self.allow_unsealed:
            problems.append(
                "seal_keys: a Redis is named and no seal key; whoever can write there could then"
                " mint tokens. Set SEAL_KEYS (`keycache seal-key` prints one), or"
                " ALLOW_UNSEALED=1 if that Redis is as trusted as this process"
            )
        if any(len(key) != 32 for key in self.seal_keys) or len(self.seal_keys) > 2:
            problems.append("seal_keys: one or two keys (current, previous) of 32 bytes each")
        for name in ("redis_connect", "redis_timeout", "poll", "wait", "fetch_connect", "lease"):
            if getattr(self, name) <= 0:
                problems.append(f"{name}: {getattr(self, name):g} s must be more than 0")
        for name in ("fetch_bytes", "fetch_keys", "token_bytes", "kid_chars", "waiters"):
            if getattr(self, name) < 1:
                problems.append(f"{name}: {getattr(self, name)} must be at least 1")
        if self.token_cache < 0 or self.negative_size < 0 or self.negative_ttl < 0:
            problems.append("token_cache, negative_size and negative_ttl: none can be negative")
        if problems:
            raise ConfigurationError(problems)
