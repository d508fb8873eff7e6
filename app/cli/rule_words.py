"""What a rule asks of a request, in words."""

from keycache.predicates import Predicate
from keycache.rules import Access, Rule


def asks(rule: Rule) -> str:
    """One line: `a good token of staff; scope reports:read; email_verified is true`."""
    if rule.access is Access.ANONYMOUS:
        return "nothing; a token is not looked at"
    wanted = rule.requirement
    whose = f" of {' or '.join(wanted.issuers)}" if wanted.issuers else ""
    if wanted.all_issuers:
        whose = f" of each of {', '.join(wanted.all_issuers)}"
    optional = "no token, or " if rule.access is Access.OPTIONAL else ""
    words = [f"{optional}a good token{whose}"]
    if rule.sources:
        words.append(f"sent as {' or '.join(rule.sources)}")
    if wanted.scopes:
        words.append(f"scope {' '.join(wanted.scopes)}")
    if wanted.any_scope:
        words.append(f"one of the scopes {', '.join(wanted.any_scope)}")
    words += map(_test, wanted.predicates)
    return "; ".join(words)


def _test(predicate: Predicate) -> str:
    name = predicate.name
    if predicate.present is not None:
        return f"{name} is {'there' if predicate.present else 'absent'}"
    if predicate.one_of is not None:
        return f"{name} is one of {', '.join(map(_value, predicate.one_of))}"
    if predicate.contains is not None:
        return f"{name} holds {_value(predicate.contains)}"
    return f"{name} is {_value(predicate.equals)}"


def _value(value: object) -> str:
    """As TOML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
