"""Revocations: whom they are about, how lists merge, and that only their own seal opens them."""

from collections.abc import Iterable
from itertools import chain, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.record import Record
from keycache.core.record import seal as seal_record
from keycache.core.record import unseal as unseal_record
from keycache.core.revocation import (
    Kind,
    Revocation,
    Tokens,
    digest_of,
    index_of,
    is_revoked,
    merged,
    seal,
    unseal,
)
from keycache.errors import RecordError
from keycache.issuer import KeySource

KEY, PREVIOUS = bytes(32), b"\x01" * 32
NONCE = bytes(range(12))
SOURCE = KeySource("https://issuer.example", None)
OTHER = KeySource("https://other.example", None)
VERSION = 1_800_000_000_000


def by_jti(jti: str, *, revoked_at: float = 1.0, until: float = 100.0) -> Revocation:
    return Revocation(Kind.JTI, digest_of(Kind.JTI, jti), None, revoked_at, until)


def by_sub(
    sub: str, before: float = 50.0, *, revoked_at: float = 1.0, until: float = 100.0
) -> Revocation:
    return Revocation(Kind.SUB, digest_of(Kind.SUB, sub), before, revoked_at, until)


REVOCATIONS = st.builds(
    Revocation,
    st.sampled_from(Kind),
    st.sampled_from(["a", "b"]),
    st.none() | st.floats(0, 1e10),
    st.integers(0, 3),
    st.sampled_from([1.0, 50.0, 100.0]),
)


# Whom it is about -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "revoked"),
    [
        ({"jti": "one"}, True),
        ({"jti": "One"}, False),
        ({"jti": "one "}, False),
        ({"jti": "one", "sub": "alice", "iat": 99}, True),
        ({"sub": "one"}, False),
        ({}, False),
    ],
)
def test_jti_is_the_token_of_exactly_that_jti(claims: dict[str, object], *, revoked: bool) -> None:
    assert revoked == is_revoked(index_of([by_jti("one")]), claims)


@pytest.mark.parametrize(
    ("claims", "revoked"),
    [
        ({"sub": "alice", "iat": 49}, True),
        ({"sub": "alice", "iat": 50}, True),
        ({"sub": "alice", "iat": 50.001}, False),
        ({"sub": "alice", "iat": 51}, False),
        ({"sub": "alice"}, True),  # it may have been issued before
        ({"sub": "bob", "iat": 49}, False),
        ({"jti": "alice", "iat": 49}, False),
        ({"iat": 49}, False),
    ],
)
def test_sub_is_every_token_of_that_sub_issued_until_then(
    claims: dict[str, object], *, revoked: bool
) -> None:
    assert revoked == is_revoked(index_of([by_sub("alice")]), claims)


def test_token_is_revoked_when_either_revocation_is_about_it() -> None:
    index = index_of([by_jti("one"), by_sub("alice")])

    assert is_revoked(index, {"jti": "two", "sub": "alice", "iat": 1})
    assert is_revoked(index, {"jti": "one", "sub": "bob", "iat": 1})
    assert not is_revoked(index, {"jti": "two", "sub": "bob", "iat": 1})


def test_text_that_is_no_unicode_has_a_digest_too() -> None:
    assert is_revoked(index_of([by_jti("\ud800")]), {"jti": "\ud800"})


def test_one_text_as_jti_and_as_sub_has_two_digests() -> None:
    assert digest_of(Kind.JTI, "one") != digest_of(Kind.SUB, "one")


# Merging ----------------------------------------------------------------------------------------


def test_of_two_about_the_same_tokens_nothing_is_lost() -> None:
    one = by_sub("alice", 90.0, revoked_at=1, until=95.0)
    other = by_sub("alice", 10.0, revoked_at=2, until=99.0)
    both = by_sub("alice", 90.0, revoked_at=2, until=99.0)

    for order in permutations([one, other]):
        assert [both] == list(merged(order, 0.0).values())


