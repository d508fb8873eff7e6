"""Predicates: what a claim must be, as a path into the claims and one test of what is there.

A path is written as its names with dots between them (`realm_access.roles`), or as a JSON Pointer
(RFC 6901) that begins with a slash, for names that hold dots themselves
(`/https:~1~1example.com~1roles`). It leads through objects only: which place something has in a
list says nothing about who somebody is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import NoneType

from keycache.errors import ConfigurationError

Scalar = str | int | float | bool
"""What a claim is compared with. `null` is none: a claim that is null is taken as absent."""

ClaimPath = tuple[str, ...]

_TESTS = ("equals", "one_of", "contains", "present")
_NAMED = ", ".join(_TESTS)


def claim_path(text: str) -> ClaimPath:
    """The names that lead to a claim. Raises ConfigurationError for what is no path."""
    if not text.startswith("/"):
        names = tuple(text.split("."))
        if not all(names):
            raise ConfigurationError(
                [f"{text!r} is no path of a claim: it is a name, or names with dots between them"]
            )
        return names
    if "~" in text.replace("~0", "").replace("~1", ""):
        raise ConfigurationError(
            [f"{text!r} is no JSON Pointer: write ~0 for ~ and ~1 for / within a name"]
        )
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def written(path: ClaimPath) -> str:
    """A path as it is written: with dots where that is possible, as a JSON Pointer elsewhere."""
    if all(name and "." not in name for name in path) and not path[0].startswith("/"):
        return ".".join(path)
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


def look_up(claims: Mapping[str, object], path: ClaimPath) -> object | None:
    """What stands at a path of the claims; None when nothing, or null, does."""
    found: object = claims
    for name in path:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """One test of one claim.

    path: the names that lead to it, see `claim_path`.
    equals: it is this value. one_of: it is one of these values. contains: it is a list that holds
        this value, or a string of words separated by spaces of which this is one. present: it is
        there, or (False) it is not. Exactly one of the four is given.

    Values are compared as JSON has them (RFC 8259): `true` is not `1`, `"1"` is not `1`, and `1.0`
    is `1`. Raises ConfigurationError, with every problem.
    """

    path: ClaimPath
    equals: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = None
    contains: Scalar | None = None
    present: bool | None = None

    def __post_init__(self) -> None:
        problems: list[str] = []
        given = [test for test in _TESTS if getattr(self, test) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            problems.append(f"give exactly one of {_NAMED}; given: {said}")
        if self.one_of == ():
            problems.append("one_of: must be a list of at least one value")
        if not all(_is_scalar(value) for value in self._values()):
            problems.append("a value must be a string, a number, true or false")
        if self.contains == "":
            problems.append("contains: is empty")
        if type(self.present) not in (bool, NoneType):
            problems.append("present: must be true or false")
        if problems:
            raise ConfigurationError([f"claim {self.name}: {problem}" for problem in problems])

    @property
    def name(self) -> str:
        """The path as it is written."""
        return written(self.path)

    def holds(self, claims: Mapping[str, object]) -> bool:
        """Whether these claims pass the test. What has the wrong type does not."""
        found = look_up(claims, self.path)
        if self.present is not None:
            return (found is not None) is self.present
        if self.contains is None:
            return any(_same(found, value) for value in self._values())
        if isinstance(found, str):
            return self.contains in found.split(" ") if isinstance(self.contains, str) else False
        return isinstance(found, list | tuple) and any(_same(self.contains, it) for it in found)

    def _values(self) -> tuple[Scalar, ...]:
        if self.one_of is not None:
            return self.one_of
        return tuple(value for value in (self.equals, self.contains) if value is not None)


def predicates(mapping: Mapping[str, object]) -> tuple[Predicate, ...]:
    """The predicates of the short form that code and TOML use: a path, and a value that the claim
    must equal or a table with the one test of it.

        {"tenant": "acme", "email_verified": True, "realm_access.roles": {"contains": "admin"},
         "plan": {"one_of": ["pro", "team"]}, "act": {"present": False}}

    Raises ConfigurationError, with every problem.
    """
    found: list[Predicate] = []
    problems: list[str] = []
    for text, wanted in mapping.items():
        try:
            found.append(_predicate(text, wanted))
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return tuple(found)


def _predicate(text: str, wanted: object) -> Predicate:
    path = claim_path(text)
    if not isinstance(wanted, Mapping):
        if not _is_scalar(wanted):
            problem = f"must be a string, a number, true or false, or a table with one of {_NAMED}"
            raise ConfigurationError([f"claim {text}: {problem}"])
        return Predicate(path=path, equals=wanted)  # type: ignore[arg-type] # just checked
    unknown = [str(test) for test in wanted if test not in _TESTS]
    if unknown:
        raise ConfigurationError(
            [f"claim {text}: {', '.join(unknown)} is no test; choose from {_NAMED}"]
        )
    tests = dict(wanted)
    if "one_of" in tests:
        if not isinstance(tests["one_of"], list | tuple):
            raise ConfigurationError([f"claim {text}: one_of: must be a list"])
        tests["one_of"] = tuple(tests["one_of"])
    return Predicate(path=path, **tests)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))


def _same(one: object, other: object) -> bool:
    """Whether two JSON values are the same scalar; Python alone would say that True is 1."""
    return isinstance(one, bool) is isinstance(other, bool) and one == other
