"""JSON that two readers could read differently is refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.core.claims import freeze
from keycache.core.strict_json import MAX_DEPTH, FrozenObject, parse_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# Compact text without needless escapes takes a fast way, any other spelling the strict one.
SPELLINGS = pytest.mark.parametrize(
    ("separators", "ensure_ascii"),
    [((",", ":"), False), ((",", ":"), True), ((", ", ": "), False), ((", ", ": "), True)],
    ids=["compact", "compact-escaped", "spaced", "spaced-escaped"],
)


def both_ways(text: bytes) -> list[bytes]:
    """This text, and the same without the white space between its members."""
    return [text, text.replace(b": ", b":").replace(b", ", b",")]


def same(value: object, read: object) -> bool:
    """Whether `read` is this value, perhaps with tuples for its lists; 1, 1.0 and true differ."""
    if isinstance(value, dict):
        return (
            isinstance(read, dict)
            and list(value) == list(read)
            and all(same(value[name], read[name]) for name in value)
        )
    if isinstance(value, list):
        if not isinstance(read, list | tuple) or len(value) != len(read):
            return False
        return all(map(same, value, read))
    return repr(value) == repr(read)


@SPELLINGS
@given(value=st.dictionaries(st.text(), VALUES))
def test_object_is_read_as_json_reads_it_or_refused(
    separators: tuple[str, str], value: dict[str, object], *, ensure_ascii: bool
) -> None:
    text = json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)
    try:
        # What NaN and infinity become is not JSON (RFC 8259 section 6).
        json.loads(text, parse_constant=lambda name: [][len(name)])
    except IndexError:
        with pytest.raises(ValueError, match="not JSON"):
            parse_object(text.encode())
    else:
        assert same(json.loads(text), parse_object(text.encode()))


@given(st.binary() | st.text().map(str.encode))
def test_bytes_are_an_object_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_object(data), dict)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b'[{"a": 1}]',
        b"{",
        b"{}}",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a" 1}',
        b"{a: 1}",
        b'{"a": 01}',
        b'{"a": +1}',
        b'{"a": .5}',
        b'{"a": 0x10}',
        b'{"a": True}',
        b'{"a": 1} // comment',
        b'{"a": "\x00"}',
        b'{"a": "\n"}',
        b'\x0c{"a": 1}',
        b"{}\x00",
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_object(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 5000])
def test_number_that_is_none_is_refused(number: str) -> None:
    for text in both_ways(f'{{"exp": {number}}}'.encode()):
        with pytest.raises(ValueError, match=r".+"):
            parse_object(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"sub": "alice", "sub": "admin"}',
        '{"sub": "alice", "sub": "alice"}',
        '{"sub": 1, "s\\u0075b": 2}',
        '{"a": {"b": [{"c": 1, "c": 2}]}}',
    ],
)
def test_duplicate_member_is_refused_at_any_depth(text: str) -> None:
    for spelling in both_ways(text.encode()):
        with pytest.raises(ValueError, match="duplicate"):
            parse_object(spelling)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encoding_other_than_utf_8_without_a_mark_is_refused(encoding: str) -> None:
    for text in ('{"sub": "alice"}', '{"sub":"alice"}'):
        with pytest.raises(ValueError, match=r".+"):
            parse_object(text.encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        b'{"sub": "\xff"}',
        b'{"sub": "\xc0\xaf"}',  # an overlong "/"
        b'{"sub": "\xed\xa0\x80"}',  # CESU-8: half of a surrogate pair
        b'{"sub": "\\ud800"}',
        b'{"sub": "\\udc00\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": [{"b": "\\ud83d"}]}',
    ],
)
def test_text_that_is_no_unicode_is_refused(text: bytes) -> None:
    for spelling in both_ways(text):
        with pytest.raises(ValueError, match=r".+"):
            parse_object(spelling)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": {"b": 1}}',
        b'{"a": {"b": {"c": [1]}}}',
        b'{"a": {"b": {"c": {"d": 1}}}}',
        b'{"a": [{"b": 1}]}',
        b'{"a": [[{"b": [1]}], "c"]}',
        b'{"a": [], "b": {}}',
    ],
)
def test_what_is_inside_cannot_be_changed_however_it_was_read(text: bytes) -> None:
    def kinds(value: object) -> set[type]:
        if not isinstance(value, dict | list | tuple):
            return set()
        inner = value.values() if isinstance(value, dict) else value
        return {type(value)}.union(*map(kinds, inner))

    for spelling in both_ways(text):
        found = kinds(tuple(freeze(parse_object(spelling)).values()))
        assert found <= {FrozenObject, tuple}


def test_surrogate_pair_is_one_character() -> None:
    assert {"sub": "😀"} == parse_object(b'{"sub": "\\ud83d\\ude00"}')


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_depth_is_bounded_on_both_sides(opening: str, closing: str, space: str) -> None:
    def nested(levels: int) -> bytes:
        inner = levels - 2
        return f'{{"a":{space}{opening * inner}1{closing * inner}}}'.encode()

    assert parse_object(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="nested"):
        parse_object(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "number",
    [
        *("0", "-0", "0.0", "-0.0", "1", "1.0", "1e2", "1E2", "1e+2", "0.1", "1e-7", "5e-324"),
        *(str(2**53 + 1), str(2**63), str(2**64), str(2**64 + 1), str(-(2**63) - 1), "9" * 400),
        *("1.7976931348623157e308", "100000000000000000000.0", "0.30000000000000004"),
    ],
)
def test_number_is_read_as_json_reads_it(number: str) -> None:
    for text in both_ways(f'{{"exp": {number}}}'.encode()):
        assert same(json.loads(text), parse_object(text))


@pytest.mark.parametrize("bomb", ['{"a":' * 100_000, '{"a":' + "[" * 100_000])
def test_depth_bomb_is_a_value_error(bomb: str) -> None:
    with pytest.raises(ValueError, match="nested"):
        parse_object(bomb.encode())


def test_brackets_in_text_are_no_depth() -> None:
    assert {"a": "[{" * 100} == parse_object(json.dumps({"a": "[{" * 100}).encode())
