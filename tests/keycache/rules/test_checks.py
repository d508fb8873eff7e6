"""What a table of rules cannot mean is refused when it is made, with a remedy for each problem."""

import pytest
from hypothesis import given

from keycache.errors import ConfigurationError
from keycache.rules import AUTHORIZATION, Access, Requirement, Rule, RuleTable, TokenSource
from keycache.rules.patterns import parse_pattern
from tests.keycache.rules.naive import ISSUER, OTHER, REQUESTS, SMALL, TABLES, first, matches

READ = Requirement(scopes=("read",))
ADMIN = Requirement(scopes=("admin",))
CLOUDFLARE = TokenSource(header="cf-access-jwt-assertion", name="cloudflare")


def problems(*rules: Rule, sources: tuple[TokenSource, ...] = (AUTHORIZATION,)) -> tuple[str, ...]:
    """What is wrong with these rules; nothing, when the table can be made."""
    try:
        RuleTable(rules, issuers=(ISSUER, OTHER), sources=sources)
    except ConfigurationError as error:
        return error.problems
    return ()


# A rule by itself


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(path="orders"), "a path begins with /"),
        (Rule(path="/", methods=("get",)), "methods: 'get' is no method; they are in upper case"),
        (Rule(path="/", methods=("GET", "")), "methods: '' is no method"),
        (Rule(path="/", methods=("GET POST",)), "methods: 'GET POST' is no method"),
        (
            Rule(path="/", requirement=Requirement(issuers=("oen",))),
            "'oen' is the name of no issuer; did you mean one?",
        ),
        (
            Rule(path="/", requirement=Requirement(issuers=("x",))),
            "'x' is the name of no issuer; there is one, other",
        ),
        (
            Rule(path="/", sources=("authorisation",)),
            "'authorisation' is the name of no token source; did you mean authorization?",
        ),
        (
            Rule(path="/", access=Access.ANONYMOUS, requirement=READ),
            "anonymous: no token is looked at",
        ),
        (
            Rule(path="/", access=Access.ANONYMOUS, sources=("authorization",)),
            "anonymous: no token is looked at",
        ),
        (
            Rule(path="/", access=Access.OPTIONAL, requirement=READ),
            "optional: whoever sends no token gets in",
        ),
        (
            Rule(path="/", access=Access.OPTIONAL, requirement=Requirement(claims={"a": 1})),
            "optional: whoever sends no token gets in",
        ),
        (
            Rule(path="/", requirement=Requirement(all_issuers=("one", "other"))),
            "all_issuers: 2 tokens need as many token sources, and there is 1",
        ),
    ],
)
def test_rule_that_cannot_be_is_refused_by_number_and_path(rule: Rule, said: str) -> None:
    (problem,) = problems(Rule(path="/first"), rule)

    assert problem.startswith(f"rule 2 ({rule}): ")
    assert said in problem


@pytest.mark.parametrize(
    "rule",
    [
        Rule(path="/", access=Access.OPTIONAL, requirement=Requirement(issuers=("one",))),
        Rule(path="/", access=Access.OPTIONAL, sources=("cloudflare",)),
        Rule(path="/", requirement=Requirement(all_issuers=("one", "other"))),
        Rule(path="/", methods=("M-SEARCH", "GET")),
    ],
)
def test_rule_that_can_be_is_good(rule: Rule) -> None:
    assert () == problems(rule, sources=(AUTHORIZATION, CLOUDFLARE))


def test_token_sources_have_names_of_their_own() -> None:
    assert ("token source authorization: this name is given twice",) == problems(
        sources=(AUTHORIZATION, TokenSource(header="Authorization", prefix="DPoP"))
    )


def test_there_is_a_token_source() -> None:
    assert ("token sources: there must be at least one",) == problems(sources=())


def test_problems_of_all_rules_are_said_at_once() -> None:
    rules = (Rule(path="a"), Rule(path="/b", sources=("x",)), Rule(path="/c", methods=("get",)))

    assert ["rule 1", "rule 2", "rule 3"] == [problem[:6] for problem in problems(*rules)]


# Rules that no request can reach


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            (
                Rule(path="/api/**"),
                Rule(path="/other"),
                Rule(path="/api/users", methods=("GET",), requirement=READ),
            ),
            (
                "rule 3 (GET /api/users) can never be reached: rule 1 (/api/**) covers it;"
                " put it before rule 1"
            ),
        ),
        (
            (Rule(path="/a"), Rule(path="/a/")),
            "rule 2 (/a/) can never be reached: rule 1 (/a) covers it; remove one of them",
        ),
        (
            (Rule(path="/a", methods=("GET",)), Rule(path="/a", methods=("HEAD",))),
            (
                "rule 2 (HEAD /a) can never be reached: rule 1 (GET /a) covers it;"
                " put it before rule 1"
            ),
        ),
        (
            (Rule(path="/a/*"), Rule(path="/A/b")),
            "rule 2 (/A/b) can never be reached: rule 1 (/a/*) covers it; put it before rule 1",
        ),
        (
            (
                Rule(path="/a", methods=("GET",)),
                Rule(path="/a", methods=("POST",)),
                Rule(path="/a", methods=("POST", "HEAD")),
            ),
            (
                "rule 3 (POST,HEAD /a) can never be reached: rule 1 (GET /a), rule 2 (POST /a)"
                " together cover it; put it before rule 1, or remove it"
            ),
        ),
        (
            (
                Rule(path="/a"),
                Rule(path="/a/*"),
                Rule(path="/a/*/**"),
                Rule(path="/a/**"),
            ),
            (
                "rule 4 (/a/**) can never be reached: rule 1 (/a), rule 2 (/a/*), rule 3 (/a/*/**)"
                " together cover it; put it before rule 1, or remove it"
            ),
        ),
    ],
)
def test_rule_that_no_request_can_reach_is_refused(rules: tuple[Rule, ...], said: str) -> None:
    assert (said,) == problems(*rules)


