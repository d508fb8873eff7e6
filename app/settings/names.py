"""What settings are called: in the environment, in the file, and in our own code."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from app.settings.toml_lines import Place

PREFIX = "KEYCACHE_"
CONFIG = "KEYCACHE_CONFIG"

TABLES = {
    "issuers": "issuer_tables",
    "rules": "rule_tables",
    "token_sources": "source_tables",
    "identity_headers": "identity_headers",
    "internal_token": "internal_token",
    "resource": "resource_table",
}
"""The tables of the file, which no environment variable can hold, and their fields in Settings."""

LISTS = ("issuers", "rules", "token_sources")
"""Those that are written `[[…]]`, once for each issuer, rule or source."""

SECRETS = ("redis_url", "seal_keys", "headers", "proxy", "keys")
"""Keys whose values no message may repeat."""

PATHS = ("jwks_file", "ca_bundle", "client_certificate", "client_key", "snapshot", "control")
"""Settings of the top level that are paths."""


class Problem(NamedTuple):
    """What is wrong, and in which table of the file: `("rules", 2)`, or `()` for the top level.

    `text` begins with the key, if one can be named: `leeway: 301 s is not within 0 … 300 s`.
    """

    place: Place
    text: str


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean TTL?` when a known name is close, else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
