"""UnverifiedToken + SigningKey + Issuer + now → Claims: the one function that lets a stranger in.

The signature comes first: who cannot sign learns nothing about what else we would have wanted.
Which algorithm checks it is decided by the key, never by the token alone (RFC 8725 section 3.1).
"""

from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from keycache.core.claims import Claims, Validity, check_claims, freeze
from keycache.core.keys import SigningKey
from keycache.core.token import UnverifiedToken
from keycache.errors import Reason, TokenError
from keycache.issuer import Issuer


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The claims of a good token, and when it may be used."""

    claims: Claims
    validity: Validity


def verify(token: UnverifiedToken, key: SigningKey, issuer: Issuer, now: float) -> Verdict:
    """Check the signature, then the claims. Raises TokenError: those of `check_signature` and of
    `judge`.

    `key` must have been selected for the token's kid and alg, and `issuer` for its iss.
    """
    check_signature(token, key, issuer)
    return judge(token, issuer, now)


def check_signature(token: UnverifiedToken, key: SigningKey, issuer: Issuer) -> None:
    """The first step of `verify`. Raises TokenError: unsupported_algorithm, bad_signature."""
    alg = token.header.alg
    if alg not in key.algorithms or alg not in issuer.algorithms:
        raise TokenError(
            Reason.UNSUPPORTED_ALGORITHM, "The algorithm of the token is not accepted here."
        )
    try:
        _CHECKS[alg](key.public, token.signing_input, token.signature)
    except InvalidSignature:
        raise TokenError(Reason.BAD_SIGNATURE, "The signature does not fit the token.") from None


def judge(token: UnverifiedToken, issuer: Issuer, now: float) -> Verdict:
    """The second step of `verify`, for a token whose signature has been checked. Raises TokenError
    as `core.claims.check_claims` does.
    """
    validity = check_claims(token.header, token.payload, issuer, now)
    return Verdict(freeze(token.payload), validity)


# How a signature is checked, by `alg`: (public key, signed bytes, signature) → nothing, or
# InvalidSignature. PyJWT's Algorithm objects do the same and make padding, digest and curve anew
# for every token; here each is made once. PyJWT is the oracle in tests/differential.
_Check = Callable[[Any, bytes, bytes], None]


def _pkcs1(digest: hashes.HashAlgorithm) -> _Check:
    """RFC 7518 section 3.3."""
    scheme = padding.PKCS1v15()
    return lambda key, data, signature: key.verify(signature, data, scheme, digest)


def _pss(digest: hashes.HashAlgorithm) -> _Check:
    """RFC 7518 section 3.5: the salt is as long as the digest, MGF1 uses the same hash."""
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return lambda key, data, signature: key.verify(signature, data, scheme, digest)


def _ecdsa(digest: hashes.HashAlgorithm, size: int) -> _Check:
    """RFC 7518 section 3.4: r and s, each as long as the curve's order (`size` octets), no DER."""
    scheme = ec.ECDSA(digest)

    def check(key: Any, data: bytes, signature: bytes) -> None:  # noqa: ANN401 - see _Check
        if len(signature) != 2 * size:
            raise InvalidSignature
        key.verify(der_signature(signature[:size], signature[size:]), data, scheme)

    return check


def der_signature(r: bytes, s: bytes) -> bytes:
    """Ecdsa-Sig-Value (RFC 3279 section 2.2.3) of two big-endian numbers of at most 66 octets.

    As cryptography's encode_dss_signature writes it, in half the time.
    """
    numbers = _der_integer(r) + _der_integer(s)
    return _SEQUENCE[len(numbers)] + numbers


def _der_integer(octets: bytes) -> bytes:
    """X.690 section 8.3: the fewest octets of two's complement, which for these is positive."""
    octets = octets.lstrip(b"\0")
    if not octets or octets[0] > 127:
        octets = b"\0" + octets
    return _INTEGER[len(octets)] + octets


# The octets of tag and length (X.690 section 8.1.3), by length.
_INTEGER = [bytes((0x02, length)) for length in range(128)]
_SEQUENCE = [
    *(bytes((0x30, length)) for length in range(128)),
    *(bytes((0x30, 0x81, length)) for length in range(128, 256)),
]


def _eddsa(key: Any, data: bytes, signature: bytes) -> None:  # noqa: ANN401 - see _Check
    """RFC 8037 section 3.1; the curve is the key's."""
    key.verify(signature, data)


_CHECKS: dict[str, _Check] = {
    "RS256": _pkcs1(hashes.SHA256()),
    "RS384": _pkcs1(hashes.SHA384()),
    "RS512": _pkcs1(hashes.SHA512()),
    "PS256": _pss(hashes.SHA256()),
    "PS384": _pss(hashes.SHA384()),
    "PS512": _pss(hashes.SHA512()),
    "ES256": _ecdsa(hashes.SHA256(), 32),
    "ES384": _ecdsa(hashes.SHA384(), 48),
    "ES512": _ecdsa(hashes.SHA512(), 66),
    "EdDSA": _eddsa,
    "Ed25519": _eddsa,
}