# Rules at odds


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            (Rule(path="/a/*"), Rule(path="/*/b", requirement=READ)),
            (
                "rule 1 (/a/*) and rule 2 (/*/b) both match /a/b, and ask for different things;"
                " put a rule for /a/b before rule 1, that says what is meant"
            ),
        ),
        (
            (
                Rule(path="/api/**", methods=("GET",), access=Access.ANONYMOUS),
                Rule(path="/api/admin/**", requirement=ADMIN),
            ),
            (
                "rule 1 (GET /api/**) and rule 2 (/api/admin/**) both match GET /api/admin/**,"
                " and ask for different things; put rule 2, whose path is the narrower one, before"
                " rule 1"
            ),
        ),
        (
            (
                Rule(path="/a", methods=("GET", "POST")),
                Rule(path="/a", methods=("POST", "PUT"), requirement=READ),
            ),
            (
                "rule 1 (GET,POST /a) and rule 2 (POST,PUT /a) both match POST /a, and ask for"
                " different things; put a rule for POST /a before rule 1, that says what is meant"
            ),
        ),
        (
            (Rule(path="/*/b/**"), Rule(path="/a/**", requirement=READ)),
            (
                "rule 1 (/*/b/**) and rule 2 (/a/**) both match /a/b/**, and ask for different"
                " things; put a rule for /a/b/** before rule 1, that says what is meant"
            ),
        ),
    ],
)
def test_rules_whose_order_alone_decides_are_refused(rules: tuple[Rule, ...], said: str) -> None:
    assert (said,) == problems(*rules)


@pytest.mark.parametrize(
    "rules",
    [
        # The narrower path first is an exception.
        (Rule(path="/api/admin/**", requirement=ADMIN), Rule(path="/api/**")),
        (
            Rule(path="/api/admin/**", requirement=ADMIN),
            Rule(path="/api/**", methods=("GET",), requirement=READ),
            Rule(path="/api/**", requirement=Requirement(scopes=("write",))),
            Rule(path="/**", access=Access.ANONYMOUS),
        ),
        # They mean the same.
        (Rule(path="/a/*"), Rule(path="/*/b")),
        # They have no request in common.
        (
            Rule(path="/a/*", methods=("GET",)),
            Rule(path="/*/b", methods=("PUT",), requirement=READ),
        ),
        (Rule(path="/a/*"), Rule(path="/*/b/c", requirement=READ)),
        # A rule before both says what is meant.
        (Rule(path="/a/b"), Rule(path="/a/*"), Rule(path="/*/b", requirement=READ)),
        (
            Rule(path="/a/b/**", requirement=ADMIN),
            Rule(path="/*/b/**"),
            Rule(path="/a/**", requirement=READ),
        ),
    ],
)
def test_rules_in_good_order_are_good(rules: tuple[Rule, ...]) -> None:
    assert () == problems(*rules)


def _unreachable(rules: list[Rule]) -> set[int]:
    reached = {id(first(rules, method, path)) for method, path in REQUESTS}
    return {number for number, rule in enumerate(rules, 1) if id(rule) not in reached}


def _at_odds(rules: list[Rule]) -> set[tuple[int, int]]:
    """The rules of which the earlier decides a request that the later would have decided
    otherwise, and is no exception from it.
    """
    found = set()
    for method, path in REQUESTS:
        decides, *others = [
            number for number, rule in enumerate(rules, 1) if matches(rule, method, path)
        ] or [0]
        for other in others:
            one, two = rules[decides - 1], rules[other - 1]
            narrow, wide = parse_pattern(one.path), parse_pattern(two.path)
            fewer = (
                not two.all_methods
                or 0
                < len(one.all_methods | two.all_methods)
                == len(two.all_methods)
                >= len(one.all_methods)
                > 0
            )
            exception = wide.covers(narrow) and (narrow != wide or fewer)
            if one.asks != two.asks and not exception:
                found.add((decides, other))
    return found


@SMALL
@given(TABLES)
def test_rule_is_refused_as_unreachable_exactly_when_no_request_reaches_it(
    rules: list[Rule],
) -> None:
    said = {int(problem.split()[1]) for problem in problems(*rules) if "never be" in problem}

    assert _unreachable(rules) == said


@SMALL
@given(TABLES)
def test_two_rules_are_refused_exactly_when_their_order_alone_decides_a_request(
    rules: list[Rule],
) -> None:
    words = [problem.split() for problem in problems(*rules) if "both match" in problem]
    said = {(int(text[1]), int(text[text.index("and") + 2])) for text in words}
    unreachable = _unreachable(rules)

    assert {pair for pair in _at_odds(rules) if not unreachable & set(pair)} == said
