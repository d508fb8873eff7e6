"""The examples of the RFCs, as files named by RFC and section, in the words of our verdicts.

jwk: the key as printed, public members only (null: there is none). jws: as printed. expected.key:
"usable" or why the key is skipped. expected.signature: "valid" where it must fit the key.
expected.token: the verdict on the whole token; most examples sign text that holds no claims, or
claims that name no audience, so the signature is checked by itself too.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import import_key
from msgspec.structs import replace

from keycache.core.jwks import parse_jwks
from keycache.core.keys import SigningKey
from keycache.core.token import Header, UnverifiedToken, decode_base64url, parse_token
from keycache.core.verifier import verify
from keycache.errors import JWKSError, TokenError
from keycache.issuer import POSSIBLE_ALGORITHMS, Issuer

FILES = sorted(Path(__file__).parent.glob("rfc*.json"))
VECTORS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
SIGNED = {
    name: vector for name, vector in VECTORS.items() if vector["expected"]["signature"] == "valid"
}
NOW = 1_300_000_000  # before the exp of RFC 7515's examples
ISSUER = Issuer(
    issuer="https://issuer.example", audiences=("api",), algorithms=POSSIBLE_ALGORITHMS, leeway=0
)
CLAIMS: dict[str, object] = {"iss": ISSUER.issuer, "aud": "api", "exp": NOW + 1}


def usable_key(jwk: dict[str, Any]) -> SigningKey:
    (key,) = parse_jwks(json.dumps({"keys": [jwk]}).encode(), 1).keys
    return key


def with_claims(text: str) -> UnverifiedToken:
    """The header and signature of an example over what it signed, beside claims that we accept."""
    segments = text.encode().split(b".")
    members = json.loads(decode_base64url(segments[0]))
    header = Header(members["alg"], members.get("kid"), "")
    signature = decode_base64url(segments[2])
    return UnverifiedToken(header, CLAIMS, b".".join(segments[:2]), signature)


def test_all_examples_are_here() -> None:
    assert [
        *("rfc7515-a.1", "rfc7515-a.2", "rfc7515-a.3", "rfc7515-a.4", "rfc7515-a.5"),
        *("rfc7520-4.1", "rfc7520-4.2", "rfc7520-4.3", "rfc7520-4.4"),
        "rfc8037-a.4",
    ] == list(VECTORS)


@pytest.mark.parametrize("name", [name for name in VECTORS if VECTORS[name]["jwk"]])
def test_key_of_the_example_is_usable_or_skipped(name: str) -> None:
    vector = VECTORS[name]
    try:
        usable_key(vector["jwk"])
        found = "usable"
    except JWKSError as error:
        found = error.details.rpartition(" ")[2]

    assert vector["expected"]["key"] == found


@pytest.mark.parametrize("name", SIGNED)
def test_signature_of_the_example_fits(name: str) -> None:
    vector = SIGNED[name]

    good = verify(with_claims(vector["jws"]), usable_key(vector["jwk"]), ISSUER, NOW)
    assert CLAIMS == good.claims


@pytest.mark.parametrize("name", SIGNED)
def test_signature_of_the_example_fits_nothing_else(name: str) -> None:
    vector = SIGNED[name]
    token = with_claims(vector["jws"])
    for changed in (
        replace(token, signing_input=token.signing_input + b"A"),
        replace(token, signature=token.signature[:-1] + bytes([token.signature[-1] ^ 1])),
    ):
        with pytest.raises(TokenError, match="bad_signature"):
            verify(changed, usable_key(vector["jwk"]), ISSUER, NOW)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc would like RFC 9864's name
@pytest.mark.parametrize("name", SIGNED)
def test_another_implementation_agrees_about_the_signature(name: str) -> None:
    vector = SIGNED[name]
    registry = jws.JWSRegistry(algorithms=list(POSSIBLE_ALGORITHMS))

    found = jws.deserialize_compact(vector["jws"], import_key(vector["jwk"]), registry=registry)
    assert decode_base64url(vector["jws"].split(".")[1].encode()) == found.payload


@pytest.mark.parametrize("name", VECTORS)
def test_verdict_on_the_example_is_the_one_expected(name: str) -> None:
    vector = VECTORS[name]
    # Where the example's own key is none for us, an attacker would hope for any other one.
    own = vector["expected"]["key"] == "usable"
    key = usable_key(vector["jwk"] if own else VECTORS["rfc7515-a.2"]["jwk"])
    with pytest.raises(TokenError) as refused:
        verify(parse_token(vector["jws"], 8192, 128), key, ISSUER, NOW)

    assert vector["expected"]["token"] == refused.value.reason
