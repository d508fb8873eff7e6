"""JWKS document (RFC 7517 section 5) → KeySet. A key that cannot be used is skipped, with a reason.

The document comes from the issuer over TLS, or from a sealed record; it is still read with
distrust: one bad key must not take the others down (PyJWT's PyJWKSet loses the whole set to one
`alg: "none"`), and a weak key must not let anybody in. Sizes are checked before any arithmetic is
done.
"""

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt import PyJWK

from keycache.core.keys import KeySet, SigningKey, SkippedKey, SkipReason
from keycache.core.token import decode_base64url
from keycache.errors import FetchCode, JWKSError
from keycache.issuer import POSSIBLE_ALGORITHMS

RSA_BITS = range(2048, 8192 + 1)  # RFC 7518 section 3.3: at least 2048; above 8192 only cost grows
MIN_RSA_EXPONENT = 65537  # NIST SP 800-56B rev. 2 section 6.2
MAX_RSA_EXPONENT = 2**32


class _UnusableKeyError(Exception):
    """Carries the reason."""

    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_jwks(document: bytes, max_keys: int) -> KeySet:
    """The key set in a JWKS document. Raises JWKSError unless it holds at least one usable key."""
    try:
        parsed = json.loads(document.decode("utf-8"))  # RFC 8259 section 8.1: UTF-8
    except (ValueError, RecursionError):
        raise JWKSError(FetchCode.NOT_JSON, "the answer is not a JSON document") from None
    jwks = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(jwks, list):
        raise JWKSError(FetchCode.NOT_JSON, 'the answer is no JWKS: it has no list named "keys"')
    if len(jwks) > max_keys:
        raise JWKSError(
            FetchCode.TOO_MANY_KEYS, f"the set has {len(jwks)} keys; at most {max_keys} are read"
        )
    keys: list[SigningKey] = []
    skipped: list[SkippedKey] = []
    for jwk in jwks:
        try:
            keys.append(parse_jwk(jwk))
        except _UnusableKeyError as error:
            skipped.append(SkippedKey(_readable_kid(jwk), error.reason))
    keys, ambiguous = _without_ambiguous(keys)
    if not keys:
        reasons = ", ".join(sorted({key.reason for key in (*skipped, *ambiguous)})) or "it is empty"
        raise JWKSError(FetchCode.NO_USABLE_KEY, f"the set has no usable key: {reasons}")
    return KeySet(keys, (*skipped, *ambiguous))


