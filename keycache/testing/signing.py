"""The fake issuer's keys: made, published as JWKs, and used to sign."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(slots=True)
class SigningKey:
    """A private key; `needed_until` is the latest `exp` that it signed (epoch seconds)."""

    kid: str
    algorithm: str
    private: PrivateKey
    needed_until: float = 0.0


def new_kid(alg: str) -> str:
    """A kid that nobody has used; its algorithm is in it only for the reader of a screen."""
    return f"{alg.lower()}-{secrets.token_hex(4)}"


def new_key(alg: str) -> SigningKey:
    """Make a key for an algorithm, one of `keycache.issuer.POSSIBLE_ALGORITHMS`. Raises KeyError
    for any other.
    """
    private: PrivateKey
    if alg.startswith(("RS", "PS")):
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    elif alg.startswith("Ed"):
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(_CURVES[alg])
    return SigningKey(new_kid(alg), alg, private)


def public_jwk(key: SigningKey) -> dict[str, Any]:
    """The public half as a JWK (RFC 7517, RFC 8037)."""
    if isinstance(key.private, rsa.RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    elif isinstance(key.private, ec.EllipticCurvePrivateKey):
        jwk = ECAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(key.private.public_key(), as_dict=True)
    # RFC 7517 section 4.3 asks for `use` or `key_ops`, not both; issuers in the wild send `use`.
    jwk.pop("key_ops", None)
    return {**jwk, "kid": key.kid, "use": "sig", "alg": key.algorithm}


def sign(key: SigningKey, claims: dict[str, Any], headers: Mapping[str, object] | None) -> str:
    """A compact JWS (RFC 7515 section 3.1); `headers` are added to `alg`, `typ` and `kid`."""
    return jwt.encode(
        claims, key.private, algorithm=key.algorithm, headers={"kid": key.kid, **(headers or {})}
    )
