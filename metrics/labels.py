"""The values a label may have: closed lists, so that nobody can make series by sending text."""

from collections.abc import Collection
from enum import StrEnum

UNKNOWN = "unknown"
"""The issuer of a token that names none of ours, or that was refused before its issuer was read."""

OTHER = "other"
"""What stands for a value outside its list: a newer keycache, or an issuer nobody configured."""


TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
"""The reason of an answer 503, which is no fault of the token's."""


class Outcome(StrEnum):
    """What became of a presented token."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


class Stage(StrEnum):
    """What a verification does, in this order; the fields of `keycache.events.Staged`."""

    PARSE = "parse"
    KEY = "key"
    SIGNATURE = "signature"
    CLAIMS = "claims"


STATUSES = ("200", "304", "3xx", "4xx", "5xx", "none", OTHER)
"""What an issuer answered; `none`: no answer at all. 304 is apart because it is a success."""


def status(code: int) -> str:
    """The label of an HTTP status; 0 stands for no answer."""
    if code == 0:
        return "none"
    if code in (200, 304):
        return str(code)
    return known(f"{code // 100}xx", STATUSES)


def known(value: str, allowed: Collection[str]) -> str:
    """`value` if it is in its list, else `other`."""
    return value if value in allowed else OTHER
