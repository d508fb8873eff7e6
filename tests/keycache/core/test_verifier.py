"""Who is let in: every algorithm, and every way to seem to have signed."""

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.claims import Claims
from keycache.core.verifier import der_signature, verify
from keycache.errors import Reason, TokenError
from keycache.issuer import POSSIBLE_ALGORITHMS
from tests.keycache.core.forge import (
    ABSENT,
    NOW,
    b64,
    b64_json,
    claims,
    issuer,
    jwk,
    key,
    parsed,
    present,
    private_key,
    sign,
    token,
    verdict,
)

ALGORITHMS = (*POSSIBLE_ALGORITHMS, "Ed448")
ECDSA = ("ES256", "ES384", "ES512")
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signing_input(alg: str, kid: str = "") -> str:
    return f"{b64_json({'alg': alg, 'kid': kid or alg})}.{b64_json(claims())}"


def signed(alg: str, signature: bytes) -> str:
    """A good token of this algorithm, but with this signature."""
    return f"{signing_input(alg)}.{b64(signature)}"


def ecdsa(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_good_token_is_accepted(alg: str) -> None:
    assert "accepted" == verdict(token(alg), jwk(alg))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_good_token_is_accepted_with_a_key_that_names_no_algorithm(alg: str) -> None:
    assert "accepted" == verdict(token(alg), jwk(alg, alg=ABSENT))


def test_verdict_holds_the_claims_and_when_they_hold() -> None:
    good = verify(parsed(token()), key("ES256"), issuer(leeway=5), NOW)

    assert Claims(claims()) == good.claims
    assert NOW + 305 == good.validity.ends


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_other_key_of_the_same_kind_is_refused(alg: str) -> None:
    assert Reason.BAD_SIGNATURE == verdict(token(alg), jwk(alg, 1))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_changed_payload_is_refused(alg: str) -> None:
    header, _, signature = token(alg).split(".")
    admin = b64_json(claims(sub="admin"))

    assert Reason.BAD_SIGNATURE == verdict(f"{header}.{admin}.{signature}", jwk(alg))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_changed_header_is_refused(alg: str) -> None:
    header, payload, signature = token(alg).split(".")
    members = json.loads(base64.urlsafe_b64decode(header + "=="))
    other = b64_json({**members, "typ": "at+jwt"})

    assert Reason.BAD_SIGNATURE == verdict(f"{other}.{payload}.{signature}", jwk(alg))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_octet_of_a_signature_counts(alg: str) -> None:
    name = "EdDSA" if alg == "Ed448" else alg
    good = sign(alg, signing_input(name, alg).encode())
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        text = f"{signing_input(name, alg)}.{b64(bytes(bad))}"
        assert Reason.BAD_SIGNATURE == verdict(text, jwk(alg))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_signature_of_another_length_or_of_nothing_is_refused(alg: str) -> None:
    text = signing_input("EdDSA" if alg == "Ed448" else alg, alg)
    good = sign(alg, text.encode())
    bad = {
        "empty": b"",
        "shorter": good[:-1],
        "headless": good[1:],
        "longer": good + b"\x00",
        "shifted": b"\x00" + good,
        "twice": good + good,
        "zeros": bytes(len(good)),
        "ones": b"\xff" * len(good),
        "huge": b"\xff" * 5000,
    }
    verdicts = {name: verdict(f"{text}.{b64(octets)}", jwk(alg)) for name, octets in bad.items()}

    assert dict.fromkeys(bad, Reason.BAD_SIGNATURE) == verdicts


# Unsigned, or signed with what everybody knows


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "none ", "", "null", "HS256", "x"])
@pytest.mark.parametrize("key_alg", ["RS256", "ES256", "EdDSA"])
def test_unsigned_token_is_refused_in_any_spelling(alg: str, key_alg: str) -> None:
    header = b64_json({"alg": alg, "kid": key_alg})
    text = f"{header}.{b64_json(claims())}."

    assert "mismatch" == verdict(text, jwk(key_alg))


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256", "PS256", "RS512", "EdDSA"])
def test_verifier_itself_refuses_an_algorithm_that_is_not_the_keys(alg: str) -> None:
    header = b64_json({"alg": alg, "kid": "RS256"})
    text = f"{header}.{b64_json(claims())}."
    with pytest.raises(TokenError) as refused:
        verify(parsed(text), key("RS256"), issuer(), NOW)

    assert Reason.UNSUPPORTED_ALGORITHM == refused.value.reason


