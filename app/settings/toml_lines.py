"""Where each key of a TOML text stands, so that a message can name its line.

tomllib says what a text means, and not where. This reads the text a second time, after tomllib has
accepted it, and notes places only: it need not find mistakes, and what values mean is skipped.
"""

import re
import tomllib
from bisect import bisect_left

Place = tuple[str | int, ...]
"""The way to a key, a table or an item: `("issuers", 0, "leeway")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotation marks more are part of the text
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Place, int]:
    """The line, counted from 1, where each key, table and item of an accepted text begins."""
    return _Reader(text).read()


class _Reader:
    """Goes through a text from its begin to its end, once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [end.start() for end in re.finditer("\n", text)]
        self._lines: dict[Place, int] = {}
        self._last_items: dict[Place, int] = {}  # of the lists that [[headers]] make

    def read(self) -> dict[Place, int]:
        """Note every place."""
        table: Place = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _header(self) -> Place:
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        *parents, last = self._key()
        self._at += brackets
        place: Place = ()
        for parent in parents:
            place = (*place, parent)
            self._note(place, start)
            if place in self._last_items:
                place = (*place, self._last_items[place])
        place = (*place, last)
        self._note(place, start)
        if brackets == 2:
            self._last_items[place] = self._last_items.get(place, -1) + 1
            place = (*place, self._last_items[place])
            self._note(place, start)
        return place

    def _pair(self, place: Place) -> None:
        start = self._at
        for part in self._key():
            place = (*place, part)
            self._note(place, start)
        self._at += 1  # the equals sign
        self._value(place)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            quoted = _STRING.match(self._text, self._at)
            if quoted:
                parts.append(tomllib.loads(f"key = {quoted[0]}")["key"])
                self._at = quoted.end()
            else:
                start = self._at
                parts.append(self._text[start : self._skip(_BARE_KEY)])
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, place: Place) -> None:
        self._skip(_SPACE)
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            number = 0
            while self._text[self._skip(_BLANK)] != "]":
                self._note((*place, number), self._at)
                self._value((*place, number))
                self._skip_comma()
                number += 1
            self._at += 1
        elif opening == "{":
            self._at += 1
            while self._text[self._skip(_BLANK)] != "}":
                self._pair(place)
                self._skip_comma()
            self._at += 1
        else:
            self._skip(_STRING if opening in "\"'" else _SCALAR)

    def _skip_comma(self) -> None:
        if self._text[self._skip(_BLANK)] == ",":
            self._at += 1

    def _skip(self, what: re.Pattern[str]) -> int:
        found = what.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _note(self, place: Place, start: int) -> None:
        self._lines.setdefault(place, bisect_left(self._line_ends, start) + 1)
