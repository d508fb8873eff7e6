"""TokenCache: tokens that were verified with a key which is still in the key set.

It memoises a pure function, so it never changes an answer: an entry is the digest of the exact
token, the key object and the issuer's cache; `exp` and `nbf` are compared at every hit, and the
entry is dropped in the moment its key leaves the set or the token is revoked. Only good tokens are
kept, so a stranger cannot fill it. The token itself is not kept: what leaks from this memory cannot
be replayed.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

import msgspec

from keycache.cache import KeyCache
from keycache.core.claims import Claims
from keycache.core.keys import KeySet, SigningKey
from keycache.core.verifier import Verdict


class Entry(msgspec.Struct, frozen=True):
    """A verified token: its claims, when they hold, and the key they hang on."""

    claims: Claims
    starts: float
    ends: float
    key: SigningKey
    cache: KeyCache


class TokenCache:
    """At most `size` verified tokens; 0 keeps none. The oldest entry makes room for a new one."""

    def __init__(self, size: int) -> None:
        self.size = size
        # Ordered: in a dict, the entry put first is found behind all that were deleted before it.
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Entry | None:
        """The entry of this `token_digest`, if it holds at `now` (seconds since the epoch)."""
        entry = self._entries.get(digest)
        if entry is None or not entry.starts <= now < entry.ends or not entry.cache.is_live(now):
            return None
        return entry

    def put(self, digest: bytes, verdict: Verdict, key: SigningKey, cache: KeyCache) -> None:
        """Remember the token of this digest, verified just now with a key of `cache`."""
        if not self.size:
            return
        if len(self._entries) >= self.size:
            self._entries.popitem(last=False)
        validity = verdict.validity
        self._entries[digest] = Entry(verdict.claims, validity.starts, validity.ends, key, cache)

    def keep_only(self, cache: KeyCache, key_set: KeySet) -> None:
        """Drop every token of `cache` whose key is not in `key_set` (the same object)."""
        alive = {id(key) for key in key_set.keys}
        self._drop(lambda entry: entry.cache is cache and id(entry.key) not in alive)

    def forget(self, cache: KeyCache, revoked: Callable[[Claims], bool]) -> None:
        """Drop every token of `cache` with such claims."""
        self._drop(lambda entry: entry.cache is cache and revoked(entry.claims))

    def _drop(self, ends: Callable[[Entry], bool]) -> None:
        for digest in [digest for digest, entry in self._entries.items() if ends(entry)]:
            del self._entries[digest]


def token_digest(token: str) -> bytes:
    """What a token is known by: two tokens with one digest are one token (SHA-256)."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
