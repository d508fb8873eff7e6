"""TokenCache: tokens that were verified with a key which is still in the key set.

It memoises a pure function, so it never changes an answer: an entry is the digest of the exact
token, the key object and the issuer's cache; `exp` and `nbf` are compared at every hit, and the
entry is dropped in the moment its key leaves the set or the token is revoked. Only good tokens are
kept, so a stranger cannot fill it. The token itself is not kept here.

Who keeps what was found may ask whether it would still be found (`still`), which costs no digest:
whenever tokens are dropped a new generation begins, and only what was found in the current one is
still there.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

import msgspec

from keycache.cache import KeyCache
from keycache.core.claims import Claims
from keycache.core.keys import KeySet, SigningKey
from keycache.core.verifier import Verdict

NEVER = -1


class Accepted(msgspec.Struct):
    """A verified token: its claims, when they hold, and the key they hang on.

    found: the generation of the token cache in which it was found there last, or NEVER.
    """

    claims: Claims
    starts: float
    ends: float
    key: SigningKey
    cache: KeyCache
    found: int = NEVER


class TokenCache:
    """At most `size` verified tokens; 0 keeps none. The oldest entry makes room for a new one."""

    def __init__(self, size: int) -> None:
        self.size = size
        # Ordered: in a dict, the entry put first is found behind all that were deleted before it.
        self._entries: OrderedDict[bytes, Accepted] = OrderedDict()
        self._generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Accepted | None:
        """The token of this `token_digest`, if it holds at `now` (seconds since the epoch)."""
        accepted = self._entries.get(digest)
        if accepted is None:
            return None
        accepted.found = self._generation
        return accepted if self.still(accepted, now) else None

    def still(self, accepted: Accepted, now: float) -> bool:
        """Whether a token that was found here is still there, or has only made room, and holds."""
        return (
            accepted.found == self._generation
            and accepted.starts <= now < accepted.ends
            and accepted.cache.is_live(now)
        )

    def put(self, digest: bytes, verdict: Verdict, key: SigningKey, cache: KeyCache) -> Accepted:
        """Remember the token of this digest, verified just now with a key of `cache`."""
        validity = verdict.validity
        accepted = Accepted(verdict.claims, validity.starts, validity.ends, key, cache)
        if self.size:
            if len(self._entries) >= self.size:
                self._entries.popitem(last=False)
            self._entries[digest] = accepted
        return accepted

    def keep_only(self, cache: KeyCache, key_set: KeySet) -> None:
        """Drop every token of `cache` whose key is not in `key_set` (the same object)."""
        alive = {id(key) for key in key_set.keys}
        self._drop(lambda entry: entry.cache is cache and id(entry.key) not in alive)

    def forget(self, cache: KeyCache, revoked: Callable[[Claims], bool]) -> None:
        """Drop every token of `cache` with such claims."""
        self._drop(lambda entry: entry.cache is cache and revoked(entry.claims))

    def _drop(self, ends: Callable[[Accepted], bool]) -> None:
        self._generation += 1
        for digest in [digest for digest, entry in self._entries.items() if ends(entry)]:
            del self._entries[digest]


def token_digest(token: str) -> bytes:
    """What a token is known by: two tokens with one digest are one token (SHA-256)."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
