"""SigningKey and KeySet: the usable keys of an issuer, and the one way to choose among them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that may verify tokens.

    algorithms: every `alg` it may be used with; one where the JWK names one (RFC 8725 section 3.1).
    size: in bits. thumbprint: RFC 7638, in hexadecimal digits; two keys with equal thumbprints are
    the same key. public: the key object, for `core.verifier` only.
    """

    kid: str | None
    kty: str
    algorithms: tuple[str, ...]
    size: int
    thumbprint: str
    public: object = field(repr=False, compare=False)


class SkipReason(StrEnum):
    """Why a JWK cannot be used: a closed list, used as a label."""

    NOT_AN_OBJECT = "not_an_object"
    BAD_KID = "bad_kid"
    DUPLICATE_KID = "duplicate_kid"  # of another key of the same algorithm: which is meant?
    UNKNOWN_KTY = "unknown_kty"
    UNKNOWN_CURVE = "unknown_curve"
    UNKNOWN_ALG = "unknown_alg"
    ALG_MISMATCH = "alg_mismatch"
    PRIVATE_KEY = "private_key"
    WRONG_USE = "wrong_use"
    WRONG_KEY_OPS = "wrong_key_ops"
    MISSING_MEMBER = "missing_member"
    BAD_KEY = "bad_key"
    BAD_EXPONENT = "bad_exponent"
    WEAK_KEY = "weak_key"
    KEY_TOO_LARGE = "key_too_large"


@dataclass(frozen=True, slots=True)
class SkippedKey:
    """A JWK that cannot be used, and why; `kid` is None when unreadable."""

    kid: str | None
    reason: SkipReason


class Miss(Enum):
    """Why a key set has no key for a token."""

    UNKNOWN = "the set has no key of that kid"
    UNUSABLE = "the set has such a key, and it cannot be used"
    MISMATCH = "the key of that kid is not for that algorithm"
    AMBIGUOUS = "the token has no kid, and not exactly one key is compatible"


class KeySet:
    """The keys of one JWKS document, replaced as a whole and never changed."""

    __slots__ = ("_by_kid_and_alg", "_kids", "keys", "skipped")

    def __init__(self, keys: Iterable[SigningKey], skipped: Iterable[SkippedKey] = ()) -> None:
        self.keys = tuple(keys)
        self.skipped = tuple(skipped)
        self._by_kid_and_alg = {(key.kid, alg): key for key in self.keys for alg in key.algorithms}
        self._kids = {key.kid for key in self.keys}

    def select(self, kid: str | None, alg: str) -> SigningKey | Miss:
        """The key for a token of this kid and alg. Without a kid: the only compatible key."""
        if kid is not None:
            key = self._by_kid_and_alg.get((kid, alg))
            if key is not None:
                return key
            if kid in self._kids:
                return Miss.MISMATCH
            if any(skipped.kid == kid for skipped in self.skipped):
                return Miss.UNUSABLE
            return Miss.UNKNOWN
        compatible = [key for key in self.keys if alg in key.algorithms]
        return compatible[0] if len(compatible) == 1 else Miss.AMBIGUOUS

    def succeeding(self, previous: "KeySet | None") -> "KeySet":
        """This set, built of `previous`' key objects where they are the same keys.

        `previous` itself when nothing changed. So "the key is still in the set" is a question of
        identity, and a token verified with a key stays verified for exactly as long as that key.
        """
        if previous is None:
            return self
        if previous.keys == self.keys and previous.skipped == self.skipped:
            return previous
        known = {key: key for key in previous.keys}
        return KeySet((known.get(key, key) for key in self.keys), self.skipped)
