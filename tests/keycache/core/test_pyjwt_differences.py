"""Where our verdict differs from PyJWT's on purpose, each with the sentence that makes us right.

PyJWT is asked as its documentation says: the algorithm, the audience and the issuer are given, and
the key is a PyJWK. When a new PyJWT changes its verdict, its row here fails and can go.
"""

import json
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm

from keycache.errors import Reason
from tests.keycache.core.forge import (
    ABSENT,
    b64,
    b64_json,
    b64_number,
    claims,
    jwk,
    private_key,
    sealed,
    token,
    verdict,
)

# PyJWT reads the clock itself, so these tokens are good for long.
GOOD = claims(exp=4_000_000_000)
IDENTITY = (1).to_bytes(32, "little")


class Row(NamedTuple):
    """A token and a key; what PyJWT makes of them, and what we do; and why."""

    text: Callable[[], str]
    key: Callable[[], dict[str, Any]]
    theirs: str
    ours: str
    because: str


def with_payload(payload: bytes) -> Callable[[], str]:
    return lambda: token("ES256", payload=payload)


def with_claims(**changes: object) -> Callable[[], str]:
    return lambda: token("ES256", payload={**GOOD, **changes})


def with_header(**members: object) -> Callable[[], str]:
    return lambda: token("ES256", header=members, payload=GOOD)


def es256() -> dict[str, Any]:
    return jwk("ES256")


def good() -> str:
    return token("ES256", payload=GOOD)


def rsa_of_1024_bits() -> dict[str, Any]:
    numbers = weak_private_key().public_key().public_numbers()
    return {"kty": "RSA", "kid": "weak", "n": b64_number(numbers.n), "e": b64_number(numbers.e)}


@cache
def weak_private_key() -> rsa.RSAPrivateKey:
    # Weak is what it is for.
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505


def signed_with_rsa_of_1024_bits() -> str:
    message = f"{b64_json({'alg': 'RS256', 'kid': 'weak'})}.{b64_json(GOOD)}"
    signature = weak_private_key().sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{message}.{b64(signature)}"


def published_private_key() -> dict[str, Any]:
    private = private_key("RS256")
    assert isinstance(private, rsa.RSAPrivateKey)
    return {**RSAAlgorithm.to_jwk(private, as_dict=True), "kid": "RS256", "key_ops": ["verify"]}


def forged_for_identity() -> str:
    """Nobody signed this: R is the identity, S is 0, and so is the secret."""
    message = f"{b64_json({'alg': 'EdDSA', 'kid': 'identity'})}.{b64_json(GOOD)}"
    return f"{message}.{b64(IDENTITY + bytes(32))}"


def signed_with_pss() -> str:
    return token("PS256", {"kid": "RS256"}, GOOD)


def padded_payload() -> str:
    header, payload, _ = good().split(".")
    return sealed("ES256", header, payload + "=" * (-len(payload) % 4 or 4))


