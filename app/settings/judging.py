"""What of the settings cannot hold together, beyond what is wrong by itself."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from app.settings import making
from app.settings.fields import Fields
from app.settings.names import Problem
from app.settings.toml_lines import Place
from keycache.core.freshness import Lifetimes
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer, url_problems

HEADER_BYTES = 16384
"""The most that Sanic reads as the head of a request (its HEADER_CEILING)."""


def contradictions(fields: Fields) -> list[Problem]:
    """Every problem, in the order in which a reader of the file would look for them."""
    problems = _issuer_problems(fields) + _table_problems(fields)
    if not any(problem.place[:1] in _RULES_NEED for problem in problems):
        problems += _rule_problems(fields)
    problems += _number_problems(fields)
    if fields.rule_tables and not fields.trusted_proxies:
        text = "trusted_proxies: there are rules; name the networks of the proxies that ask by them"
        problems.append(Problem((), text))
    if fields.port == fields.admin_port != 0 and fields.host == fields.admin_host:
        text = f"admin_port: PORT and ADMIN_PORT are both {fields.port}; change one"
        problems.append(Problem((), text))
    if fields.revocation and fields.redis_url is None:
        text = "revocation: needs a Redis that `keycache revoke` can reach too; set REDIS_URL"
        problems.append(Problem((), text))
    if fields.token_bytes > HEADER_BYTES // 2:
        text = (
            f"token_bytes: TOKEN_BYTES ({fields.token_bytes}) leaves too little of the"
            f" {HEADER_BYTES} bytes that a request's head may have; at most {HEADER_BYTES // 2}"
        )
        problems.append(Problem((), text))
    return problems


_RULES_NEED = {(), ("issuers",), ("token_sources",), ("rules",)}
"""Where no problem may be before rules can be judged: what they name must be in order."""


def _issuer_problems(fields: Fields) -> list[Problem]:
    if not fields.issuer_tables:
        if fields.issuer:
            return _problems_of(lambda: making.issuers(fields))
        missing = {"issuer": "the exact `iss` of your tokens, as in https://id.example.com"}
        if not fields.audience:
            missing["audience"] = "what `aud` of your tokens calls this service"
        return [Problem((), f"{key}: not set; it is {what}") for key, what in missing.items()]
    problems = [
        Problem((), f"{name}: set beside [[issuers]] tables; name it there or here")
        for name in ("issuer", "jwks_url", "jwks_file")
        if getattr(fields, name)
    ]
    made: dict[int, Issuer] = {}
    for number, entry in enumerate(fields.issuer_tables):
        try:
            made[number] = making.issuer(entry, fields)
        except ConfigurationError as error:
            problems += [Problem(("issuers", number), text) for text in error.problems]
    return problems + [
        Problem(("issuers", number), f"{what}: {value!r} is that of table {first + 1} too")
        for what in ("name", "issuer")
        for number, first, value in _twice({n: getattr(made[n], what) for n in made})
    ]


def _table_problems(fields: Fields) -> list[Problem]:
    sources = _problems_in("token_sources", making.token_source, fields.source_tables)
    if not sources:
        names = {n: source.name for n, source in enumerate(making.token_sources(fields))}
        sources = [
            Problem(("token_sources", number), f"name: {name!r} is that of table {first + 1} too")
            for number, first, name in _twice(names)
        ]
    problems = sources + _problems_in("rules", making.rule, fields.rule_tables)
    problems += _problems_of(lambda: making.resource(fields), ("resource",))
    if fields.internal_token is not None:
        texts = url_problems("issuer", fields.internal_token.issuer)
        if fields.internal_token.header.lower() in (
            h.name.lower() for h in fields.identity_headers
        ):
            texts.append(f"header: {fields.internal_token.header} is one of [identity_headers] too")
        problems += [Problem(("internal_token",), text) for text in texts]
    return problems


def _rule_problems(fields: Fields) -> list[Problem]:
    """What the rules cannot mean together; each sentence begins with the number of its rule."""
    problems = []
    for _, text in _problems_of(lambda: making.rules(fields)):
        named = re.match(r"rule (\d+)\b", text)
        problems.append(Problem(("rules", int(named[1]) - 1) if named else ("rules",), text))
    return problems


def _number_problems(fields: Fields) -> list[Problem]:
    lifetimes = _problems_of(lambda: making.lifetimes(fields))
    limits = _problems_of(lambda: making.limits(fields))
    # Options are made from both; a stand-in lets the rest of them be judged as well.
    stand_in = [*(Lifetimes.__slots__ if lifetimes else ())]
    stand_in += ["budget", "budget_refill", "backoff_min", "backoff_max"] if limits else []
    judged = fields.model_copy(
        update={name: Fields.model_fields[name].default for name in stand_in}
    )
    return lifetimes + limits + _problems_of(lambda: making.options(judged))


def _problems_of(make: Callable[[], object], place: Place = ()) -> list[Problem]:
    try:
        make()
    except ConfigurationError as error:
        return [Problem(place, text) for text in error.problems]
    return []


def _problems_in(
    table: str, make: Callable[[Any], object], entries: Iterable[object]
) -> list[Problem]:
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        problems += _problems_of(lambda entry=entry: make(entry), (table, number))  # type: ignore[misc] # bound at once
    return problems


def _twice(values: dict[int, str]) -> list[tuple[int, int, str]]:
    """(number, number of the first, value) of each value that a lower number has too."""
    first: dict[str, int] = {}
    return [
        (number, first[value], value)
        for number, value in values.items()
        if first.setdefault(value, number) != number
    ]
