"""JSON as a verifier must read it: UTF-8 only, no duplicate members, no NaN, bounded depth.

RFC 7515 section 4 and RFC 7519 section 4 let a parser refuse duplicate member names or keep the
last; two parsers that differ in this are how a gateway and an API come to see two different tokens,
so they are refused. RFC 8725 section 3.7: UTF-8 and nothing else (RFC 8259 section 8.1: no BOM).

Two parsers, one verdict: msgspec reads fast and keeps the last of two duplicates, so what it read
is written again, and only if that gives the very same bytes was nothing lost on the way. That is so
for what most issuers send. Everything else is read by the standard library with every check.
"""

import json
from collections.abc import Sequence
from math import isfinite

import msgspec

MAX_DEPTH = 32


def parse_object(data: bytes) -> dict[str, object]:
    """The JSON object in these bytes. Raises ValueError for anything else, and nothing but that."""
    if data.count(b"{") + data.count(b"[") < MAX_DEPTH:
        try:
            value = _read(data)
            if type(value) is dict and _write(value) == data:
                return value
        except (ValueError, RecursionError, msgspec.MsgspecError):
            pass  # the strict reader says what is wrong
    return _parse_strictly(data)


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


_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
