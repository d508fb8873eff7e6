"""Readings: all that a path may mean to whoever reads it.

Each way of reading was somebody's default: percent-encoding undone once or again, before or after
the path is cut into segments; a backslash as a slash; `;parameters` left out; slashes merged;
`.` and `..` resolved (RFC 3986 section 5.2.4); the path cut at a NUL, or where a second parser sees
a query; control characters dropped; bytes taken as UTF-8 that are too long to be any (RFC 3629
section 3). What can be made of a path by any of these, one after another, is a reading of it.
"""

import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from keycache.errors import Reason, TokenError

READINGS, LENGTH = 24, 2048
"""Readings and characters at most of a path that is not plain. Those of good will have three or
four readings; the others cost no more than this.
"""


def is_plain(path: str) -> bool:
    """Whether a path has one reading only; most have."""
    return (
        "%" not in path
        and "//" not in path
        and "/." not in path
        and ";" not in path
        and "\\" not in path
        and "?" not in path
        and "#" not in path
        and path.isprintable()
    )


def readings(path: str) -> Iterator[str]:
    """The path as it was sent, then every other reading of it.

    Raises TokenError (ambiguous_path) when it does not begin with a slash, is too long to be read
    in all ways, or has too many.
    """
    if not path.startswith("/") or len(path) > LENGTH:
        raise ambiguous()
    found = [path]
    for reading in found:  # which grows meanwhile
        yield reading
        for read in _READERS:
            other = read(reading)
            if other not in found:
                found.append(other)
        if len(found) > READINGS:
            raise ambiguous()


def ambiguous() -> TokenError:
    """The refusal of a path that may mean this or that."""
    return TokenError(Reason.AMBIGUOUS_PATH, "The path can be read in more than one way.")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/")[1:]:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    return "/" + "/".join(kept)


def _overlong(match: re.Match[str]) -> str:
    lead, last = int(match[1], 16), int(match[2], 16)
    return chr((lead & 1) << 6 | last & 0x3F)


_OVERLONG = re.compile(r"%(?:e0%)?(c[01]|8[01])%([89ab][0-9a-f])", re.IGNORECASE)
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"//+")
_END = re.compile(r"[\0?#].*", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")

_READERS: tuple[Callable[[str], str], ...] = (
    unquote,
    lambda path: _OVERLONG.sub(_overlong, path),
    lambda path: path.replace("\\", "/"),
    lambda path: _PARAMETERS.sub("", path),
    lambda path: _SLASHES.sub("/", path),
    _without_dots,
    lambda path: _END.sub("", path),
    lambda path: _CONTROLS.sub("", path),
)
