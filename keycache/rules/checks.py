"""What is wrong with rules: with one by itself, and with the order of several."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches

from keycache.errors import ConfigurationError
from keycache.rules.patterns import Pattern, parse_pattern
from keycache.rules.values import Access, Rule, TokenSource

Methods = frozenset[str]
First = Callable[[str, str], int]

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")  # a token (RFC 9110 section 9.1)
_OTHER = ""  # stands for the methods that no rule names


def source_problems(sources: Sequence[TokenSource]) -> list[str]:
    """What is wrong with the token sources; one sentence for each problem."""
    names = [source.name for source in sources]
    problems = [
        f"token source {name}: this name is given twice"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    return problems if sources else ["token sources: there must be at least one"]


def rule_problems(
    rule: Rule, issuers: Sequence[str], sources: Sequence[TokenSource]
) -> Iterator[str]:
    """What is wrong with a rule by itself. issuers: the names of those that are trusted."""
    try:
        parse_pattern(rule.path)
    except ConfigurationError as error:
        yield from error.problems
    wrong = [method for method in rule.methods if not _METHOD.fullmatch(method)]
    if wrong:
        yield f"methods: {', '.join(map(repr, wrong))} is no method; they are in upper case"
    asked = rule.requirement
    yield from _unknown("issuer", (*asked.issuers, *asked.all_issuers), issuers)
    yield from _unknown("token source", rule.sources, [source.name for source in sources])
    if rule.access is Access.ANONYMOUS and not (asked.is_empty and not rule.sources):
        yield "anonymous: no token is looked at, so nothing can be asked of it; leave that out"
    if rule.access is Access.OPTIONAL and any(
        (asked.all_issuers, asked.scopes, asked.any_scope, asked.claims)
    ):
        yield (
            "optional: whoever sends no token gets in, so scopes, claims and all_issuers would"
            " keep out nobody; leave them out, or require a token"
        )
    room = len(set(rule.sources)) or len(sources)
    if asked.all_issuers and len(asked.all_issuers) > room:
        yield (
            f"all_issuers: {len(asked.all_issuers)} tokens need as many token sources, and there"
            f" {'is' if room == 1 else 'are'} {room}"
        )


def order_problems(rules: Sequence[Rule], patterns: Sequence[Pattern], first: First) -> list[str]:
    """What is wrong with the order of rules. first: which number they choose, by method and path.

    A rule must be reachable. Of two rules that ask for different things of the same request, the
    earlier must have the narrower path (or the same path and fewer methods), so that it is an
    exception from the later one; or a rule before both must decide about all they share.
    """
    named = frozenset(method for rule in rules for method in rule.all_methods)
    methods = [rule.all_methods or named | {_OTHER} for rule in rules]
    depth = max((len(pattern.parts) for pattern in patterns), default=0)

    def chosen(pattern: Pattern, of: Methods) -> Iterator[int]:
        return (first(method, path) for method in of for path in pattern.samples(depth))

    problems = []
    reachable = []
    for later, pattern in enumerate(patterns):
        if later in chosen(pattern, methods[later]):
            reachable.append(later)
        else:
            covering = sorted(set(chosen(pattern, methods[later])))
            problems.append(_unreachable(rules, patterns, later, covering))
    for place, later in enumerate(reachable):
        for earlier in reachable[:place]:
            one, other = patterns[earlier], patterns[later]
            shared = methods[earlier] & methods[later]
            both = one.meet(other)
            if (
                both is None
                or not shared
                or rules[earlier].asks == rules[later].asks
                or _is_exception(one, other, fewer=methods[earlier] <= methods[later])
                or earlier not in chosen(both, shared)
            ):
                continue
            what = f"{both}" if shared > named else f"{_listed(shared)} {both}"
            narrower = one.covers(other) and one != other
            problems.append(_overlap(rules, earlier, later, what, swap=narrower))
    return problems


def _listed(methods: Methods) -> str:
    """Methods as a rule writes them: GET includes HEAD."""
    return ",".join(sorted(methods - {"HEAD"} if "GET" in methods else methods))


def _is_exception(one: Pattern, other: Pattern, *, fewer: bool) -> bool:
    return other.covers(one) and (one != other or fewer)


def _unreachable(
    rules: Sequence[Rule], patterns: Sequence[Pattern], later: int, covering: Sequence[int]
) -> str:
    start = f"{_named(rules, later)} can never be reached: "
    before = covering[0]
    if len(covering) > 1:
        by = ", ".join(_named(rules, number) for number in covering)
        return f"{start}{by} together cover it; put it before rule {before + 1}, or remove it"
    same = patterns[before] == patterns[later] and rules[before].all_methods == (
        rules[later].all_methods
    )
    remedy = "remove one of them" if same else f"put it before rule {before + 1}"
    return f"{start}{_named(rules, before)} covers it; {remedy}"


def _overlap(rules: Sequence[Rule], earlier: int, later: int, what: str, *, swap: bool) -> str:
    remedy = (
        f"put rule {later + 1}, whose path is the narrower one, before rule {earlier + 1}"
        if swap
        else f"put a rule for {what} before rule {earlier + 1}, that says what is meant"
    )
    return (
        f"{_named(rules, earlier)} and {_named(rules, later)} both match {what}, and ask for "
        f"different things; {remedy}"
    )


def _named(rules: Sequence[Rule], number: int) -> str:
    return f"rule {number + 1} ({rules[number]})"


def _unknown(kind: str, names: Iterable[str], known: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}"
            yield f"{name!r} is the name of no {kind}; {hint}"
