"""Keys made once for all tests, and tokens of any shape: signed well, signed badly, or not at all.

The time in the tests is NOW, a number; the tokens of `claims()` are good at that time.
"""

import base64
import json
from functools import cache
from math import inf
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from keycache.core.claims import Claims, freeze
from keycache.core.jwks import parse_jwks
from keycache.core.keys import KeySet, SigningKey
from keycache.core.strict_json import parse_object
from keycache.core.token import UnverifiedToken, parse_token
from keycache.core.verifier import Verdict, verify
from keycache.errors import JWKSError, TokenError
from keycache.issuer import POSSIBLE_ALGORITHMS, Issuer
from keycache.token_cache import Accepted

NOW = 1_700_000_000
ABSENT = object()
"""As a value: this member is left out."""

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def private_key(alg: str, number: int = 0) -> PrivateKey:
    """One key for each algorithm (and number); every RSA algorithm uses the same one."""
    if alg in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    if alg == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg])
    if alg != "RSA":
        return private_key("RSA", number)
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(alg: str, number: int = 0, /, **changes: object) -> dict[str, Any]:
    """The public JWK of `private_key(alg, number)`, with the kid `alg` unless changed."""
    public: Any = private_key(alg, number).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        members = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        members = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        members = OKPAlgorithm.to_jwk(public, as_dict=True)
    members.pop("key_ops", None)
    name = "EdDSA" if alg == "Ed448" else alg
    return present({**members, "kid": alg, "alg": name, "use": "sig", **changes})


def present(members: dict[str, Any]) -> dict[str, Any]:
    """These members without those that are ABSENT."""
    return {name: value for name, value in members.items() if value is not ABSENT}


def b64(data: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64_json(value: object) -> str:
    """A value as a segment of a token."""
    return b64(json.dumps(value).encode())


def b64_number(number: int) -> str:
    """Base64urlUInt (RFC 7518 section 2)."""
    return b64(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))


def sign(alg: str, message: bytes, number: int = 0) -> bytes:
    """The signature of `private_key(alg, number)`, as a JWS holds it."""
    algorithm = get_default_algorithms()["EdDSA" if alg.startswith("Ed") else alg]
    return algorithm.sign(message, private_key(alg, number))


def claims(**changes: object) -> dict[str, Any]:
    """The claims of a good token, changed."""
    good = {"iss": "https://issuer.example", "aud": "api", "sub": "alice", "exp": NOW + 300}
    return present({**good, **changes})


def frozen(payload: dict[str, Any]) -> Claims:
    """These claims as they are read in a token, and handed out."""
    return freeze(parse_object(json.dumps(payload).encode()))


def sealed(alg: str, header: str, payload: str) -> str:
    """A compact JWS of these two segments, signed well whatever they are."""
    return f"{header}.{payload}.{b64(sign(alg, f'{header}.{payload}'.encode()))}"


def token(
    alg: str = "ES256",
    header: dict[str, object] | None = None,
    payload: dict[str, Any] | bytes | None = None,
) -> str:
    """A token with these header members changed and this payload (`claims()` unless given)."""
    name = "EdDSA" if alg == "Ed448" else alg
    members = present({"alg": name, "kid": alg, "typ": "JWT", **(header or {})})
    content = payload if isinstance(payload, bytes) else json.dumps(payload or claims()).encode()
    return sealed(alg, b64_json(members), b64(content))


def issuer(**changes: Any) -> Issuer:  # noqa: ANN401 - any field of Issuer
    """An issuer that takes every algorithm and forgives no clock."""
    return Issuer(
        **{
            "issuer": "https://issuer.example",
            "audiences": ("api",),
            "algorithms": POSSIBLE_ALGORITHMS,
            "leeway": 0,
            **changes,
        }
    )


def key_set(*jwks: object, max_keys: int = 100) -> KeySet:
    """The key set of a document with these keys."""
    return parse_jwks(json.dumps({"keys": jwks}).encode(), max_keys)


def key(alg: str, number: int = 0, /, **changes: object) -> SigningKey:
    """The only key of a document with this JWK."""
    (only,) = key_set(jwk(alg, number, **changes)).keys
    return only


def parsed(text: str) -> UnverifiedToken:
    """The token taken apart, with the limits that are our defaults."""
    return parse_token(text, 8192, 128)


def verdict(text: str, *jwks: object, policy: Issuer | None = None, now: float = NOW) -> str:
    """What becomes of a token at an issuer with these keys: "accepted" or the reason."""
    try:
        keys = key_set(*jwks)
    except JWKSError as error:
        return error.details.rpartition(" ")[2]
    try:
        unverified = parsed(text)
        found = keys.select(unverified.header.kid, unverified.header.alg)
        if not isinstance(found, SigningKey):
            return found.name.lower()
        assert isinstance(verify(unverified, found, policy or issuer(), now), Verdict)
    except TokenError as error:
        return error.reason
    return "accepted"


def accepted(claims: Claims) -> Accepted:
    """A token of these claims, as an authenticator tells of one that it has verified just now."""
    cache: Any = None  # which nobody asks who has not found it in a token cache
    return Accepted(claims, -inf, inf, key("ES256"), cache, b"")


class Nothing:
    """Remembers nothing: the part of an authenticator that a test without a token cache needs."""

    def still(self, accepted: Accepted, /) -> bool:
        return False

    def named(self, name: bytes, /) -> Accepted | None:
        return None

    def name(self, accepted: Accepted, name: bytes, /) -> None:
        pass