def public_forms(alg: str) -> list[bytes]:
    """The public key in every shape in which it may lie about."""
    public = private_key(alg).public_key()
    pem, der, ssh = (
        serialization.Encoding.PEM,
        serialization.Encoding.DER,
        serialization.Encoding.OpenSSH,
    )
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    forms = [
        public.public_bytes(pem, subject),
        public.public_bytes(der, subject),
        public.public_bytes(ssh, serialization.PublicFormat.OpenSSH),
        json.dumps(jwk(alg)).encode(),
        json.dumps({"keys": [jwk(alg)]}).encode(),
        b"",
    ]
    if isinstance(public, rsa.RSAPublicKey):
        forms += [public.public_bytes(pem, serialization.PublicFormat.PKCS1)]
    return [*forms, *(form.strip() for form in forms), *(b" " + form for form in forms)]


@pytest.mark.parametrize("hash_name", ["256", "384", "512"])
@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("bound", [True, False])
def test_public_key_is_no_shared_secret(alg: str, hash_name: str, *, bound: bool) -> None:
    text = signing_input(f"HS{hash_name}", alg)
    public = jwk(alg) if bound else jwk(alg, alg=ABSENT)
    for secret in public_forms(alg):
        mac = hmac.new(secret, text.encode(), f"sha{hash_name}").digest()
        assert "mismatch" == verdict(f"{text}.{b64(mac)}", public)


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_token_does_not_bring_its_own_key(member: str) -> None:
    brought: dict[str, object] = {
        "jwk": jwk("ES256", 1),
        "jku": "https://attacker.example/jwks.json",
        "x5u": "file:///etc/passwd",
        "x5c": ["MIIB"],
    }
    header = b64_json({"alg": "ES256", "kid": "ES256", member: brought[member]})
    text = f"{header}.{b64_json(claims())}"
    forged = f"{text}.{b64(sign('ES256', text.encode(), 1))}"

    assert Reason.BAD_SIGNATURE == verdict(forged, jwk("ES256"))


# Algorithm and key


@pytest.mark.parametrize("alg", POSSIBLE_ALGORITHMS)
def test_algorithm_that_the_issuer_does_not_use_is_refused(alg: str) -> None:
    others = tuple(other for other in POSSIBLE_ALGORITHMS if other != alg)

    assert Reason.UNSUPPORTED_ALGORITHM == verdict(
        token(alg), jwk(alg), policy=issuer(algorithms=others)
    )


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_key_bound_to_rs256_serves_no_other_algorithm(alg: str) -> None:
    text = token(alg, {"kid": "RS256"})

    assert "mismatch" == verdict(text, jwk("RS256"))


@pytest.mark.parametrize("alg", ECDSA)
@pytest.mark.parametrize("other", ECDSA)
def test_curve_and_algorithm_belong_together(alg: str, other: str) -> None:
    expected = "accepted" if alg == other else "mismatch"

    assert expected == verdict(token(alg, {"kid": other}), jwk(other, alg=ABSENT))


def test_pkcs1_signature_is_no_pss_signature() -> None:
    text = signing_input("PS256")
    forged = f"{text}.{b64(sign('RS256', text.encode()))}"

    assert Reason.BAD_SIGNATURE == verdict(forged, jwk("PS256"))


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 64])
def test_salt_of_pss_is_as_long_as_the_hash(salt: int) -> None:
    private = private_key("PS256")
    assert isinstance(private, rsa.RSAPrivateKey)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    signature = private.sign(signing_input("PS256").encode(), scheme, hashes.SHA256())

    assert Reason.BAD_SIGNATURE == verdict(signed("PS256", signature), jwk("PS256"))


def test_raw_rsa_of_the_hash_is_no_signature() -> None:
    digest = hashlib.sha256(signing_input("RS256").encode()).digest()

    assert Reason.BAD_SIGNATURE == verdict(
        signed("RS256", digest.rjust(256, b"\x00")), jwk("RS256")
    )


# ECDSA


@pytest.mark.parametrize("r", [0, 1, ORDER_P256 - 1, ORDER_P256, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER_P256 - 1, ORDER_P256, 2**256 - 1])
def test_numbers_at_the_edges_are_no_signature(r: int, s: int) -> None:
    # CVE-2022-21449: zeros verified everything.
    assert Reason.BAD_SIGNATURE == verdict(signed("ES256", ecdsa(r, s)), jwk("ES256"))


@pytest.mark.parametrize("alg", ECDSA)
def test_der_is_no_raw_signature(alg: str) -> None:
    good = sign(alg, signing_input(alg).encode())
    half = len(good) // 2
    der = encode_dss_signature(
        int.from_bytes(good[:half], "big"), int.from_bytes(good[half:], "big")
    )

    assert Reason.BAD_SIGNATURE == verdict(signed(alg, der), jwk(alg))


def test_ecdsa_signature_has_a_twin_so_a_token_is_known_by_its_whole_text() -> None:
    good = sign("ES256", signing_input("ES256").encode())
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    twin = signed("ES256", ecdsa(r, ORDER_P256 - s))

    assert "accepted" == verdict(twin, jwk("ES256"))


