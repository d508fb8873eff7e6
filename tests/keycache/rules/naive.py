"""The rules as one would write them without a thought of speed, to compare the fast ones with."""

import re
from functools import lru_cache
from itertools import product

from hypothesis import settings
from hypothesis import strategies as st

from keycache.issuer import Issuer
from keycache.rules import Access, Requirement, Rule

ISSUER = Issuer(issuer="https://one.example", audiences=("api",), name="one")
OTHER = Issuer(issuer="https://other.example", audiences=("api",), name="other")

SMALL = settings(max_examples=60, deadline=None, derandomize=True)
"""For properties that look at every request of every table."""


def matches(rule: Rule, method: str, path: str) -> bool:
    """Whether a rule matches; `path` has one reading."""
    if rule.methods and method not in (*rule.methods, *("HEAD" for _ in rule.methods)):
        return False
    if method == "HEAD" and rule.methods and not {"GET", "HEAD"} & set(rule.methods):
        return False
    return _expression(rule.path).fullmatch(path) is not None


def first(rules: list[Rule], method: str, path: str) -> Rule | None:
    """The first rule that matches."""
    return next((rule for rule in rules if matches(rule, method, path)), None)


@lru_cache
def _expression(path: str) -> re.Pattern[str]:
    parts = ["[^/]+" if part == "*" else re.escape(part) for part in path.split("/")[1:] if part]
    ending = "(/.*)?" if path.endswith("/**") else "/?"
    if path.endswith("/**"):
        parts.pop()
    return re.compile("".join(f"/{part}" for part in parts) + ending)


# Small tables, of which a good part is at odds with itself; and every request that can tell.

NAMES = ["a", "b"]
METHODS = ["GET", "POST", "HEAD"]

PATHS = st.builds(
    lambda parts, end: "/" + "/".join((*parts, *end)),
    st.lists(st.sampled_from([*NAMES, "*"]), max_size=3),
    st.sampled_from([(), (), ("**",)]),
)
RULES = st.builds(
    lambda path, methods, asked: Rule(path=path, methods=methods, **asked),
    PATHS,
    st.sampled_from([(), (), ("GET",), ("POST",), ("GET", "POST"), ("HEAD",)]),
    st.sampled_from(
        [
            {},
            {"access": Access.ANONYMOUS},
            {"requirement": Requirement(scopes=("read",))},
        ]
    ),
)
TABLES = st.lists(RULES, max_size=6)
REQUESTS = [
    (method, "/" + "/".join(parts))
    for length in range(5)
    for parts in product([*NAMES, "other"], repeat=length)
    for method in [*METHODS, "PUT"]
]
"""All paths of up to one segment more than a pattern, of every name and one that no rule has."""
