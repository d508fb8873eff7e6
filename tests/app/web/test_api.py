"""Who a token speaks for, as header fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.api import header_safe, identity

ENCODED = [
    ("auth0|12-3_x", "auth0|12-3_x"),
    ("https://id.example.com/", "https://id.example.com/"),
    ("José", "Jos%C3%A9"),
    ("100%", "100%25"),
    ("a\r\nX-Admin: 1", "a%0D%0AX-Admin:%201"),
    (" padded ", "%20padded%20"),
    ("", ""),
    (None, ""),
    (7, ""),
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


def test_every_header_is_set_even_when_the_token_says_nothing() -> None:
    expected = {"X-Auth-Subject": "", "X-Auth-Issuer": "https://i", "X-Auth-Scope": ""}
    assert expected == identity({"iss": "https://i"})


def test_scopes_are_separated_by_spaces_and_sorted() -> None:
    assert identity({"scope": "write read", "scp": ["é"]})["X-Auth-Scope"] == "%C3%A9 read write"