def parse_jwk(jwk: object) -> SigningKey:
    """One signing key. Raises _UnusableKeyError with the reason."""
    if not isinstance(jwk, dict):
        raise _UnusableKeyError(SkipReason.NOT_AN_OBJECT)
    kid = jwk.get("kid")
    if kid is not None and not (
        isinstance(kid, str) and kid and kid.isascii() and kid.isprintable()
    ):
        raise _UnusableKeyError(SkipReason.BAD_KID)
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _READERS:
        # RFC 7517 section 5: ignored, the set stays usable.
        raise _UnusableKeyError(SkipReason.UNKNOWN_KTY)
    if any(member in jwk for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")):
        raise _UnusableKeyError(SkipReason.PRIVATE_KEY)  # published: anybody may have it
    if jwk.get("use", "sig") != "sig":  # RFC 7517 section 4.2
        raise _UnusableKeyError(SkipReason.WRONG_USE)
    operations = jwk.get("key_ops", ["verify"])  # RFC 7517 section 4.3
    if not isinstance(operations, list) or "verify" not in operations:
        raise _UnusableKeyError(SkipReason.WRONG_KEY_OPS)
    public, size, possible, required = _READERS[kty](jwk)
    alg = jwk.get("alg")
    if alg is not None and (not isinstance(alg, str) or alg not in POSSIBLE_ALGORITHMS):
        raise _UnusableKeyError(SkipReason.UNKNOWN_ALG)
    if alg is not None and alg not in possible:
        raise _UnusableKeyError(SkipReason.ALG_MISMATCH)
    # RFC 7638: the required members only, in lexicographic order, without white space.
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    thumbprint = sha256(canonical.encode()).hexdigest()
    return SigningKey(kid, kty, (alg,) if alg else possible, size, thumbprint, public)


_Read = tuple[object, int, tuple[str, ...], dict[str, str]]


def _read_rsa(jwk: Mapping[str, object]) -> _Read:
    modulus, exponent = _number(jwk, "n", 8192), _number(jwk, "e", 64)
    if modulus.bit_length() < RSA_BITS.start:
        raise _UnusableKeyError(SkipReason.WEAK_KEY)
    if modulus.bit_length() not in RSA_BITS:
        raise _UnusableKeyError(SkipReason.KEY_TOO_LARGE)
    if modulus % 2 == 0 or exponent % 2 == 0:
        raise _UnusableKeyError(SkipReason.BAD_KEY)
    if not MIN_RSA_EXPONENT <= exponent <= MAX_RSA_EXPONENT:
        raise _UnusableKeyError(SkipReason.BAD_EXPONENT)
    required = {name: str(jwk[name]) for name in ("e", "kty", "n")}
    algorithms = tuple(alg for alg in POSSIBLE_ALGORITHMS if alg[:2] in ("RS", "PS"))
    public = _build(required, "RS256", rsa.RSAPublicKey)
    return public, modulus.bit_length(), algorithms, required


def _read_ec(jwk: Mapping[str, object]) -> _Read:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in _CURVES:
        raise _UnusableKeyError(SkipReason.UNKNOWN_CURVE)
    alg, size = _CURVES[curve]
    for name in ("x", "y"):
        # RFC 7518 section 6.2.1.2: the full length of a coordinate, leading zeros included.
        if len(_octets(jwk, name, size)) != (size + 7) // 8:
            raise _UnusableKeyError(SkipReason.BAD_KEY)
    required = {name: str(jwk[name]) for name in ("crv", "kty", "x", "y")}
    return _build(required, alg, ec.EllipticCurvePublicKey), size, (alg,), required


def _read_okp(jwk: Mapping[str, object]) -> _Read:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in _EDWARDS:
        raise _UnusableKeyError(SkipReason.UNKNOWN_CURVE)
    size, kind, algorithms = _EDWARDS[curve]
    octets = _octets(jwk, "x", size)
    if len(octets) != (size + 7) // 8:
        raise _UnusableKeyError(SkipReason.BAD_KEY)
    if _has_low_order(curve, octets):
        raise _UnusableKeyError(SkipReason.WEAK_KEY)
    required = {name: str(jwk[name]) for name in ("crv", "kty", "x")}
    return _build(required, "EdDSA", kind), size, algorithms, required


_READERS = {"RSA": _read_rsa, "EC": _read_ec, "OKP": _read_okp}
_CURVES = {"P-256": ("ES256", 256), "P-384": ("ES384", 384), "P-521": ("ES512", 521)}
_EDWARDS: dict[str, tuple[int, type, tuple[str, ...]]] = {
    "Ed25519": (255, ed25519.Ed25519PublicKey, ("EdDSA", "Ed25519")),
    "Ed448": (456, ed448.Ed448PublicKey, ("EdDSA",)),
}


def _build(required: dict[str, str], alg: str, kind: type) -> object:
    """Let PyJWT build the key object, from the public members and nothing else."""
    try:
        public = PyJWK(required, algorithm=alg).key
    except Exception:  # noqa: BLE001 - PyJWT lets KeyError, TypeError and others escape here
        raise _UnusableKeyError(SkipReason.BAD_KEY) from None
    if not isinstance(public, kind):
        raise _UnusableKeyError(SkipReason.BAD_KEY)
    return public


def _octets(jwk: Mapping[str, object], name: str, max_bits: int) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str) or not text:
        raise _UnusableKeyError(SkipReason.MISSING_MEMBER)
    if len(text) > max_bits // 6 + 8:
        raise _UnusableKeyError(SkipReason.KEY_TOO_LARGE)
    try:
        return decode_base64url(text.encode("ascii"))
    except ValueError:
        raise _UnusableKeyError(SkipReason.BAD_KEY) from None


def _number(jwk: Mapping[str, object], name: str, max_bits: int) -> int:
    return int.from_bytes(_octets(jwk, name, max_bits), "big")


def _has_low_order(curve: str, octets: bytes) -> bool:
    """Whether an Edwards point has a tiny order: anybody can sign for such a key.


    The y coordinates of the small-order points of edwards25519, canonical or not, are those that
    libsodium refuses (`ge25519_has_small_order`); of edwards448 (order 4) y is 0, 1 or -1.
    """
    if curve == "Ed448":
        y = int.from_bytes(octets[:56], "little")
        return y in {0, 1, _P448 - 1, _P448, _P448 + 1}
    y = int.from_bytes(octets, "little") & (2**255 - 1)
    return y in _LOW_ORDER_25519


_P448 = 2**448 - 2**224 - 1
_P25519 = 2**255 - 19
_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_LOW_ORDER_25519 = {0, 1, _ORDER_8, _P25519 - _ORDER_8, _P25519 - 1, _P25519, _P25519 + 1}


def _without_ambiguous(keys: list[SigningKey]) -> tuple[list[SigningKey], list[SkippedKey]]:
    """Drop every key whose kid and algorithm stand for another key too; an exact copy is one key.

    RFC 7517 section 4.5 wants distinct kids; to pick one of two silently is to verify with the
    wrong key half of the time, and to trust a key that the issuer may have meant to replace.
    """
    keys = list(dict.fromkeys(keys))
    count = Counter((key.kid, alg) for key in keys for alg in key.algorithms)
    clear = [
        key
        for key in keys
        if key.kid is None or all(count[key.kid, alg] == 1 for alg in key.algorithms)
    ]
    unclear = [key for key in keys if key not in clear]
    return clear, [SkippedKey(key.kid, SkipReason.DUPLICATE_KID) for key in unclear]


def _readable_kid(jwk: object) -> str | None:
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    readable = isinstance(kid, str) and kid.isascii() and kid.isprintable()
    return kid[:128] if readable and isinstance(kid, str) else None
