"""Where settings come from: one TOML file, and the environment, which wins."""

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.settings.names import CONFIG, LISTS, PATHS, PREFIX, TABLES, did_you_mean
from app.settings.toml_lines import Place, lines_of


@dataclass(frozen=True, slots=True)
class File:
    """The file as it was read: what it says, and on which line. `path` is empty for no file.

    broken: keys whose values say nothing, and of which a problem tells.
    """

    path: str
    content: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[Place, int] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def at(self, place: Place) -> str:
        """`keycache.toml:7: `, the line of the nearest thing that the file has; else nothing."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines[place]}: " if place else ""


def read_file(names: Iterable[str]) -> File:
    """The known keys of the file that KEYCACHE_CONFIG names, and a problem for each other one.

    names: the settings that may stand at its top level.
    """
    path = os.environ.get(CONFIG, "")
    if not path:
        return File(path)

    def unreadable(problem: str) -> File:
        return File(path, problems=(problem,), broken=tuple(TABLES))

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        return unreadable(f"{CONFIG}: cannot read {path} ({error.strerror})")
    except UnicodeDecodeError:
        return unreadable(f"{CONFIG}: {path} is not TOML (it is no UTF-8)")
    try:
        content = tomllib.loads(text)
    except RecursionError:
        return unreadable(f"{CONFIG}: {path} is not TOML (nested too deeply)")
    except tomllib.TOMLDecodeError as error:
        return unreadable(_syntax_problem(path, text, str(error)))
    file = File(path, content, lines_of(text))
    known = {*names, *TABLES}
    problems = [
        f"{file.at((name,))}{name}: there is no such setting{did_you_mean(name, known)}"
        for name in content
        if name not in known
    ]
    shapes = {name: problem for name in TABLES if (problem := _shape_problem(file, name))}
    usable = {name: content[name] for name in content if name in known - shapes.keys()}
    return File(path, usable, file.lines, (*problems, *shapes.values()), tuple(shapes))


def _syntax_problem(path: str, text: str, said: str) -> str:
    """Tomllib's sentence, with its line where an editor looks for it."""
    where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
    line, column = (where[1], where[2]) if where else (None, None)
    sentence = said[: where.start()] if where else said
    last = text.count("\n") + (not text.endswith("\n"))
    position = f", column {column}" if column else ""
    return f"{path}:{line or max(last, 1)}: not TOML{position}: {sentence}"


def _shape_problem(file: File, name: str) -> str | None:
    """The one mistake that TOML invites: a table in place of a list of tables, or the reverse."""
    value = file.content.get(name)
    if name in LISTS and isinstance(value, dict):
        return f"{file.at((name,))}[{name}]: write [[{name}]], once for each of them"
    if name not in LISTS and isinstance(value, list):
        return f"{file.at((name,))}[[{name}]]: write [{name}]; there is only one"
    return None


def read_environment(names: Iterable[str]) -> dict[str, str]:
    """The settings that the environment has; an empty variable is an unset one.

    Paths begin in the working directory here, and not in that of the file.
    """
    texts = {name.upper(): text for name, text in os.environ.items()}
    found = {
        name: texts[PREFIX + name.upper()] for name in names if texts.get(PREFIX + name.upper())
    }
    return found | {name: str(Path(found[name]).absolute()) for name in PATHS if name in found}


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A problem for each variable that looks like a setting and is none."""
    known = [CONFIG, *(PREFIX + name.upper() for name in names)]
    return [
        f"{name}: there is no such setting{did_you_mean(name, known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]
