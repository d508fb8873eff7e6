"""Which keys of a document are used, and which are skipped, why, and without harm to the others."""

import json
from contextlib import suppress

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.jwks import parse_jwks
from keycache.core.keys import KeySet, SigningKey
from keycache.errors import FetchCode, JWKSError
from keycache.issuer import POSSIBLE_ALGORITHMS
from tests.keycache.core.edwards import ED448, ED25519, Curve
from tests.keycache.core.forge import ABSENT, b64, b64_number, jwk, key, key_set

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def skip_reason(bad: object) -> str:
    """Why this key is skipped; a good one beside it must not be."""
    keys = key_set(bad, jwk("ES256", kid="good"))
    assert ["good"] == [key.kid for key in keys.keys]
    (skipped,) = keys.skipped
    return skipped.reason


def refusal(document: bytes, max_keys: int = 100) -> FetchCode:
    with pytest.raises(JWKSError) as refused:
        parse_jwks(document, max_keys)
    return refused.value.code


def rsa(modulus: int, exponent: int = 65537) -> dict[str, object]:
    return {"kty": "RSA", "kid": "rsa", "n": b64_number(modulus), "e": b64_number(exponent)}


# Documents


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"keys"',
        b'{"keys": null}',
        b'{"keys": {}}',
        b'{"keys": "none"}',
        b'{"Keys": []}',
        b"<html><body>503 Service Unavailable</body></html>",
        b'{"keys": [',
        b"\xff\xfe",
        '{"keys": []}'.encode("utf-16"),
        '{"keys": []}'.encode("utf-8-sig"),
        b'{"keys":' * 100_000,
        b'{"keys": [' + b"[" * 100_000,
        b'{"keys": [{"n": ' + b"9" * 5000 + b"}]}",
        json.dumps(jwk("ES256")).encode(),  # a key, and no set
    ],
)
def test_what_is_no_jwks_is_refused(document: bytes) -> None:
    assert FetchCode.NOT_JSON == refusal(document)


def test_error_page_that_is_json_is_refused() -> None:
    assert FetchCode.NOT_JSON == refusal(b'{"error": "temporarily_unavailable"}')


def test_empty_set_is_no_key_set() -> None:
    assert FetchCode.NO_USABLE_KEY == refusal(b'{"keys": []}')


def test_set_without_a_usable_key_is_refused_with_every_reason() -> None:
    document = {"keys": [1, jwk("RS256", use="enc"), jwk("ES256", crv="P-192")]}
    with pytest.raises(JWKSError, match=r"key: not_an_object, unknown_curve, wrong_use$"):
        parse_jwks(json.dumps(document).encode(), 100)


def test_number_of_keys_is_bounded_on_both_sides() -> None:
    document = json.dumps({"keys": [1, 2, jwk("ES256")]}).encode()

    assert 1 == len(parse_jwks(document, 3).keys)
    assert FetchCode.TOO_MANY_KEYS == refusal(document, 2)


def test_members_beside_the_keys_mean_nothing() -> None:
    document = {"keys": [jwk("ES256")], "alg": "none", "é": [None]}

    assert 1 == len(parse_jwks(json.dumps(document).encode(), 100).keys)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ("kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e", "d", "k")
