"""Claims: what a verified token says, and the checks it must pass, claim by claim.

A claim of the wrong JSON type is refused, never treated as absent (compare GHSA-h395-gr6q-cpjc,
where an `exp` that was a string switched the check off).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from keycache.core.strict_json import FrozenObject, freeze_inside
from keycache.core.token import Header
from keycache.errors import Reason, TokenError
from keycache.issuer import Issuer
from keycache.predicates import ClaimPath, look_up

LATEST = 253402300799  # the end of the year 9999: later is a mistake, often milliseconds
_ALWAYS = float("-inf")
_STRINGS = ("sub", "jti", "client_id")  # RFC 7519 sections 4.1.2, 4.1.7; RFC 8693 section 4.3


class Claims(FrozenObject):
    """The claims of a verified token: a dict that cannot be changed, however deep.

    It is handed to every request that carries the same token, so a handler that wrote into it would
    write into other requests. `dict(claims)` is a copy that may be changed at its top level; lists
    have become tuples.

    note: for an application that makes the same of the same claims each time: what it has made, to
        be found again with them for as long as they are kept. No claim, and not there at first.
    """

    __slots__ = ("note",)

    note: object


def freeze(payload: dict[str, Any]) -> Claims:
    """A payload, as `strict_json` reads it, as Claims; what it holds is frozen where it is."""
    freeze_inside(payload)
    return Claims(payload)


class Validity(msgspec.Struct, frozen=True, gc=False):
    """When a token may be used: from `starts` to just before `ends`, leeway included."""

    starts: float
    ends: float


def check_claims(
    header: Header, payload: Mapping[str, object], issuer: Issuer, now: float
) -> Validity:
    """Check everything a token says against the policy of its issuer; `iss` is known to match.

    Raises TokenError: wrong_type, missing_claim, invalid_claim, wrong_audience, expired,
    not_yet_valid.
    """
    if header.typ not in issuer.types:  # RFC 8725 section 3.11: made for another purpose
        raise TokenError(Reason.WRONG_TYPE, "The typ in the header is not accepted here.")
    for name in issuer.required_claims:
        if payload.get(name) is None:
            raise _missing(name)
    audience = payload["aud"]
    if type(audience) is not str:
        _check_audiences(audience, issuer)
    elif audience not in issuer.audience_set:
        raise _other_audience()
    for name in _STRINGS:
        if type(payload.get(name, "")) is not str:
            raise _invalid(f"The claim {name} is not a string.")
    validity = check_times(payload, issuer.leeway, now)
    if issuer.predicates or issuer.max_lifetime is not None:
        _check_wishes(payload, issuer)
    return validity


def check_times(payload: Mapping[str, Any], leeway: float, now: float) -> Validity:
    """RFC 7519 sections 4.1.4 to 4.1.6: exp, nbf and iat. `exp` must be there.

    Section 2, NumericDate: a JSON number of seconds. A boolean or a string is none.
    """
    exp = payload.get("exp")
    if exp is None:
        raise _missing("exp")
    if (type(exp) is not int and type(exp) is not float) or not 0 <= exp <= LATEST:
        raise _no_date("exp")
    if now >= exp + leeway:  # "on or after which the JWT MUST NOT be accepted"
        raise TokenError(Reason.EXPIRED, "The token has expired.")
    starts = _ALWAYS
    for name in ("nbf", "iat"):
        if name in payload:
            moment = payload[name]
            if (type(moment) is not int and type(moment) is not float) or not 0 <= moment <= LATEST:
                raise _no_date(name)
            begins = moment - leeway
            if now < begins:
                raise TokenError(Reason.NOT_YET_VALID, f"The token's {name} is in the future.")
            if begins > starts:  # noqa: PLR1730 - max() costs as much as the rest of this loop
                starts = begins
    return Validity(starts, exp + leeway)


def scopes(
    claims: Mapping[str, object], paths: Iterable[ClaimPath] = (("scope",), ("scp",))
) -> frozenset[str]:
    """The scopes a token grants, by the paths of the claims that do (`Issuer.scope_paths`), as a
    string separated by spaces or as a list of strings; anything else grants nothing.
    """
    granted: list[str] = []
    for path in paths:
        value = look_up(claims, path)
        if isinstance(value, str):
            granted += value.split()
        elif isinstance(value, (list, tuple)):
            granted += [item for item in value if isinstance(item, str)]
    return frozenset(granted)


def _check_audiences(audiences: object, issuer: Issuer) -> None:
    """RFC 7519 section 4.1.3: where `aud` is no string, a list of strings of which one names us."""
    if type(audiences) is not tuple and type(audiences) is not list:
        raise _invalid("The claim aud is neither a string nor a list of strings.")
    for audience in audiences:
        if type(audience) is not str:
            raise _invalid("The claim aud is neither a string nor a list of strings.")
    if issuer.audience_set.isdisjoint(audiences):
        raise _other_audience()


def _check_wishes(payload: Mapping[str, Any], issuer: Issuer) -> None:
    """What this issuer's tokens must say beyond the RFCs; the times in them have been checked.

    `iat` has been compared with the clock. So what is left of a lifetime is bounded too, for an
    issuer that writes a later `iat` than is true: by the greatest lifetime and the leeway.
    """
    if issuer.max_lifetime is not None and payload["exp"] - payload["iat"] > issuer.max_lifetime:
        raise _invalid("The token is good for longer than is accepted here.")
    for predicate in issuer.predicates:
        if not predicate.holds(payload):
            if look_up(payload, predicate.path) is None:
                raise _missing(predicate.name)
            raise _invalid(
                f"The claim {predicate.name} does not have a value that is accepted here."
            )


def _missing(name: str) -> TokenError:
    return TokenError(Reason.MISSING_CLAIM, f"The required claim {name} is missing.")


def _other_audience() -> TokenError:
    return TokenError(Reason.WRONG_AUDIENCE, "The token is for another audience.")


def _no_date(name: str) -> TokenError:
    return _invalid(f"The claim {name} is not a number of seconds since 1970.")


def _invalid(details: str) -> TokenError:
    return TokenError(Reason.INVALID_CLAIM, details)
