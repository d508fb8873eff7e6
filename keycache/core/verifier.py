"""UnverifiedToken + SigningKey + Issuer + now → Claims: the one function that lets a stranger in.

The signature comes first: who cannot sign learns nothing about what else we would have wanted.
PyJWT's Algorithm objects check it; which one is decided by the key, never by the token alone
(RFC 8725 section 3.1).
"""

import msgspec
from jwt.algorithms import get_default_algorithms

from keycache.core.claims import Claims, Validity, check_claims, freeze
from keycache.core.keys import SigningKey
from keycache.core.token import UnverifiedToken
from keycache.errors import Reason, TokenError
from keycache.issuer import POSSIBLE_ALGORITHMS, Issuer


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
    if not _ALGORITHMS[alg].verify(token.signing_input, key.public, token.signature):
        raise TokenError(Reason.BAD_SIGNATURE, "The signature does not fit the token.")


def judge(token: UnverifiedToken, issuer: Issuer, now: float) -> Verdict:
    """The second step of `verify`, for a token whose signature has been checked. Raises TokenError
    as `core.claims.check_claims` does.
    """
    validity = check_claims(token.header, token.payload, issuer, now)
    return Verdict(freeze(token.payload), validity)


_ALGORITHMS = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in POSSIBLE_ALGORITHMS
}
