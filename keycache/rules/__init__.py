"""Rules: which requests need which token, by method and path; the first that matches decides."""

from keycache.rules.table import RuleTable
from keycache.rules.values import (
    AUTHORIZATION,
    NOTHING_MORE,
    Access,
    Requirement,
    Rule,
    TokenSource,
)

__all__ = [
    "AUTHORIZATION",
    "NOTHING_MORE",
    "Access",
    "Requirement",
    "Rule",
    "RuleTable",
    "TokenSource",
]
