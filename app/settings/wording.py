"""Turns problems into sentences that name a setting as its operator wrote it, and where."""

import json
import re
from collections.abc import Iterable
from math import inf

from pydantic_core import ErrorDetails

from app.settings.fields import SETTING_NAMES
from app.settings.names import LISTS, PREFIX, SECRETS, TABLES, Problem, did_you_mean
from app.settings.reading import File
from app.settings.tables import ENTRIES
from app.settings.toml_lines import Place

SHOWN = 60  # characters of a wrong value

_CLAIM = re.compile(r"claim (\S+)$|'(.+)' is no (?:path|JSON Pointer)")
_CAPITALS = "|".join(sorted(map(str.upper, SETTING_NAMES), key=len, reverse=True))
_IN_CAPITALS = re.compile(rf"(?<!\w)({_CAPITALS})\b")


class Wording:
    """Knows what came from the file: `from_file` are the settings of which it decides."""

    def __init__(self, file: File, from_file: Iterable[str] = ()) -> None:
        self._file = file
        self._from_file = frozenset(from_file)

    def of_problem(self, problem: Problem) -> str:
        """A sentence of keycache's own, with all names in full."""
        key, colon, rest = problem.text.partition(":")
        key = {"audiences": "audience"}.get(key, key)
        rest = colon + _IN_CAPITALS.sub(rf"{PREFIX}\1", rest)
        claim = _CLAIM.match(key)
        place = (*problem.place, "claims", claim[1] or claim[2]) if claim else (*problem.place, key)
        inherited = place not in self._file.lines and key in SETTING_NAMES and key != "issuer"
        if key in SETTING_NAMES and (not problem.place or inherited):
            return self._top_level(key) + rest
        table = "" if key.startswith("rule ") else _table(problem.place)  # it says which it is
        return f"{self._file.at(place)}{table}{key}{rest}"

    def of_error(self, detail: ErrorDetails) -> str:
        """A pydantic error, with the value (unless it may be a secret) and what would be right."""
        top, *inner = detail["loc"]
        table = next((name for name, own in TABLES.items() if own == top), None)
        place: Place = (table or top, *inner)
        said = _said(detail, place)
        if detail["type"] == "extra_forbidden":
            keys = ENTRIES[str(table)].model_fields
            said = f"there is no such key{did_you_mean(str(inner[-1]), keys)}"
        if table is None:
            return f"{self._top_level(str(top))}: {said}"
        depth = 2 if table in LISTS else 1
        key = ".".join(str(part) for part in place[depth:] if isinstance(part, str))
        return f"{self._file.at(place)}{_table(place[:depth])}{key}{': ' if key else ''}{said}"

    def in_order(self, problems: Iterable[str]) -> list[str]:
        """Each sentence once: those about the file by their lines, then the others."""
        line = re.compile(rf"{re.escape(self._file.path)}:(\d+): ")

        def order(problem: str) -> float:
            found = line.match(problem) if self._file.path else None
            return int(found[1]) if found else inf

        return sorted(dict.fromkeys(problems), key=order)

    def _top_level(self, setting: str) -> str:
        """`KEYCACHE_TTL`, or `keycache.toml:3: ttl` for a value that came from the file."""
        if setting in self._from_file:
            return f"{self._file.at((setting,))}{setting}"
        return PREFIX + setting.upper()


def worded(problems: Iterable[str]) -> tuple[str, ...]:
    """Sentences of keycache's own, with the names that settings have in the environment."""
    wording = Wording(File(""))
    return tuple(wording.of_problem(Problem((), problem)) for problem in problems)


def _table(place: Place) -> str:
    """`[[rules]] table 3: `, or `[resource]: `."""
    match place:
        case (str(name), int(number)):
            return f"[[{name}]] table {number + 1}: "
        case (str(name),) if name in LISTS:
            return f"[[{name}]]: "
        case (str(name),):
            return f"[{name}] "
    return ""


_IN_TOML = {
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_type": "must be a text, in quotation marks",
    "tuple_type": "must be a list",
}
"""pydantic speaks of Python's types."""


def _said(detail: ErrorDetails, place: Place) -> str:
    """What is wrong with a value; the value itself only where it is short and surely no secret."""
    said = _IN_TOML.get(detail["type"], detail["msg"])
    said = re.sub(r"^(Input|Value|String|Tuple|Data)\b", lambda word: word[0].lower(), said)
    value = detail["input"]
    if detail["type"] == "missing":
        return "not set; this key is needed"
    if detail["type"] == "setting" or any(part in SECRETS for part in place):
        return said
    if detail["type"] == "literal_error":
        said += did_you_mean(str(value), re.findall(r"'([^']*)'", detail["msg"]))
    if isinstance(value, str):
        return f"{value[:SHOWN]!r} cannot be used; {said}"
    return f"{json.dumps(value)} cannot be used; {said}" if isinstance(value, int | float) else said