WORDS = ("RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "Ed448", "RS256", "sig", "verify", "AQAB")
JWKS = st.dictionaries(st.sampled_from(MEMBERS), st.sampled_from(WORDS) | JSON)


@given(JSON | st.builds(lambda keys: {"keys": keys}, JSON | st.lists(JWKS | JSON)))
def test_any_json_is_a_key_set_or_a_jwks_error(document: object) -> None:
    with suppress(JWKSError):
        assert isinstance(parse_jwks(json.dumps(document).encode(), 100), KeySet)


@given(st.binary())
def test_any_octets_are_a_key_set_or_a_jwks_error(document: bytes) -> None:
    with pytest.raises(JWKSError):
        parse_jwks(document, 100)


@given(
    st.sampled_from(["RS256", "ES256", "ES384", "ES512", "EdDSA", "Ed448"]),
    st.sampled_from(MEMBERS),
    st.sampled_from(WORDS) | JSON | st.binary().map(b64),
)
def test_changed_key_harms_no_other(alg: str, member: str, value: object) -> None:
    keys = key_set(jwk("ES256", kid="good"), jwk(alg, **{member: value, "kid": "changed"}))

    assert isinstance(keys.select("good", "ES256"), SigningKey)


# Usable keys


@pytest.mark.parametrize("alg", POSSIBLE_ALGORITHMS)
def test_key_is_bound_to_the_algorithm_it_names(alg: str) -> None:
    assert (alg,) == key(alg).algorithms


@pytest.mark.parametrize(
    ("alg", "possible", "size"),
    [
        ("RS256", RSA_ALGORITHMS, 2048),
        ("ES256", ("ES256",), 256),
        ("ES384", ("ES384",), 384),
        ("ES512", ("ES512",), 521),
        ("EdDSA", ("EdDSA", "Ed25519"), 255),
        ("Ed448", ("EdDSA",), 456),
    ],
)
def test_key_without_an_algorithm_serves_all_of_its_kind(
    alg: str, possible: tuple[str, ...], size: int
) -> None:
    usable = key(alg, alg=ABSENT)

    assert (possible, size) == (usable.algorithms, usable.size)


@pytest.mark.parametrize(
    "changes",
    [
        {"use": ABSENT},
        {"key_ops": ["verify"], "use": ABSENT},
        {"key_ops": ["sign", "verify"]},
        {"kid": ABSENT},
        {"alg": None},
        {"x5c": ["not read"], "x5t": 1, "é": {}},
    ],
)
def test_what_a_key_may_leave_out_or_add(changes: dict[str, object]) -> None:
    assert 1 == len(key_set(jwk("ES256", **changes)).keys)


def test_thumbprint_is_that_of_rfc_7638() -> None:
    # RFC 8037 appendix A.3
    ed25519_key = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
    (usable,) = key_set(ed25519_key).keys

    assert "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" == b64(bytes.fromhex(usable.thumbprint))


def test_thumbprint_does_not_depend_on_what_else_a_key_says() -> None:
    assert key("RS256").thumbprint == key("RS256", kid="other", alg=ABSENT, use=ABSENT).thumbprint


# Skipped keys


@pytest.mark.parametrize("bad", [None, 1, "key", [], True, [{}]])
def test_what_is_no_object_is_no_key(bad: object) -> None:
    assert "not_an_object" == skip_reason(bad)


@pytest.mark.parametrize("kid", ["", "\n", "a\x00", "é", "\ud800", 1, True, [], {}, ["a"]])
def test_kid_that_no_token_could_name_is_skipped(kid: object) -> None:
    assert "bad_kid" == skip_reason(jwk("RS256", kid=kid))


@pytest.mark.parametrize(
    "kty", [ABSENT, None, 1, [], {}, "", "rsa", "AKP", "oct", "none", "\ud800"]
)
def test_unknown_kty_is_skipped(kty: object) -> None:
    assert "unknown_kty" == skip_reason(jwk("RS256", kty=kty))


def test_shared_secret_is_skipped() -> None:
    assert "unknown_kty" == skip_reason({"kty": "oct", "kid": "a", "alg": "HS256", "k": "AAAA"})


def test_key_of_a_future_algorithm_is_skipped() -> None:
    assert "unknown_kty" == skip_reason(
        {"kty": "AKP", "kid": "a", "alg": "ML-DSA-44", "pub": b64(bytes(1312))}
    )


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("value", ["AQAB", None])
def test_published_private_key_is_skipped(alg: str, member: str, value: object) -> None:
    assert "private_key" == skip_reason(jwk(alg, **{member: value}))


@pytest.mark.parametrize("use", ["enc", "", "SIG", "sig ", None, 1, [], ["sig"], {}])
def test_key_for_another_use_is_skipped(use: object) -> None:
    assert "wrong_use" == skip_reason(jwk("RS256", use=use))


@pytest.mark.parametrize(
    "key_ops", [None, [], "verify", ["sign"], ["encrypt"], ["Verify"], {}, {"verify": 1}, [[]], 1]
)
def test_key_for_other_operations_is_skipped(key_ops: object) -> None:
    assert "wrong_key_ops" == skip_reason(jwk("RS256", key_ops=key_ops))


@pytest.mark.parametrize(
    "alg",
    [
        *("none", "None", "NONE", "HS256", "HS512", "RSA-OAEP", "dir", "A128GCM"),
        *("rs256", "RS256 ", "", "ES521", "ES256K", 1, True, [], ["RS256"], {}, {"RS256": 1}),
    ],
)
def test_algorithm_that_is_not_possible_here_is_skipped(alg: object) -> None:
    assert "unknown_alg" == skip_reason(jwk("RS256", alg=alg))


@pytest.mark.parametrize(
    ("kind", "alg"),
    [
        *(("RS256", alg) for alg in POSSIBLE_ALGORITHMS if alg not in RSA_ALGORITHMS),
        *(("ES256", alg) for alg in POSSIBLE_ALGORITHMS if alg != "ES256"),
        *(("ES512", alg) for alg in POSSIBLE_ALGORITHMS if alg != "ES512"),
        *(("EdDSA", alg) for alg in POSSIBLE_ALGORITHMS if alg not in ("EdDSA", "Ed25519")),
        *(("Ed448", alg) for alg in POSSIBLE_ALGORITHMS if alg != "EdDSA"),
    ],
)
def test_algorithm_of_another_kind_of_key_is_skipped(kind: str, alg: str) -> None:
    assert "alg_mismatch" == skip_reason(jwk(kind, alg=alg))


@pytest.mark.parametrize(
    ("alg", "member"),
    [("RS256", "n"), ("RS256", "e"), ("ES256", "x"), ("ES256", "y"), ("EdDSA", "x")],
)
@pytest.mark.parametrize("value", [ABSENT, None, "", 1, [], {}])
def test_key_with_a_member_missing_is_skipped(alg: str, member: str, value: object) -> None:
    assert "missing_member" == skip_reason(jwk(alg, **{member: value}))


@pytest.mark.parametrize(
    ("alg", "member"),
    [("RS256", "n"), ("RS256", "e"), ("ES256", "x"), ("ES256", "y"), ("EdDSA", "x")],
)
@pytest.mark.parametrize("change", ["{}=", "{} ", "{}\n", "+{}", "é{}", "\ud800{}"])
def test_member_that_is_no_base64url_is_skipped(alg: str, member: str, change: str) -> None:
    assert "bad_key" == skip_reason(jwk(alg, **{member: change.format(jwk(alg)[member])}))


# RSA


@pytest.mark.parametrize("bits", [1, 512, 1024, 2047])
def test_modulus_below_2048_bits_is_weak(bits: int) -> None:
    assert "weak_key" == skip_reason(rsa(2**bits - 1))


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096, 8192])
def test_modulus_of_2048_to_8192_bits_is_usable(bits: int) -> None:
    assert [bits] == [key.size for key in key_set(rsa(2**bits - 1)).keys]


