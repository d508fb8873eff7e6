"""JSON as a verifier must read it: UTF-8 only, no duplicate members, no NaN, bounded depth.

RFC 7515 section 4 and RFC 7519 section 4 let a parser refuse duplicate member names or keep the
last; two parsers that differ in this are how a gateway and an API come to see two different tokens,
so they are refused. RFC 8725 section 3.7: UTF-8 and nothing else (RFC 8259 section 8.1: no BOM).

Two parsers, one verdict: msgspec reads fast and keeps the last of two duplicates, so what it read
is written again, and only if that gives the very same bytes was nothing lost on the way. That is so
for what most issuers send. Everything else is read by the standard library with every check.

What was read can be changed, until `freeze_inside`: what nobody may have signed is not worth the
walk. The fast reader makes tuples of arrays at once, where that costs nothing.
"""

import json
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NoReturn

import msgspec

MAX_DEPTH = 32
"""Levels of values within each other, the outermost object and the innermost value included."""


class FrozenObject(dict[str, Any]):
    """A JSON object that cannot be changed. `dict(it)` is a copy that may be."""

    __slots__ = ()

    def _frozen(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("an object of a token cannot be changed: copy it with dict()")

    __setitem__ = __delitem__ = __ior__ = _frozen
    clear = pop = popitem = setdefault = update = _frozen

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (dict(self),))


def parse_object(data: bytes) -> dict[str, object]:
    """The JSON object in these bytes. An array is a list, or a tuple with nothing but scalars.

    Raises ValueError for anything else, and nothing but that.
    """
    try:
        members: dict[str, object] = _read(data)
        if _write(members) == data:
            return members
    except ValueError:
        pass  # the strict reader says what is wrong
    return _parse_strictly(data)


def freeze_inside(members: dict[str, Any]) -> None:
    """Let nothing in an object that `parse_object` read be changed any more: objects become
    FrozenObjects, arrays tuples.
    """
    for name, value in members.items():
        kind = type(value)
        if kind is dict:
            members[name] = _frozen_object(value)
        elif kind is list:
            members[name] = _frozen_array(value)


def _frozen_object(members: dict[str, Any]) -> FrozenObject:
    freeze_inside(members)
    return FrozenObject(members)


def _frozen_array(values: list[Any]) -> tuple[object, ...]:
    for place, value in enumerate(values):
        if type(value) is dict:
            values[place] = _frozen_object(value)
        elif type(value) is list:
            values[place] = _frozen_array(value)
    return tuple(values)


def _parse_strictly(data: bytes) -> dict[str, object]:
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\u" in text:
            # A lone surrogate can be written as an escape; it is not UTF-8 and breaks later
            # encoders.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    if "[" in text or text.count("{") > 1:
        _check_depth(value)
    return value


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("number out of range")
    return number


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


# The shapes that nearly all claims have: values, lists of values, and both within two objects, such
# as Keycloak's resource_access.
_Values = str | int | float | bool | None
_Flat = _Values | tuple[_Values, ...]
_Shape = dict[str, _Flat | dict[str, _Flat | dict[str, _Flat]]]
_read: Callable[[bytes], Any] = msgspec.json.Decoder(_Shape).decode
_write = msgspec.json.Encoder().encode
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