ROWS = {
    # Spelling
    "padded signature": Row(
        lambda: good() + "==",
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 7515 section 2: base64url 'with all trailing '=' characters omitted'",
    ),
    "padded payload": Row(
        padded_payload,
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 7515 section 2: base64url 'with all trailing '=' characters omitted'",
    ),
    "text that is no ASCII": Row(
        lambda: good() + "\udcff",
        es256,
        "UnicodeEncodeError",
        Reason.MALFORMED,
        "RFC 7515 section 3.1: the parts are BASE64URL(...), which is ASCII (section 2)",
    ),
    # JSON
    "byte order mark": Row(
        with_payload(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 8259 section 8.1: 'Implementations MUST NOT add a byte order mark'",
    ),
    "UTF-16": Row(
        with_payload(json.dumps(GOOD).encode("utf-16")),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 8725 section 3.7: 'not use or admit the use of other Unicode encodings'",
    ),
    "not a number": Row(
        with_claims(x=float("nan")),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 8259 section 6: 'Numeric values that cannot be represented in the grammar below (such "
        "as Infinity and NaN) are not permitted'",
    ),
    "lone surrogate": Row(
        with_claims(sub="\ud800"),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 8259 section 8.2: 'The behavior of software that receives JSON texts containing such "
        "values is unpredictable'",
    ),
    "member twice": Row(
        with_payload(json.dumps(GOOD)[:-1].encode() + b', "sub": "admin"}'),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 7519 section 4: 'The Claim Names within a JWT Claims Set MUST be unique'",
    ),
    # Header
    "crit": Row(
        with_header(crit=["b64"], b64=True),
        es256,
        "accepted",
        Reason.UNSUPPORTED_HEADER,
        "RFC 7515 section 4.1.11: if an extension is 'not understood and supported by the "
        "recipient, then the JWS is invalid'",
    ),
    "nested token announced": Row(
        with_header(cty="JWT"),
        es256,
        "accepted",
        Reason.UNSUPPORTED_HEADER,
        "RFC 7519 section 5.2: cty JWT says 'that a Nested JWT is carried', which claims are not",
    ),
    "type of another purpose": Row(
        with_header(typ="logout+jwt"),
        es256,
        "accepted",
        Reason.WRONG_TYPE,
        "RFC 8725 section 3.12: validation rules of different kinds of JWTs are mutually exclusive",
    ),
    "type that is no text": Row(
        with_header(typ=1),
        es256,
        "accepted",
        Reason.MALFORMED,
        "RFC 7515 section 4.1.9: typ is a media type",
    ),
    # Claims
    "exp as text": Row(
        with_claims(exp="4000000000"),
        es256,
        "accepted",
        Reason.INVALID_CLAIM,
        "RFC 7519 section 4.1.4: 'Its value MUST be a number containing a NumericDate value'",
    ),
    "nbf as truth": Row(
        with_claims(nbf=True),
        es256,
        "accepted",
        Reason.INVALID_CLAIM,
        "RFC 7519 section 4.1.5: 'Its value MUST be a number containing a NumericDate value'",
    ),
    "exp missing": Row(
        lambda: token("ES256", payload=claims(exp=ABSENT)),
        es256,
        "accepted",
        Reason.MISSING_CLAIM,
        "RFC 9068 section 2.2: 'exp REQUIRED'",
    ),
    # Keys
    "key for encryption": Row(
        good,
        lambda: jwk("ES256", use="enc"),
        "accepted",
        "wrong_use",
        "RFC 7517 section 4.2: use 'identifies the intended use of the public key'",
    ),
    "key for other operations": Row(
        good,
        lambda: jwk("ES256", use=ABSENT, key_ops=["deriveKey"]),
        "accepted",
        "wrong_key_ops",
        "RFC 7517 section 4.3: key_ops 'identifies the operation(s) for which the key is intended'",
    ),
    "private key published": Row(
        lambda: token("RS256", payload=GOOD),
        published_private_key,
        "AttributeError",
        "private_key",
        "RFC 7517 section 9.2: 'Private and symmetric keys MUST be protected from disclosure'",
    ),
    "algorithm none": Row(
        good,
        lambda: jwk("ES256", alg="none"),
        "NotImplementedError",
        "unknown_alg",
        "RFC 8725 section 3.2; RFC 7517 section 5: keys 'for which values are out of the supported "
        "ranges' are ignored, one by one",
    ),
    "algorithm in a list": Row(
        good,
        lambda: jwk("ES256", alg=["ES256"]),
        "TypeError",
        "unknown_alg",
        "RFC 7517 section 5: keys 'for which values are out of the supported ranges' are ignored",
    ),
    "RSA key of 1024 bits": Row(
        signed_with_rsa_of_1024_bits,
        rsa_of_1024_bits,
        "accepted",
        "weak_key",
        "RFC 7518 section 3.3: 'A key of size 2048 bits or larger MUST be used'",
    ),
    "identity as key": Row(
        forged_for_identity,
        lambda: {"kty": "OKP", "crv": "Ed25519", "kid": "identity", "x": b64(IDENTITY)},
        "accepted",
        "weak_key",
        "RFC 8725 section 3.4: inputs must be validated, also 'other invalid points'",
    ),
    # The other way round
    "key that names no algorithm": Row(
        signed_with_pss,
        lambda: jwk("RS256", alg=ABSENT),
        "refused",
        "accepted",
        "RFC 7517 section 4.4: 'Use of this member is OPTIONAL'",
    ),
}


def pyjwts_verdict(text: str, key: dict[str, Any]) -> str:
    """ "accepted", "refused", or the name of an error that is none of PyJWT's."""
    try:
        with warnings.catch_warnings(action="ignore"):
            jwt.decode(
                text,
                jwt.PyJWK(key),
                algorithms=["ES256", "RS256", "PS256", "EdDSA"],
                audience="api",
                issuer="https://issuer.example",
            )
    except jwt.PyJWTError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - which one is the question
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_verdicts_differ_as_the_table_says(row: Row) -> None:
    text, key = row.text(), row.key()

    assert row.theirs == pyjwts_verdict(text, key)
    assert row.ours == verdict(text, key)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_every_difference_names_its_rfc(row: Row) -> None:
    assert row.because.startswith("RFC ")


@pytest.mark.parametrize("alg", ["ES256", "RS256", "PS256", "EdDSA"])
def test_verdicts_are_the_same_on_a_good_token(alg: str) -> None:
    text, key = token(alg, payload=GOOD), jwk(alg)

    assert ["accepted", "accepted"] == [pyjwts_verdict(text, key), verdict(text, key)]


@pytest.mark.parametrize(
    ("alg", "header", "payload"),
    [
        ("ES256", {}, {"exp": 1_600_000_000}),
        ("ES256", {}, {"aud": "other"}),
        ("ES256", {}, {"aud": ABSENT}),
        ("ES256", {}, {"nbf": 3_900_000_000}),
        ("ES256", {}, {"sub": 1}),
        ("ES256", {}, {"jti": 1}),
        ("ES256", {"crit": ["exp"]}, {}),
        ("ES256", {"kid": 1}, {}),
        ("ES256", {"alg": "RS256"}, {}),
        ("ES256", {"alg": "none"}, {}),
        ("ES256", {"alg": ABSENT}, {}),
    ],
)
def test_verdicts_are_the_same_on_a_bad_token(
    alg: str, header: dict[str, object], payload: dict[str, object]
) -> None:
    text = token(alg, header, {k: v for k, v in {**GOOD, **payload}.items() if v is not ABSENT})

    assert "refused" == pyjwts_verdict(text, jwk(alg))
    assert "accepted" != verdict(text, jwk(alg))
