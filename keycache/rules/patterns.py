"""Pattern: which paths a rule is for."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from keycache.errors import ConfigurationError

ANY = "*"

_LITERAL = re.compile(r"[0-9A-Za-z._~!$&'()+,=@-][0-9A-Za-z._~!$&'()+,=@:-]*")
"""Characters that are themselves in a path (RFC 3986 section 3.3), but `;`, `*` and `:` first."""


DEPTH = 64
"""Segments of a pattern at most."""


class Pattern(NamedTuple):
    """The paths of a rule. parts: its segments, `*` for any. is_open: whether `**` follows."""

    parts: tuple[str, ...]
    is_open: bool

    def __str__(self) -> str:
        return "/" + "/".join((*self.parts, "**") if self.is_open else self.parts)

    def covers(self, other: "Pattern") -> bool:
        """Whether it matches every path that the other one matches."""
        if self.is_open:
            fits = len(self.parts) <= len(other.parts)
        else:
            fits = len(self.parts) == len(other.parts) and not other.is_open
        return fits and all(
            mine in (ANY, theirs) for mine, theirs in zip(self.parts, other.parts, strict=False)
        )

    def meet(self, other: "Pattern") -> "Pattern | None":
        """The pattern of the paths that both match; None when there are none."""
        short, long = sorted((self, other), key=lambda pattern: len(pattern.parts))
        if len(short.parts) < len(long.parts) and not short.is_open:
            return None
        parts = list(long.parts)
        for place, part in enumerate(short.parts):
            if parts[place] == ANY:
                parts[place] = part
            elif part not in (ANY, parts[place]):
                return None
        return Pattern(tuple(parts), short.is_open and long.is_open)

    def samples(self, depth: int) -> Iterator[str]:
        """Paths of this pattern that stand for all of it. depth: of the deepest pattern there is.

        Where it takes any segment, a sample has one that no pattern names. Whatever matches that
        sample has a `*` there, and so matches every other path of the same length too.
        """
        extra = depth - len(self.parts) + 1 if self.is_open else 0
        for length in range(extra + 1):
            yield "/" + "/".join(self.parts + (ANY,) * length)

    def lower(self) -> "Pattern":
        """The pattern for whom case does not matter."""
        return Pattern(tuple(part.lower() for part in self.parts), self.is_open)


def parse_pattern(text: str) -> Pattern:
    """A pattern as `Rule.path` writes it. Raises ConfigurationError that says what to write."""
    if not text.startswith("/"):
        raise ConfigurationError(["a path begins with /"])
    parts = text.removesuffix("/").split("/")[1:]
    if len(parts) > DEPTH:
        raise ConfigurationError([f"a path has {DEPTH} segments at most"])
    is_open = parts[-1:] == ["**"]
    if is_open:
        del parts[-1]
    for part in parts:
        if part != ANY and (problem := _problem(part)):
            raise ConfigurationError([problem])
    return Pattern(tuple(parts), is_open)


def _problem(part: str) -> str | None:
    if part == "**":
        return "** stands at the end only"
    if part in ("", ".", ".."):
        return "a segment is empty, . or ..; no request is matched by it as it was sent"
    if "*" in part:
        return f"{part}: * stands for a whole segment, not for a part of it"
    if part[0] in "<{:":
        return f"{part}: write * for a segment that varies"
    if not _LITERAL.fullmatch(part):
        return f"{part!r} holds what a path has percent-encoded only; write * for that segment"
    return None
