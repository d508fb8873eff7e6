"""Who a token speaks for, as header fields."""

import json
from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings.headers import IDENTITY_HEADERS, Identity, IdentityHeader
from app.web.identity import header_safe, identity
from keycache.predicates import claim_path
from tests.keycache.core.forge import frozen

CLAIMS = frozen(
    {
        "iss": "https://id.example.com/",
        "sub": "José",
        "realm_access": {"roles": ["admin", "a b"], "level": 7},
        "email_verified": True,
        "https://example.com/plan": "pro",
    }
)

ENCODED = [
    ("auth0|12-3_x", "auth0|12-3_x"),
    ("https://id.example.com/", "https://id.example.com/"),
    ("José", "Jos%C3%A9"),
    ("100%", "100%25"),
    ("a\r\nX-Admin: 1", "a%0D%0AX-Admin:%201"),
    (" padded ", "%20padded%20"),
    ("", ""),
    (None, ""),
    (7, "7"),
    (True, "true"),
    (["a", "b c", "\n"], "a b%20c %0A"),
    (("a", 1), '["a",1]'),
    ({"a b": "é"}, '{"a%20b":"%C3%A9"}'),
]


@pytest.mark.parametrize(("value", "expected"), ENCODED)
def test_claim_is_made_safe_for_a_header(value: object, expected: str) -> None:
    assert expected == header_safe(value)


@given(st.text())
def test_any_text_becomes_visible_ascii(text: str) -> None:
    assert all("!" <= char <= "~" for char in header_safe(text))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=3))
def test_two_texts_never_look_alike(one: str, other: str) -> None:
    assert (header_safe(one) == header_safe(other)) == (one == other)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def values() -> st.SearchStrategy[object]:
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.none() | st.booleans() | numbers | TEXTS
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    )


PAYLOAD = IdentityHeader("X-Payload", Identity.PAYLOAD)


@given(values())
def test_any_claim_becomes_one_line_of_printable_ascii(value: object) -> None:
    headers = [IdentityHeader("X-Claim", ("claim",)), PAYLOAD]
    made = identity(headers)(frozen({"claim": value}), [])
    assert all(text.isascii() and (text == "" or text.isprintable()) for text in made.values())


@given(st.dictionaries(TEXTS, values(), min_size=1, max_size=3))
def test_payload_is_all_the_claims(claims: dict[str, object]) -> None:
    text = identity([PAYLOAD])(frozen(claims), [])["X-Payload"]
    assert claims == json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_every_header_is_set_even_when_the_token_says_nothing() -> None:
    expected = {"X-Auth-Subject": "", "X-Auth-Issuer": "https://i", "X-Auth-Scope": ""}
    assert expected == identity(IDENTITY_HEADERS)({"iss": "https://i"}, [])


def test_nobody_has_every_header_and_nothing_in_them() -> None:
    expected = {"X-Auth-Subject": "", "X-Auth-Issuer": "", "X-Auth-Scope": "", "X-Payload": ""}
    assert expected == identity([*IDENTITY_HEADERS, PAYLOAD])({}, [])


def test_scopes_are_separated_by_spaces_and_sorted() -> None:
    said = identity(IDENTITY_HEADERS)(CLAIMS, {"write", "é", "read"})
    assert "%C3%A9 read write" == said["X-Auth-Scope"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub", "Jos%C3%A9"),
        ("realm_access.roles", "admin a%20b"),
        ("realm_access.level", "7"),
        ("email_verified", "true"),
        ("/https:~1~1example.com~1plan", "pro"),
        ("realm_access.roles.0", ""),
        ("/subject", ""),
    ],
)
def test_header_tells_the_claim_at_its_path(path: str, expected: str) -> None:
    assert {"X-Who": expected} == identity([IdentityHeader("X-Who", claim_path(path))])(CLAIMS, [])