@pytest.mark.parametrize("bits", [8193, 16384, 1_000_000])
def test_modulus_above_8192_bits_is_too_large(bits: int) -> None:
    assert "key_too_large" == skip_reason(rsa(2**bits - 1))


def test_even_modulus_is_no_modulus() -> None:
    assert "bad_key" == skip_reason(rsa(2**2048 - 2))


@pytest.mark.parametrize("exponent", [65537, 65539, 2**32 - 1])
def test_exponent_of_65537_to_32_bits_is_usable(exponent: int) -> None:
    assert 1 == len(key_set(rsa(2**2048 - 1, exponent)).keys)


@pytest.mark.parametrize("exponent", [1, 3, 17, 65535, 2**32 + 1, 2**64 + 1])
def test_exponent_beyond_those_is_skipped(exponent: int) -> None:
    assert "bad_exponent" == skip_reason(rsa(2**2048 - 1, exponent))


@pytest.mark.parametrize("exponent", [0, 2, 65536])
def test_even_exponent_is_skipped(exponent: int) -> None:
    assert "bad_key" == skip_reason(rsa(2**2048 - 1, exponent))


def test_exponent_as_large_as_a_modulus_is_skipped() -> None:
    assert "key_too_large" == skip_reason(rsa(2**2048 - 1, 2**2047 - 1))


# Elliptic curves


@pytest.mark.parametrize(
    "crv", [ABSENT, None, 1, [], "", "P-192", "p-256", "secp256k1", "Ed25519", "\ud800"]
)
def test_unknown_curve_is_skipped(crv: object) -> None:
    assert "unknown_curve" == skip_reason(jwk("ES256", crv=crv))


@pytest.mark.parametrize("crv", [ABSENT, None, 1, [], "", "X25519", "ed25519", "P-256"])
def test_unknown_edwards_curve_is_skipped(crv: object) -> None:
    assert "unknown_curve" == skip_reason(jwk("EdDSA", crv=crv))


@pytest.mark.parametrize(("alg", "size"), [("ES256", 32), ("ES384", 48), ("ES512", 66)])
def test_point_off_the_curve_is_skipped(alg: str, size: int) -> None:
    off = b64((5).to_bytes(size, "big"))

    assert "bad_key" == skip_reason(jwk(alg, x=off, y=off))


@pytest.mark.parametrize("octet", [0, 255])
def test_coordinates_that_are_no_point_are_skipped(octet: int) -> None:
    coordinate = b64(bytes([octet]) * 32)

    assert "bad_key" == skip_reason(jwk("ES256", x=coordinate, y=coordinate))


@pytest.mark.parametrize("member", ["x", "y"])
@pytest.mark.parametrize("size", [1, 31, 33])
def test_coordinate_of_another_length_is_skipped(member: str, size: int) -> None:
    assert "bad_key" == skip_reason(jwk("ES256", **{member: b64(bytes([1]) * size)}))


def test_point_of_another_curve_is_skipped() -> None:
    assert "bad_key" == skip_reason(jwk("ES384", crv="P-256", alg="ES256", x="AQ", y="AQ"))


@pytest.mark.parametrize("size", [1, 31, 33])
def test_edwards_key_of_another_length_is_skipped(size: int) -> None:
    assert "bad_key" == skip_reason(jwk("EdDSA", x=b64(bytes([1]) * size)))


