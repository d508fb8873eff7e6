"""Header fields of our answers, which proxies copy into the requests that they let through."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.settings.values import all_wrong, wrong
from keycache.errors import ConfigurationError
from keycache.predicates import ClaimPath, claim_path


class Identity(StrEnum):
    """What an identity header says, unless it is the value of a claim."""

    SUBJECT = "subject"
    ISSUER = "issuer"
    SCOPES = "scopes"
    PAYLOAD = "payload"  # all claims, as base64url JSON


@dataclass(frozen=True, slots=True)
class IdentityHeader:
    """A header field of the answer of `/verify`. `says`: a claim is named by its path."""

    name: str
    says: Identity | ClaimPath


IDENTITY_HEADERS = (
    IdentityHeader("X-Auth-Subject", Identity.SUBJECT),
    IdentityHeader("X-Auth-Issuer", Identity.ISSUER),
    IdentityHeader("X-Auth-Scope", Identity.SCOPES),
)

RESERVED_HEADERS = (
    *("cache-control", "connection", "content-encoding", "content-length", "content-type", "date"),
    *("keep-alive", "location", "proxy-authenticate", "retry-after", "set-cookie", "trailer"),
    *("transfer-encoding", "upgrade", "vary", "www-authenticate", "x-request-id"),
)
"""Header fields that HTTP or the service needs for itself."""


def header_name(name: object) -> str:
    """The name of a header field of ours. RFC 9110 section 5.1, less what servers spell alike:
    many take `_` for `-`, so that a client could send what they then mistake for ours."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise wrong("{name} cannot be a header field: letters, digits and -", name=name)
    if name.lower() in RESERVED_HEADERS:
        raise wrong("{name} has a meaning of its own; choose another name", name=name)
    return name


def _identity_headers(value: object) -> tuple[IdentityHeader, ...]:
    if not isinstance(value, dict):
        raise wrong('must be a table: "X-Auth-Email" = "email"')
    names = [name.lower() for name in value]
    twice = sorted({name for name in names if names.count(name) > 1})
    found, errors = [], [wrong("{name} is named twice", name=name) for name in twice]
    for name, says in value.items():
        try:
            found.append(_identity_header(name, says))
        except PydanticCustomError as error:
            errors.append(error)
    if errors:
        raise all_wrong(errors)
    return tuple(found)


def _identity_header(name: str, says: object) -> IdentityHeader:
    if not isinstance(says, str):
        raise wrong("{name}: must be a text", name=name)
    if says in set(Identity):
        return IdentityHeader(header_name(name), Identity(says))
    try:
        return IdentityHeader(header_name(name), claim_path(says))
    except ConfigurationError as error:
        raise wrong("{name}: {why}", name=name, why=str(error)) from None


IdentityHeaders = Annotated[
    tuple[IdentityHeader, ...],
    PlainValidator(_identity_headers),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
