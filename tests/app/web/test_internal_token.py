"""Internal tokens, judged by our own verifier and by PyJWT."""

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from app.web.internal_token import InternalTokens, PrivateKey
from keycache.core.jwks import parse_jwks
from keycache.core.keys import SigningKey
from keycache.core.token import parse_token
from keycache.core.verifier import verify
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer

NOW = 1_700_000_000.4
CLAIMS = {"iss": "https://id.example.com/", "sub": "alice", "aud": "api", "role": "admin"}
KEYS: dict[str, PrivateKey] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(key: Any) -> bytes:  # noqa: ANN401 - any private key
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def tokens(*algorithms: str, lifetime: float = 60.0) -> InternalTokens:
    return InternalTokens(
        [pem(KEYS[algorithm]) for algorithm in algorithms],
        issuer="https://keycache.example",
        audience="upstream",
        lifetime=lifetime,
    )


def mint(made: InternalTokens, ends: float = NOW + 3600, **claims: object) -> dict[str, Any]:
    token, _ = made.mint(CLAIMS | claims, ["write", "read"], ends, NOW)
    payload: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return payload


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_upstream_verifies_it_with_the_published_keys(algorithm: str) -> None:
    made = tokens(algorithm)
    text, _ = made.mint(CLAIMS, [], NOW + 3600, NOW)
    upstream = Issuer(issuer="https://keycache.example", audiences=("upstream",))
    token = parse_token(text, 8192, 128)
    key = parse_jwks(made.jwks, 10).select(token.header.kid, token.header.alg)
    assert isinstance(key, SigningKey)
    assert "alice" == verify(token, key, upstream, NOW).claims["sub"]


def test_it_says_whose_token_it_stands_for() -> None:
    said = mint(tokens("ES256"), client_id="app")
    assert 32 == len(said.pop("jti"))
    assert {
        "iss": "https://keycache.example",
        "aud": "upstream",
        "sub": "alice",
        "client_id": "app",
        "original_iss": "https://id.example.com/",
        "scope": "read write",
        "iat": 1_700_000_000,
        "exp": 1_700_000_060,
    } == said


def test_it_does_not_outlive_the_token_it_stands_for() -> None:
    assert 1_700_000_007 == mint(tokens("ES256"), ends=NOW + 7)["exp"]


def test_all_keys_are_published_and_the_first_signs() -> None:
    made = tokens("ES256", "EdDSA")
    published = json.loads(made.jwks)["keys"]
    token, _ = made.mint(CLAIMS, [], NOW + 60, NOW)
    assert ["ES256", "EdDSA"] == [key["alg"] for key in published]
    assert published[0]["kid"] == jwt.get_unverified_header(token)["kid"]


def test_kid_stays_when_another_key_signs() -> None:
    before = {key["kid"] for key in json.loads(tokens("ES256", "EdDSA").jwks)["keys"]}
    after = {key["kid"] for key in json.loads(tokens("EdDSA", "ES256").jwks)["keys"]}
    assert before == after


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_nothing_private_is_published(algorithm: str) -> None:
    private = {"d", "p", "q", "dp", "dq", "qi", "k"}
    (key,) = json.loads(tokens(algorithm).jwks)["keys"]
    assert set() == private & key.keys()


def encrypted() -> bytes:
    return KEYS["EdDSA"].private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (b"no key", "internal_token: key 2: is not an unencrypted private key in PEM"),
        (encrypted(), "internal_token: key 2: is not an unencrypted private key in PEM"),
        (
            pem(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - which is why
            "internal_token: key 2: is none of RSA (≥ 2048 bits), P-256, Ed25519",
        ),
        (
            pem(ec.generate_private_key(ec.SECP384R1())),
            "internal_token: key 2: is none of RSA (≥ 2048 bits), P-256, Ed25519",
        ),
    ],
)
def test_key_that_cannot_sign_is_refused_by_its_number(key: bytes, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        InternalTokens([pem(KEYS["ES256"]), key], issuer="i", audience="a", lifetime=60)
    assert (problem,) == refused.value.problems