@pytest.mark.parametrize("size", [32, 48, 66])
def test_der_of_boundary_numbers_is_that_of_cryptography(size: int) -> None:
    bits = range(8 * size + 1)
    numbers = {0, *(2**bit + more for bit in bits for more in (-1, 0, 1))}
    octets = [n.to_bytes(size, "big") for n in numbers if 0 <= n < 2 ** (8 * size)]
    last = octets[-1]
    for one in octets:
        for r, s in ((one, one), (one, last), (last, one)):
            expected = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            assert expected == der_signature(r, s)


@given(st.binary(min_size=66, max_size=66), st.binary(min_size=66, max_size=66))
def test_der_of_any_two_numbers_is_that_of_cryptography(r: bytes, s: bytes) -> None:
    expected = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))

    assert expected == der_signature(r, s)


# EdDSA


@pytest.mark.parametrize(
    ("alg", "order", "size"),
    [
        ("EdDSA", 2**252 + 27742317777372353535851937790883648493, 32),
        (
            "Ed448",
            2**446 - 0x8335DC163BB124B65129C96FDE933D8D723A70AADC873D6D54A7BB0D,
            57,
        ),
    ],
)
def test_signature_with_the_order_added_to_s_is_refused(alg: str, order: int, size: int) -> None:
    # RFC 8032 sections 5.1.7 and 5.2.7: S must be below the order.
    text = signing_input("EdDSA", alg)
    good = sign(alg, text.encode())
    s = int.from_bytes(good[size:], "little") + order
    twin = good[:size] + s.to_bytes(size, "little")

    assert Reason.BAD_SIGNATURE == verdict(f"{text}.{b64(twin)}", jwk(alg))


@pytest.mark.parametrize(("alg", "other"), [("EdDSA", "Ed448"), ("Ed448", "EdDSA")])
def test_signature_of_one_edwards_curve_is_none_of_the_other(alg: str, other: str) -> None:
    text = signing_input("EdDSA", alg)

    assert Reason.BAD_SIGNATURE == verdict(f"{text}.{b64(sign(other, text.encode()))}", jwk(alg))


@pytest.mark.parametrize(
    ("named", "sent", "expected"),
    [
        ("EdDSA", "EdDSA", "accepted"),
        ("Ed25519", "Ed25519", "accepted"),
        ("EdDSA", "Ed25519", "mismatch"),
        ("Ed25519", "EdDSA", "mismatch"),
        (ABSENT, "EdDSA", "accepted"),
        (ABSENT, "Ed25519", "accepted"),
    ],
)
def test_token_has_the_name_of_the_algorithm_that_its_key_has(
    named: object, sent: str, expected: str
) -> None:
    # RFC 9864 section 2.2
    text = token("Ed25519", {"alg": sent})

    assert expected == verdict(text, jwk("Ed25519", alg=named))


# The order of the checks


@pytest.mark.parametrize(
    "bad",
    [{"exp": NOW - 1}, {"aud": "other"}, {"nbf": NOW + 1}, {"exp": "soon"}, {"exp": ABSENT}],
)
def test_who_cannot_sign_learns_nothing_about_the_claims(bad: dict[str, object]) -> None:
    text = token(payload=claims(**bad))

    assert Reason.BAD_SIGNATURE == verdict(text, jwk("ES256", 1))
    assert verdict(text, jwk("ES256")) not in ("accepted", Reason.BAD_SIGNATURE)


# Mutations


@given(st.data())
def test_mutated_token_is_refused_unless_it_is_the_same(data: st.DataObject) -> None:
    alg = data.draw(st.sampled_from(["RS256", "ES256", "EdDSA", "Ed448"]))
    text = token(alg)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    put = data.draw(
        st.text("ABCDwxyz0189-_.=", max_size=3) | st.text(max_size=2) | st.just(text[:start])
    )
    mutated = text[:start] + put + text[end:]

    assert (mutated == text) == (verdict(mutated, jwk(alg)) == "accepted")


@given(st.sampled_from(["RS256", "ES256", "EdDSA"]), st.data())
def test_segments_of_two_good_tokens_make_no_third(alg: str, data: st.DataObject) -> None:
    tokens = [token(alg, payload=claims(sub=name)).split(".") for name in ("alice", "bob")]
    choice = data.draw(st.tuples(*[st.integers(0, 1)] * 3))
    text = ".".join(tokens[which][position] for position, which in enumerate(choice))

    # The headers are the same; payload and signature must come from one token.
    assert (choice[1] == choice[2]) == (verdict(text, jwk(alg)) == "accepted")


CLAIM_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "x"]),
        CLAIM_VALUES | st.just(ABSENT),
    )
)
def test_signed_claims_are_accepted_or_a_token_error(changes: dict[str, object]) -> None:
    payload = json.dumps(present({**claims(), **changes})).encode()

    assert verdict(token("EdDSA", payload=payload), jwk("EdDSA")) in ("accepted", *Reason)
