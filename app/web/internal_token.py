"""InternalTokens: JWTs of our own, which tell an upstream that we have verified a request's token.

A header that a proxy copies can be sent by whoever reaches the upstream past the proxy; a signature
cannot. The upstream checks it with any JWT library, by the keys at our own JWKS URL. Short-lived,
and never longer than the token it stands for. Minting is why this file, alone in the service, holds
private keys.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from secrets import token_hex
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from keycache.errors import ConfigurationError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_BITS = 2048
"""RFC 7518 section 3.3: at least."""

_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""RFC 7638 section 3.2 and RFC 8037 section 2: the members a thumbprint is taken of, in order."""


class InternalTokens:
    """Mints tokens and publishes what they are checked with.

    keys: private keys in PEM. The first signs; all are published, so that a key is known to every
    upstream before it signs, and for as long as what it signed is good: roll out `old, new`, then
    `new, old`, then `new`. issuer, audience: `iss` and `aud`. lifetime: seconds, at most.

    Raises ConfigurationError, with every problem, for keys that cannot sign RS256, ES256 or EdDSA.
    """

    def __init__(
        self, keys: Sequence[bytes], *, issuer: str, audience: str, lifetime: float
    ) -> None:
        loaded, problems = [], []
        for number, pem in enumerate(keys, 1):
            try:
                loaded.append(_load(pem))
            except ValueError as error:
                problems.append(f"internal_token: key {number}: {error}")
        if not keys:
            problems.append("internal_token: no key to sign with")
        if problems:
            raise ConfigurationError(problems)
        jwks = [_public_jwk(key, algorithm) for key, algorithm in loaded]
        self._key, self._algorithm = loaded[0]
        self._header = {"kid": jwks[0]["kid"]}
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self.jwks = json.dumps({"keys": jwks}, separators=(",", ":")).encode()

    def mint(
        self, claims: Mapping[str, Any], scopes: Iterable[str], ends: float, now: float
    ) -> tuple[str, float]:
        """A token for who `claims` speak for, and when it ends (`exp`).

        scopes: what the verified token grants (RFC 8693 section 4.2). ends: when that token ends.
        All times in seconds since the epoch.
        """
        issued = int(now)
        expires = max(issued + 1, min(int(now + self._lifetime), int(ends)))
        payload = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued,
            "exp": expires,
            "jti": token_hex(16),
            "original_iss": claims["iss"],
            "scope": " ".join(sorted(scopes)),
        }
        payload |= {name: claims[name] for name in ("sub", "client_id") if name in claims}
        token = jwt.encode(payload, self._key, algorithm=self._algorithm, headers=self._header)
        return token, expires


def _load(pem: bytes) -> tuple[PrivateKey, str]:
    """A private key and the `alg` it signs. Raises ValueError, with no word of the key."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not an unencrypted private key in PEM") from None
    match key:
        case rsa.RSAPrivateKey() if key.key_size >= RSA_BITS:
            return key, "RS256"
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1):
            return key, "ES256"
        case ed25519.Ed25519PrivateKey():
            return key, "EdDSA"
        case _:
            raise ValueError(f"is none of RSA (≥ {RSA_BITS} bits), P-256, Ed25519")


def _public_jwk(key: PrivateKey, algorithm: str) -> dict[str, Any]:
    """The public half as a JWK (RFC 7517 section 4); its thumbprint (RFC 7638) is its `kid`."""
    match key:
        case rsa.RSAPrivateKey():
            jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    members = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    digest = sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**members, "kid": kid, "use": "sig", "alg": algorithm}