def test_key_far_too_long_is_not_decoded() -> None:
    assert "key_too_large" == skip_reason(jwk("EdDSA", x="A" * 100_000))


# Points of small order: whoever knows the curve can sign for such a key


@pytest.mark.parametrize(
    ("curve", "points"), [(ED25519, 8), (ED448, 4)], ids=["edwards25519", "edwards448"]
)
def test_small_order_points_are_as_many_as_the_cofactor(curve: Curve, points: int) -> None:
    found = curve.small_order_points()

    assert points == len(found)
    assert {(0, 1)} == {curve.times(curve.cofactor, point) for point in found}


@pytest.mark.parametrize(
    ("crv", "curve"), [("Ed25519", ED25519), ("Ed448", ED448)], ids=["Ed25519", "Ed448"]
)
def test_every_spelling_of_a_small_order_point_is_weak(crv: str, curve: Curve) -> None:
    encodings = {
        encoding for point in curve.small_order_points() for encoding in curve.encodings(point)
    }
    reasons = {
        skip_reason({"kty": "OKP", "crv": crv, "kid": "low", "x": b64(encoding)})
        for encoding in encodings
    }

    assert {"weak_key"} == reasons


def test_identity_of_ed25519_verifies_what_nobody_signed() -> None:
    identity = (1).to_bytes(32, "little")

    # Returns without InvalidSignature: this is why the key is refused.
    ed25519.Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"anything")


def test_point_of_order_4_of_ed448_verifies_what_nobody_signed() -> None:
    weak = ed448.Ed448PublicKey.from_public_bytes(bytes(57))  # y is 0

    def verifies(point: bytes) -> bool:
        try:
            weak.verify(point + bytes(57), b"anything")
        except InvalidSignature:
            return False
        return True

    points = {code for point in ED448.small_order_points() for code in ED448.encodings(point)}
    assert any(verifies(point) for point in points)


def test_neighbours_of_small_order_points_are_no_weak_keys() -> None:
    weak = {point[1] for point in ED25519.small_order_points()}

    for y in {(y + 2) % ED25519.p for y in weak} - weak:
        octets = y.to_bytes(32, "little")
        assert 1 == len(key_set({"kty": "OKP", "crv": "Ed25519", "x": b64(octets)}).keys)


# One kid, several keys


def test_two_keys_of_one_kid_and_algorithm_are_both_dropped() -> None:
    keys = key_set(jwk("ES256", 0), jwk("ES256", 1), jwk("RS256", kid="good"))

    assert ["good"] == [key.kid for key in keys.keys]
    assert ["duplicate_kid"] * 2 == [skipped.reason for skipped in keys.skipped]


def test_one_kid_may_stand_for_keys_of_different_algorithms() -> None:
    keys = key_set(jwk("ES256", kid="a"), jwk("RS256", kid="a"))

    assert [("ES256",), ("RS256",)] == [key.algorithms for key in keys.keys]


def test_key_without_an_algorithm_collides_with_one_that_names_it() -> None:
    keys = key_set(
        jwk("RS256", 0, kid="a"), jwk("RS256", 1, kid="a", alg=ABSENT), jwk("ES256", kid="good")
    )

    assert ["good"] == [key.kid for key in keys.keys]


def test_exact_copy_is_one_key() -> None:
    keys = key_set(jwk("ES256"), jwk("ES256", x5t="a"))

    assert (1, 0) == (len(keys.keys), len(keys.skipped))


def test_three_of_a_kind_are_all_dropped() -> None:
    with pytest.raises(JWKSError, match="duplicate_kid"):
        key_set(jwk("ES256", 0), jwk("ES256", 1), jwk("ES256", 0, use=ABSENT))


def test_keys_without_a_kid_are_no_duplicates() -> None:
    assert 2 == len(key_set(jwk("ES256", 0, kid=ABSENT), jwk("ES256", 1, kid=ABSENT)).keys)


# What is told of a skipped key


def test_skipped_key_is_told_by_its_kid() -> None:
    keys = key_set(jwk("RS256", use="enc"), jwk("ES256"))

    assert [("RS256", "wrong_use")] == [(key.kid, key.reason) for key in keys.skipped]


@pytest.mark.parametrize("kid", [1, "\x1b[2J", "a\nb", "é", ABSENT])
def test_kid_that_could_harm_a_screen_is_not_told(kid: object) -> None:
    keys = key_set(jwk("RS256", kid=kid, use="enc"), jwk("ES256"))

    assert [None] == [key.kid for key in keys.skipped]


def test_kid_that_is_told_is_bounded() -> None:
    keys = key_set(jwk("RS256", kid="k" * 10_000, use="enc"), jwk("ES256"))

    assert ["k" * 128] == [key.kid for key in keys.skipped]
