"""TokenCache: tokens that were verified with a key which is still in the key set.

It memoises a pure function, so it never changes an answer: an entry is the digest of the exact
token, the key object and the issuer's cache; `exp` and `nbf` are compared at every hit, and the
entry is dropped in the moment its key leaves the set or the token is revoked. Only good tokens are
kept, so a stranger cannot fill it. The token itself is not kept here.

Who keeps what was found may ask whether it would still be found (`still`), which costs no digest.
Who knows that a whole request is answered by its token alone may have the token found under the
digest of that request as well (`name`), for as long as the token itself is.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from keycache.cache import KeyCache
from keycache.core.claims import Claims
from keycache.core.keys import KeySet, SigningKey
from keycache.core.verifier import Verdict


class Accepted(msgspec.Struct):
    """A verified token: its claims, when they hold, and the key they hang on.

    digest: its `token_digest`. found: whether it came again, and was found in the token cache.
    name: the digest of a request under which it is found there too; empty: of none.
    """

    claims: Claims
    starts: float
    ends: float
    key: SigningKey
    cache: KeyCache
    digest: bytes
    found: bool = False
    name: bytes = b""


class TokenCache:
    """At most `size` verified tokens; 0 keeps none. The oldest entry makes room for a new one."""

    def __init__(self, size: int) -> None:
        self.size = size
        # Ordered: in a dict, the entry put first is found behind all that were deleted before it.
        self._entries: OrderedDict[bytes, Accepted] = OrderedDict()
        self._named: dict[bytes, Accepted] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Accepted | None:
        """The token of this `token_digest`, if it holds at `now` (seconds since the epoch)."""
        accepted = self._entries.get(digest)
        if accepted is None or not _holds(accepted, now):
            return None
        accepted.found = True
        return accepted

    def named(self, name: bytes, now: float) -> Accepted | None:
        """The token that was given this name, if it holds at `now`."""
        accepted = self._named.get(name)
        return accepted if accepted is not None and _holds(accepted, now) else None

    def still(self, accepted: Accepted, now: float) -> bool:
        """Whether a token that was here is still here, and holds at `now`."""
        return self._entries.get(accepted.digest) is accepted and _holds(accepted, now)

    def name(self, accepted: Accepted, name: bytes) -> None:
        """Let a token that is here be found under this name, and no more under the one before."""
        if self._entries.get(accepted.digest) is accepted:
            self._named.pop(accepted.name, None)
            accepted.name = name
            self._named[name] = accepted

    def put(self, digest: bytes, verdict: Verdict, key: SigningKey, cache: KeyCache) -> Accepted:
        """Remember the token of this digest, verified just now with a key of `cache`."""
        validity = verdict.validity
        accepted = Accepted(verdict.claims, validity.starts, validity.ends, key, cache, digest)
        if self.size:
            gone = self._entries.pop(digest, None)  # it was waited for twice at a time
            if gone is None and len(self._entries) >= self.size:
                _, gone = self._entries.popitem(last=False)
            if gone is not None:
                self._named.pop(gone.name, None)
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
        for digest, entry in [each for each in self._entries.items() if ends(each[1])]:
            del self._entries[digest]
            self._named.pop(entry.name, None)


def _holds(accepted: Accepted, now: float) -> bool:
    return accepted.starts <= now < accepted.ends and accepted.cache.is_live(now)


def token_digest(token: str) -> bytes:
    """What a token is known by: two tokens with one digest are one token."""
    return digest(token.encode("utf-8", "surrogatepass"))


def digest(data: bytes) -> bytes:
    """The name of these bytes, which no others have: BLAKE2b (RFC 7693) of 256 bits.

    No SHA-256, which is as good: Python asks OpenSSL for that, whose way to it is long. Between
    the requests of a busy server it takes several times as long as in a loop by itself.
    """
    return blake2b(data, digest_size=32).digest()
