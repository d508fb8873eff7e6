"""A table of rules chooses by method and path, and no spelling of a path finds a weaker rule."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycache.errors import ConfigurationError, Reason, TokenError
from keycache.rules import Access, Requirement, Rule, RuleTable
from tests.keycache.rules.naive import ISSUER, REQUESTS, SMALL, TABLES, first

ADMIN = Rule(path="/api/admin/**", requirement=Requirement(scopes=("admin",)))
PUBLIC = Rule(path="/api/public/**", access=Access.ANONYMOUS)
REPORTS = Rule(path="/api/sales/*", methods=("GET",), requirement=Requirement(scopes=("read",)))
REST = Rule(path="/api/**")


def table(*rules: Rule) -> RuleTable:
    return RuleTable(rules, issuers=(ISSUER,))


API = table(
    ADMIN,
    PUBLIC,
    REPORTS,
    REST,
)


def chosen(method: str, path: str, rules: RuleTable = API) -> Rule | Reason | None:
    try:
        return rules.choose(method, path)
    except TokenError as error:
        return error.reason


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/api", REST),
        ("GET", "/api/", REST),
        ("GET", "/api/orders/4711", REST),
        ("GET", "/api/admin", ADMIN),
        ("DELETE", "/api/admin/users/7", ADMIN),
        ("GET", "/api/public/logo.png", PUBLIC),
        ("GET", "/api/sales/q1", REPORTS),
        ("HEAD", "/api/sales/q1/", REPORTS),
        ("POST", "/api/sales/q1", REST),
        ("GET", "/api/sales/q1/items", REST),
        ("GET", "/", None),
        ("GET", "/apis", None),
        ("PURGE", "/health", None),
    ],
)
def test_first_rule_that_matches_is_chosen(method: str, path: str, rule: Rule | None) -> None:
    assert rule == chosen(method, path)


def test_table_without_rules_allows_nothing() -> None:
    assert chosen("GET", "/", table()) is None


@pytest.mark.parametrize(
    "path",
    [
        # Each is below /api/public, and /api/admin for somebody.
        *("/api/public/../admin", "/api/public/%2e%2e/admin", "/api/public/..%2fadmin"),
        *("/api/public/..%5cadmin", "/api/public/..\\admin", "/api/public/..;/admin"),
        *("/api/public/%252e%252e/admin", "/api/public/%c0%ae%c0%ae/admin"),
        *("/api/public/x//../../admin", "/api/public/./../admin"),
        # Each is /api/admin, and any other path below /api for somebody.
        *("/api//admin", "/api/%61dmin", "/api/%2561dmin", "/api/./admin", "/api/admin;v=1"),
        *(
            "/api/admin%00",
            "/api/admin%00.html",
            "/api/ad%0amin",
            "/api/admin%3fx",
            "/api/admin%23",
        ),
        *("/api/ADMIN", "/api/Admin/users", "/API/admin", "/api/%41DMIN", "/api\\admin"),
        *("/api;x/admin", "/api/admin%2fusers", "/api/\u212a"),
    ],
)
def test_path_with_two_readings_that_differ_is_refused_or_judged_alike(path: str) -> None:
    assert chosen("GET", path) in (Reason.AMBIGUOUS_PATH, ADMIN, REST)
    assert Access.ANONYMOUS is not getattr(chosen("GET", path), "access", None)


@pytest.mark.parametrize("path", ["*", "api/admin", "api:443", "https://a.example/api"])
def test_target_that_is_no_path_finds_no_rule(path: str) -> None:
    # RFC 9112 section 3.2: what is not in origin form has no path of ours.
    assert chosen("GET", path, table(REST, Rule(path="/**", access=Access.ANONYMOUS))) in (
        None,
        Reason.AMBIGUOUS_PATH,
    )


def test_empty_path_is_that_of_the_root() -> None:
    # RFC 9110 section 4.2.3.
    rules = table(Rule(path="/"))

    assert chosen("GET", "/", rules) == chosen("GET", "", rules)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/api/files/hello%20world.pdf", REST),
        ("/api/files/caf%C3%A9", REST),
        ("/api/files/a%2fb", REST),
        ("/api/files/100%25", REST),
        ("/api/files/A-Z", REST),
        ("/api/files//a/./b", REST),
        ("/api/files/a;v=1", REST),
        ("/api/public/a%20b", PUBLIC),
        ("/api/public/x/../y", PUBLIC),
        ("/api/admin/%2e/x", ADMIN),
    ],
)
def test_odd_path_whose_readings_agree_is_judged_as_any_other(path: str, rule: Rule) -> None:
    assert rule == chosen("GET", path)


@pytest.mark.parametrize(
    ("method", "reason"), [("get", Reason.AMBIGUOUS_PATH), ("Get", Reason.AMBIGUOUS_PATH)]
)
def test_method_in_lower_case_is_no_way_round(method: str, reason: Reason) -> None:
    rules = table(Rule(path="/a", methods=("GET",)), Rule(path="/a", access=Access.ANONYMOUS))

    assert reason is chosen(method, "/a", rules)


def test_rule_with_capitals_is_for_that_case_and_no_other_is_anything() -> None:
    rules = table(Rule(path="/Orders"), Rule(path="/**", access=Access.ANONYMOUS))

    assert [rules.rules[0], Reason.AMBIGUOUS_PATH, Reason.AMBIGUOUS_PATH, rules.rules[1]] == [
        chosen("GET", path, rules) for path in ("/Orders", "/orders", "/ORDERS", "/other")
    ]


# No spelling of a path is a way round


def _mixed(segment: str) -> str:
    return "".join(char.upper() if place % 2 else char for place, char in enumerate(segment))


def _escaped(text: str) -> str:
    return "".join(f"%{ord(char):02x}" for char in text)


SPELLINGS: list[Callable[[str], str]] = [
    lambda path: path.replace("/", "//"),
    lambda path: path.replace("/", "/./"),
    lambda path: path.replace("/", "/%2e/"),
    lambda path: path.replace("/", "/x/../"),
    lambda path: path.replace("/", "/x/..;/"),
    lambda path: path.replace("/", "/x/%2e%2e/"),
    lambda path: path.replace("/", "/x/%252e%252e/"),
    lambda path: "/x" + "/.." + path,
    lambda path: "/b/x/%2e%2e/.." + path,
    lambda path: path + "/",
    lambda path: path + "/.",
    lambda path: path + "/x/..",
    lambda path: path + ";x=1",
    lambda path: path.replace("/", ";x/").removeprefix(";x"),
    lambda path: path + "%00",
    lambda path: path + "%00x",
    lambda path: path + "%3f",
    lambda path: path + "%23",
    lambda path: path + "#/../c",
    lambda path: path.replace("/", "\\").replace("\\", "/", 1),
    lambda path: path.replace("/", "%5c").replace("%5c", "/", 1),
    lambda path: path.replace("/", "%2f").replace("%2f", "/", 1),
    lambda path: path.replace("/", "%252f").replace("%252f", "/", 1),
    lambda path: path.replace("/", "%c0%af").replace("%c0%af", "/", 1),
    lambda path: "/" + _escaped(path[1:]),
    lambda path: "/" + quote(_escaped(path[1:])),
    lambda path: "/" + "%0a".join(path[1:]),
    str.upper,
    _mixed,
]
"""What somebody undoes when he reads a path."""


def _whole(rules: list[Rule]) -> RuleTable | None:
    try:
        return table(*rules)
    except ConfigurationError:
        return None


WHOLE = TABLES.map(_whole).filter(bool)


@SMALL
@given(WHOLE, st.data())
def test_no_spelling_of_a_path_finds_another_rule(rules: RuleTable, data: st.DataObject) -> None:
    for method, path in REQUESTS[:: data.draw(st.integers(25, 80))]:
        spell = data.draw(st.sampled_from(SPELLINGS))
        again = data.draw(st.sampled_from([str.strip, *SPELLINGS]))

        assert chosen(method, again(spell(path)), rules) in (
            rules.choose(method, path),
            Reason.AMBIGUOUS_PATH,
        )


@SMALL
@given(WHOLE)
def test_table_chooses_what_a_scan_of_all_rules_finds_first(rules: RuleTable) -> None:
    for method, path in REQUESTS:
        assert first(list(rules.rules), method, path) == rules.choose(method, path)


@given(st.text() | st.text("/ab.%2ef;\\", max_size=20).map("/api/".__add__), st.text(max_size=4))
def test_whatever_the_request_a_rule_is_chosen_or_none_or_it_is_refused(
    path: str, method: str
) -> None:
    assert chosen(method, path) in (*API.rules, None, Reason.AMBIGUOUS_PATH)
