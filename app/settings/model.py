"""Settings: what the service is told, read from the environment and the file."""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from app.settings import making
from app.settings.fields import SETTING_NAMES, Fields
from app.settings.judging import contradictions
from app.settings.names import TABLES, Problem
from app.settings.reading import read_environment, read_file, unknown_variables
from app.settings.toml_lines import Place
from app.settings.wording import Wording
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.resource import Resource
from keycache.rules import RuleTable, TokenSource
from keycache.runtime import Options


class Settings(Fields):
    """Everything the service can be told. Make it with `load()`."""

    @classmethod
    def load(cls) -> Self:
        """Read the environment and the file.

        Raises ConfigurationError with every problem: wrong values, names that do not exist, and
        contradictions between the values that are right.
        """
        file = read_file(SETTING_NAMES)
        environment = read_environment(SETTING_NAMES)
        values = {TABLES.get(name, name): value for name, value in file.content.items()}
        from_file = values.keys() - environment.keys()
        values |= environment
        context = {"folder": Path(file.path).absolute().parent, "from_file": from_file}
        wording = Wording(file, from_file)
        problems = [*file.problems, *unknown_variables(SETTING_NAMES)]
        wrong: list[Place] = [(name,) for name in file.broken]
        try:
            settings = cls.model_validate(values, context=context)
        except ValidationError as error:
            problems += [wording.of_error(detail) for detail in error.errors()]
            wrong += [detail["loc"] for detail in error.errors()]
            settings = cls.model_validate(_without(values, wrong), context=context)
        found = _worth_saying(contradictions(settings), wrong)
        problems += map(wording.of_problem, found)
        if problems:
            raise ConfigurationError(wording.in_order(problems))
        return settings

    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers that are trusted."""
        return making.issuers(self)

    def token_sources(self) -> tuple[TokenSource, ...]:
        """Where requests carry tokens."""
        return making.token_sources(self)

    def rules(self) -> RuleTable | None:
        """What is asked of which request; None: a good token, whatever is asked for."""
        return making.rules(self)

    @property
    def resource(self) -> Resource | None:
        """What clients are told about this resource; None: nothing."""
        return making.resource(self)

    def options(
        self, *, redis_url: str | None = None, seal_keys: tuple[bytes, ...] = ()
    ) -> Options:
        """What keycache needs to know. The arguments stand in for settings that are not set."""
        return making.options(self, redis_url=redis_url, seal_keys=seal_keys)


_NEEDED: dict[str, dict[str, str]] = {
    "issuer_tables": {"issuer": ""},
    "rule_tables": {"path": ""},
    "source_tables": {},
}
"""What stands in for a key without which there is no table."""


def _without(values: dict[str, Any], places: Iterable[Place]) -> dict[str, Any]:
    """The values less those at `places`, so that the rest of them can be judged as well."""
    rest = deepcopy(values)
    for place in places:
        match place:
            case (str(table), int(number), str(key), *_):
                rest[table][number].pop(key, None)
                rest[table][number] |= _NEEDED[table] | rest[table][number]
            case (str(table), int(number)):
                rest[table][number] = dict(_NEEDED[table])
            case (str(name), *_):
                rest.pop(name, None)
    return rest


def _worth_saying(problems: Iterable[Problem], wrong: Iterable[Place]) -> list[Problem]:
    """The problems less those with what nobody could read: they say nothing."""
    tables = {str(place[0]) for place in wrong}
    words = {str(place[2] if len(place) > 2 else place[0]) for place in wrong}
    if words & {"issuer_tables", "issuers"}:
        words |= {"issuer", "audience"}
    no_rules = tables & {"rule_tables", "rules", "source_tables", "token_sources"}
    return [
        problem
        for problem in problems
        if not (no_rules and problem.place[:1] == ("rules",))
        and not any(re.search(rf"\b{word}\b", problem.text, re.IGNORECASE) for word in words)
    ]
