"""KeycacheError → Problem: the status, headers and body of a refusal (RFC 6750 section 3).

The same for JWTAuth and for the service. Nothing that a sender wrote is ever repeated; what stands
in a quoted-string comes from our own code or configuration, and is held to RFC 6750's characters.
"""

import re
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from keycache.errors import ConfigurationError, KeycacheError, Reason, TokenError, UnavailableError


class Problem(NamedTuple):
    """An answer that refuses: HTTP status, header fields, and the members of the JSON body."""

    status: int
    headers: dict[str, str]
    body: dict[str, str]


def problem(error: KeycacheError, realm: str, metadata_url: str | None = None) -> Problem:
    """The answer to a request that was refused with this error.

    realm: see `check_realm`. metadata_url: where a client can read whom to ask for a token, see
        `keycache.resource.Resource.metadata_url`.
    """
    if isinstance(error, UnavailableError):
        return Problem(
            503,
            {"Retry-After": str(ceil(error.retry_after)), **_NOT_STORED},
            {
                "error": "Temporarily unavailable",
                "reason": "temporarily_unavailable",
                "details": error.details,
            },
        )
    if not isinstance(error, TokenError):
        raise TypeError(f"{type(error).__name__} is no answer to a request") from error
    challenge = f'Bearer realm="{realm}"'
    if metadata_url is not None:
        challenge += f', resource_metadata="{metadata_url}"'  # RFC 9728 section 5.1
    if error.reason is Reason.NO_TOKEN:
        # Section 3.1: no error code when the request lacks any authentication information.
        return Problem(401, _challenge(challenge), {"error": "No token provided"})
    if error.reason in (Reason.NO_RULE, Reason.UNTRUSTED_PROXY):
        # Nothing to ask for: whatever token is sent, the answer is the same.
        body = {"error": "Forbidden", "reason": str(error.reason), "details": error.details}
        return Problem(403, dict(_NOT_STORED), body)
    status, code, title = _ANSWERS.get(error.reason, (401, "invalid_token", "Invalid token"))
    described = _UNQUOTABLE.sub("?", error.details)  # the name of a claim may hold anything
    challenge += f', error="{code}", error_description="{described}"'
    if error.scope:
        challenge += f', scope="{error.scope}"'
    body = {"error": title, "reason": str(error.reason), "details": error.details}
    return Problem(status, _challenge(challenge), body)


def check_realm(realm: str) -> str:
    """`realm`, if it can stand in a quoted-string as it is. Raises ConfigurationError otherwise."""
    if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
        raise ConfigurationError(
            [f"realm: {realm!r} must be printable ASCII without quotes and backslashes"]
        )
    return realm


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """`scopes`, if each is a scope-token (RFC 6749 section 3.3). Raises ConfigurationError."""
    wrong = [scope for scope in scopes if not _SCOPE.fullmatch(scope)]
    if wrong:
        raise ConfigurationError([f"scopes: {scope!r} is not one scope" for scope in wrong])
    return tuple(scopes)


def _challenge(value: str) -> dict[str, str]:
    return {"WWW-Authenticate": value, **_NOT_STORED}


_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")
_SCOPE = re.compile(r"[!#-\[\]-~]+")

_NOT_STORED = {"Cache-Control": "no-store"}
"""A refusal is true for this moment only: no proxy may answer the next request with it."""

_ANSWERS = {
    Reason.MALFORMED_HEADER: (400, "invalid_request", "Invalid request"),
    Reason.MULTIPLE_TOKENS: (400, "invalid_request", "Invalid request"),
    Reason.AMBIGUOUS_PATH: (400, "invalid_request", "Invalid request"),
    Reason.UNKNOWN_REQUEST: (400, "invalid_request", "Invalid request"),
    Reason.INSUFFICIENT_SCOPE: (403, "insufficient_scope", "Insufficient scope"),
    # Section 3.1: "requires higher privileges than provided by the access token", of which a scope
    # is only one kind.
    Reason.FORBIDDEN: (403, "insufficient_scope", "Forbidden"),
}
