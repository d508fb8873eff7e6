"""The facts: immutable, all of one union, and with labels from closed lists."""

import re
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from keycache import events
from keycache.errors import Reason
from keycache.events import Event, Path, Rejected, ignore

FACTS = [
    thing
    for thing in vars(events).values()
    if isinstance(thing, type)
    and issubclass(thing, tuple | msgspec.Struct)
    and thing.__module__ == events.__name__
]
LISTS = sorted(
    {thing for thing in vars(events).values() if isinstance(thing, type)}
    & set(StrEnum.__subclasses__()),
    key=lambda closed: closed.__name__,
)
SENTENCES = {"issuer", "details", "skipped"}
"""Fields of text that are no member of a closed list: the configured name of the issuer, our own
words about a failure, and our own words for each key that cannot be used."""


def test_every_fact_is_an_event() -> None:
    assert set(FACTS) == set(get_args(Event))


@pytest.mark.parametrize("fact", FACTS)
def test_fact_says_what_it_is(fact: type) -> None:
    assert fact.__doc__
    assert not fact.__doc__.startswith(f"{fact.__name__}(")  # what NamedTuple writes by itself


@pytest.mark.parametrize("fact", FACTS)
def test_fact_has_text_in_no_field_but_those_that_we_write_ourselves(fact: type) -> None:
    def texts(hint: Any) -> bool:  # noqa: ANN401 - a type as it stands in the source
        parts = get_args(hint)
        return any(map(texts, parts)) if parts else hint in (str, bytes, object, Any)

    free = {name for name, hint in get_type_hints(fact).items() if texts(hint)}
    assert set() == free - SENTENCES


@pytest.mark.parametrize("closed", LISTS)
def test_closed_list_holds_short_stable_words_each_once(closed: type[StrEnum]) -> None:
    words = [str(member) for member in closed]
    assert [] == [word for word in words if not re.fullmatch(r"[a-z]+(_[a-z]+)*", word)]
    assert len(words) == len(closed.__members__)


def test_fact_cannot_be_changed() -> None:
    fact: Any = Rejected("issuer", Reason.EXPIRED, Path.MEMORY, 0.1)
    with pytest.raises(AttributeError):
        fact.reason = Reason.MALFORMED


def test_who_does_not_want_to_know_is_told_and_forgets() -> None:
    assert isinstance(Event, UnionType)
    ignore(Rejected(None, Reason.MALFORMED, Path.MEMORY, 0.1))
