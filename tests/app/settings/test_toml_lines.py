"""The line of every key: whatever tomllib accepts, all of it and nothing else is found."""

import json
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings.toml_lines import Place, lines_of

TEXT = '''\
# a comment with [brackets] = "and more"
top = 1
"dotted.name" = """
[[not]]
a = "b" \\""" x
"""""
a.'b'.c = [1, # ] a comment
  "]", {x = 1, y.z = [2, 3]},
]
[table] # comment
empty = {}
when = 1979-05-27 07:32:00 # a date with a space
literal = 'C:\\'
[[issuers]]
issuer = '''
TEXT += """'''
a = 1'''
[issuers.claims]
tenant = "acme"
[[issuers]]
\tissuer = "b\\"]"
[[issuers.more]]
q = 1
[issuers.more.deep]
'' = true"""

LINES: list[tuple[Place, int]] = [
    (("top",), 2),
    (("dotted.name",), 3),
    (("a", "b", "c"), 7),
    (("a", "b", "c", 1), 8),
    (("a", "b", "c", 2, "y", "z"), 8),
    (("table",), 10),
    (("table", "literal"), 13),
    (("issuers", 0), 14),
    (("issuers", 0, "issuer"), 15),
    (("issuers", 0, "claims"), 17),
    (("issuers", 0, "claims", "tenant"), 18),
    (("issuers", 1, "issuer"), 20),
    (("issuers", 1, "more", 0, "deep"), 23),
    (("issuers", 1, "more", 0, "deep", ""), 24),
]


def places(value: object, place: Place = ()) -> Iterator[Place]:
    """Every place that a document has, as tomllib reads it."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, member in value.items():
            yield from places(member, (*place, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*place, number))


@pytest.mark.parametrize(("place", "line"), LINES)
def test_place_has_its_line(place: Place, line: int) -> None:
    assert line == lines_of(TEXT)[place]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_place_is_found_and_no_other(line_end: str) -> None:
    text = TEXT.replace("\n", line_end)
    assert set(places(tomllib.loads(text))) == set(lines_of(text))


KEYS = st.text(max_size=4).filter(lambda key: "\x7f" not in key and key.isprintable())
SCALARS = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(["true", "1.5", "07:32:00", "'#'", "''", '""', '"""a\n"b"""', "'''\n]'''"]),
    KEYS.map(json.dumps),
)


def inline(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.dictionaries(KEYS.map(json.dumps), values, max_size=3)
    lists = st.lists(values, max_size=3)
    return st.one_of(
        lists.map(lambda items: "[ #]\n " + ',\n# "\n'.join(items) + "]"),
        pairs.map(lambda them: "{ " + ", ".join(f"{k} = {v}" for k, v in them.items()) + " }"),
    )


TABLES = st.dictionaries(
    KEYS.map(json.dumps), st.recursive(SCALARS, inline, max_leaves=6), max_size=3
)


@given(
    st.lists(st.tuples(st.booleans(), st.lists(KEYS, min_size=1, max_size=2), TABLES), max_size=4)
)
def test_whatever_tomllib_accepts_is_found_where_it_stands(
    tables: list[tuple[bool, list[str], dict[str, str]]],
) -> None:
    text = ""
    for is_list, name, pairs in tables:
        header = " . ".join(map(json.dumps, name))
        text += f"[[{header}]]\n" if is_list else f"[ {header} ]\n"
        text += "".join(f"{key} = {value}\n\n" for key, value in pairs.items())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # one name used for two things
    assert set(places(document)) == set(lines_of(text))