@pytest.mark.parametrize(("now", "left"), [(99.999, 1), (100.0, 0), (101.0, 0)])
def test_revocation_is_forgotten_at_its_end(now: float, left: int) -> None:
    assert left == len(merged([by_jti("one", until=100.0)], now))


@given(st.lists(REVOCATIONS, max_size=6), st.lists(REVOCATIONS, max_size=6))
def test_order_and_number_of_merges_do_not_matter(
    ours: list[Revocation], theirs: list[Revocation]
) -> None:
    def together(*lists: Iterable[Revocation]) -> dict[Tokens, Revocation]:
        return merged(chain(*lists), 10.0)

    once = together(ours, theirs)
    assert once == together(theirs, ours)
    assert once == together(together(ours).values(), together(theirs).values())
    assert once == together(once.values(), ours)


# Sealing ----------------------------------------------------------------------------------------


def code(
    data: bytes, *, version: int = VERSION, source: KeySource = SOURCE, key: bytes = KEY
) -> str:
    with pytest.raises(RecordError) as refused:
        unseal(data, version, source, (key,))
    return refused.value.code


@given(st.lists(REVOCATIONS), st.sampled_from([(), (KEY,), (KEY, PREVIOUS)]))
def test_list_is_read_as_it_was_sealed(
    revocations: list[Revocation], keys: tuple[bytes, ...]
) -> None:
    revoked = merged(revocations, 0.0)

    assert revoked == unseal(seal(revoked, VERSION, SOURCE, keys, NONCE), VERSION, SOURCE, keys)


def sealed() -> bytes:
    return seal(merged([by_sub("alice")], 0.0), VERSION, SOURCE, (KEY,), NONCE)


def test_list_of_another_seal_key_is_refused() -> None:
    assert "seal" == code(sealed(), key=PREVIOUS)


def test_list_of_another_issuer_is_refused() -> None:
    assert "seal" == code(sealed(), source=OTHER)


def test_list_under_another_version_is_refused() -> None:
    assert "version" == code(sealed(), version=VERSION + 1)


def test_every_bit_of_a_list_is_sealed() -> None:
    data = sealed()
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert code(bytes(changed)) in {"seal", "foreign", "version", "unsealed"}


def test_unsealed_list_is_refused_where_there_is_a_seal_key() -> None:
    assert "unsealed" == code(seal({}, VERSION, SOURCE, (), NONCE))


def test_key_set_is_no_list_and_a_list_is_no_key_set() -> None:
    record = Record(VERSION, 1.0, 300.0, b'{"keys": []}', None, None)

    assert "foreign" == code(seal_record(record, SOURCE, (KEY,), NONCE))
    with pytest.raises(RecordError, match="foreign"):
        unseal_record(sealed(), SOURCE, (KEY,))
    with pytest.raises(RecordError, match="seal"):
        unseal_record(b"KC1" + sealed()[3:], SOURCE, (KEY,))


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"null",
        b"[null]",
        b'[["jti"]]',
        b'[["jti","d",null,1,"soon"]]',
        b'[["iss","d",null,1,2]]',
        b'[["jti","d",null,1,NaN]]',
        b'[["jti",1,null,1,2]]',
        b"[" * 100_000,
    ],
)
def test_content_of_the_wrong_shape_is_refused(content: bytes) -> None:
    empty = seal({}, VERSION, SOURCE, (), NONCE)
    with pytest.raises(RecordError, match="content"):
        unseal(empty.removesuffix(b"[]") + content, VERSION, SOURCE, ())


@given(st.binary())
def test_garbage_is_refused_with_the_one_right_error(data: bytes) -> None:
    with pytest.raises(RecordError):
        unseal(data, VERSION, SOURCE, (KEY,))


def test_sealed_list_shows_no_identifier_and_no_digest() -> None:
    data = sealed()

    digest = digest_of(Kind.SUB, "alice").encode()
    assert [] == [word for word in (b"alice", digest, b"sub") if word in data]


def test_unsealed_list_shows_no_identifier() -> None:
    data = seal(merged([by_sub("alice")], 0.0), VERSION, SOURCE, (), NONCE)

    assert b"alice" not in data
