"""Records in the shared cache: what was sealed is what is read, or it is refused."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.record import Record, seal, unseal
from keycache.core.seal import MAX_BYTES
from keycache.errors import RecordError
from keycache.issuer import KeySource

KEY, PREVIOUS, FOREIGN = bytes(32), b"\x01" * 32, b"\x02" * 32
NONCE = bytes(range(12))
SOURCE = KeySource("https://issuer.example", None)
RECORD = Record(
    version=1_700_000_000_123,
    fetched_at=1_700_000_000.5,
    ttl=300.0,
    document=b'{"keys": ["\xc3\xa9"]}',
    etag='"a"',
    last_modified="Tue, 14 Nov 2023 22:13:20 GMT",
)
HEAD = struct.Struct(">3sBQQ")


def code(data: bytes, source: KeySource = SOURCE, keys: tuple[bytes, ...] = (KEY,)) -> str:
    with pytest.raises(RecordError) as refused:
        unseal(data, source, keys)
    return refused.value.code


def unsealed(content: bytes) -> bytes:
    return HEAD.pack(b"KC1", 0, 1, 1) + content


@pytest.mark.parametrize("keys", [(KEY,), (KEY, PREVIOUS), ()])
def test_record_is_read_as_it_was_sealed(keys: tuple[bytes, ...]) -> None:
    assert RECORD == unseal(seal(RECORD, SOURCE, keys, NONCE), SOURCE, keys)


@given(
    st.builds(
        Record,
        version=st.integers(0, 2**63),
        fetched_at=st.integers(0, 2**42).map(lambda ms: ms / 1000),
        ttl=st.floats(0, 1e6),
        document=st.text().map(str.encode),
        etag=st.none() | st.text(),
        last_modified=st.none() | st.text(),
    ),
    st.sampled_from([(), (KEY,)]),
)
def test_every_record_is_read_as_it_was_sealed(record: Record, keys: tuple[bytes, ...]) -> None:
    assert record == unseal(seal(record, SOURCE, keys, NONCE), SOURCE, keys)


@pytest.mark.parametrize("keys", [(PREVIOUS, KEY), (FOREIGN, PREVIOUS, KEY)])
def test_record_of_the_previous_key_is_read(keys: tuple[bytes, ...]) -> None:
    assert RECORD == unseal(seal(RECORD, SOURCE, (KEY,), NONCE), SOURCE, keys)


def test_record_is_sealed_with_the_first_key() -> None:
    sealed = seal(RECORD, SOURCE, (KEY, PREVIOUS), NONCE)

    assert RECORD == unseal(sealed, SOURCE, (KEY,))
    assert "seal" == code(sealed, keys=(PREVIOUS,))


def test_record_of_a_foreign_key_is_refused() -> None:
    assert "seal" == code(seal(RECORD, SOURCE, (FOREIGN,), NONCE), keys=(KEY, PREVIOUS))


def test_sealed_record_shows_nothing_of_its_content() -> None:
    sealed = seal(RECORD, SOURCE, (KEY,), NONCE)

    assert [] == [word for word in (b"keys", b"etag", b"GMT", b"issuer.example") if word in sealed]


@pytest.mark.parametrize(
    "other",
    [
        KeySource("https://other.example", None),
        KeySource("https://issuer.example/", None),
        KeySource("https://issuer.example", "https://issuer.example/jwks.json"),
        KeySource("", "https://issuer.example"),
        KeySource('https://issuer.example", "', None),
    ],
)
def test_record_of_one_source_is_not_read_for_another(other: KeySource) -> None:
    assert "seal" == code(seal(RECORD, SOURCE, (KEY,), NONCE), source=other)


def test_no_end_may_be_missing() -> None:
    sealed = seal(RECORD, SOURCE, (KEY,), NONCE)

    assert {"foreign", "seal"} == {code(sealed[:length]) for length in range(len(sealed))}


def test_no_bit_may_be_changed() -> None:
    sealed = seal(RECORD, SOURCE, (KEY,), NONCE)
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        assert code(bytes(changed)) in ("foreign", "seal", "unsealed")


def test_version_and_date_in_the_clear_are_sealed_too() -> None:
    sealed = seal(RECORD, SOURCE, (KEY,), NONCE)
    newer = HEAD.pack(b"KC1", 1, RECORD.version + 1, 1_700_000_000_500) + sealed[HEAD.size :]
    later = HEAD.pack(b"KC1", 1, RECORD.version, 1_700_000_000_501) + sealed[HEAD.size :]

    assert ["seal", "seal"] == [code(newer), code(later)]


def test_nothing_may_be_appended() -> None:
    assert "seal" == code(seal(RECORD, SOURCE, (KEY,), NONCE) + b"\x00")


def test_unsealed_record_is_refused_where_a_key_is_set() -> None:
    assert "unsealed" == code(seal(RECORD, SOURCE, (), NONCE))


def test_sealed_record_is_refused_where_no_key_is_set() -> None:
    assert "no_key" == code(seal(RECORD, SOURCE, (KEY,), NONCE), keys=())


def test_seal_cannot_be_taken_off_by_its_flag() -> None:
    sealed = bytearray(seal(RECORD, SOURCE, (KEY,), NONCE))
    sealed[3] = 0

    assert ["unsealed", "content"] == [code(bytes(sealed)), code(bytes(sealed), keys=())]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b'{"keys": []}',
        b"KC0" + bytes(100),
        b"KC2" + bytes(100),
        b"KC1" + b"\x02" + bytes(100),
        b"KC1" + b"\xff" * 100,
        b"KC1",
        b"\x80\x04\x95pickle" + bytes(40),
    ],
)
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_what_is_no_record_is_foreign(data: bytes, keys: tuple[bytes, ...]) -> None:
    assert "foreign" == code(data, keys=keys)


def test_size_is_bounded_before_anything_is_read() -> None:
    assert "too_large" == code(bytes(MAX_BYTES + 1))
    assert "foreign" == code(bytes(MAX_BYTES))


GOOD: dict[str, object] = {"ttl": 300, "document": "{}", "etag": None, "last_modified": None}


WRONG: tuple[dict[str, object], ...] = (
    {"ttl": None},
    {"ttl": "soon"},
    {"ttl": []},
    {"ttl": float("nan")},  # would be fresh for ever
    {"ttl": "nan"},
    {"ttl": float("inf")},
    {"ttl": 10**400},
    {"document": None},
    {"document": 1},
    {"document": []},
    {"document": "\ud800"},
    {"etag": 1},
    {"etag": ["a"]},
    {"last_modified": {}},
)


def test_content_of_the_right_types_is_read() -> None:
    assert 300 == unseal(unsealed(json.dumps(GOOD).encode()), SOURCE, ()).ttl


@pytest.mark.parametrize(
    "content",
    [
        b"  ",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xff",
        b"[" * 100_000,
        *(
            json.dumps({name: value for name, value in GOOD.items() if name != missing}).encode()
            for missing in GOOD
        ),
        *(json.dumps({**GOOD, **wrong}).encode() for wrong in WRONG),
    ],
)
def test_content_that_is_none_of_ours_is_refused(content: bytes) -> None:
    assert "content" == code(unsealed(content), keys=())


HEADS = [b"", HEAD.pack(b"KC1", 0, 1, 1), HEAD.pack(b"KC1", 1, 1, 1)]


@given(st.binary(), st.sampled_from([(), (KEY,)]), st.sampled_from(HEADS))
def test_any_bytes_are_a_record_or_a_record_error(
    data: bytes, keys: tuple[bytes, ...], head: bytes
) -> None:
    with pytest.raises(RecordError):
        unseal(head + data, SOURCE, keys)


def test_any_end_of_an_unsealed_record_may_be_missing_without_another_error() -> None:
    data = seal(RECORD, SOURCE, (), NONCE)

    assert {"foreign", "content"} == {code(data[:end], keys=()) for end in range(len(data))}
