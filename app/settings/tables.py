"""The tables of the file, each as it is written there; what is left out has a default.

An `Entry` is one `[[table]]` of a list. What its values mean together is judged by keycache, whose
objects are made of them.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PlainValidator, WithJsonSchema

from app.settings.headers import header_name
from app.settings.values import (
    Headers,
    List,
    PrivateKeys,
    ReadableFile,
    Secret,
    Table,
)

_CLAIM_TEST = {
    "anyOf": [
        {"type": ["string", "number", "boolean"]},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
            "properties": {
                "equals": {"type": ["string", "number", "boolean"]},
                "one_of": {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
                "contains": {"type": ["string", "number", "boolean"]},
                "present": {"type": "boolean"},
            },
        },
    ]
}
Claims = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "additionalProperties": _CLAIM_TEST}),
]


class IssuerEntry(Table):
    """An issuer that is trusted; what is left out comes from the top level of the file."""

    issuer: str = Field(description="The exact `iss` of its tokens.")
    name: str = Field("", description="Its name in metrics, logs and rules; default: its host.")
    audience: List | None = Field(None, description="Who we are: `aud` must name one of these.")
    algorithms: List | None = Field(None, description="Accepted `alg` values.")
    leeway: FiniteFloat | None = Field(None, description="Seconds of clock difference forgiven.")
    typ: List | None = Field(None, description="Accepted `typ` values; at+jwt alone: RFC 9068.")
    require: List | None = Field(None, description="Claims that must be present.")
    claims: Claims = Field({}, description="Values that claims must have, by the claim's path.")
    max_lifetime: FiniteFloat | None = Field(
        None, description="Seconds from `iat` to `exp`, at most; `iat` is then required."
    )
    scope_claims: List | None = Field(
        None, description="Paths of the claims that grant scopes, as in realm_access.roles."
    )
    kid_optional: bool | None = Field(
        None, description="A token without kid may use the only compatible key."
    )
    jwks_url: str | None = Field(None, description="Where its keys are; default: discovery.")
    jwks_file: ReadableFile | None = Field(
        None, description="A file with its keys, read at every refresh; nobody is asked."
    )
    headers: Headers = Field(
        (), description="Header fields for the requests to it; the values may be secrets."
    )
    ca_bundle: ReadableFile | None = Field(
        None, description="PEM file: the authorities that sign its certificate."
    )
    client_certificate: ReadableFile | None = Field(
        None, description="PEM file: the certificate that we show it."
    )
    client_key: ReadableFile | None = Field(
        None, description="PEM file: the key of client_certificate, unless that file holds it."
    )
    proxy: Secret | None = Field(
        None, description="URL of the forward proxy that leads to it; empty: none."
    )


class RuleEntry(Table):
    """What is asked of requests by method and path; the first rule that matches decides."""

    path: str = Field(description="/orders, /orders/*, /orders/*/items or /api/**.")
    methods: List = Field((), description="Methods; none: all of them. GET includes HEAD.")
    access: Literal["required", "optional", "anonymous"] = Field(
        "required", description="optional: no token is fine, one that is sent must be good."
    )
    issuers: List = Field((), description="Names of issuers, any of which will do; none: all.")
    all_issuers: List = Field((), description="Names of issuers: a token of each must be sent.")
    scopes: List = Field((), description="Scopes that the token must grant, all of them.")
    any_scope: List = Field((), description="Scopes of which the token must grant one.")
    claims: Claims = Field({}, description="Values that claims must have, by the claim's path.")
    sources: List = Field(
        (), description="Names of token sources that are looked at; none: all, and one token."
    )


class SourceEntry(Table):
    """A place of the request where tokens are sent: a header field or a cookie."""

    name: str = Field("", description="Its name in rules; default: the header's or cookie's.")
    header: str | None = Field(None, description="A header field, as in Cf-Access-Jwt-Assertion.")
    prefix: str | None = Field(
        None,
        description="What stands before the token; default: Bearer for Authorization, else none.",
    )
    cookie: str | None = Field(None, description="A cookie.")


class InternalToken(Table):
    """JWTs of our own for the upstream: proof that it was us who verified a request."""

    issuer: str = Field(description="Our URL: `iss`, where the upstream finds our keys.")
    audience: str = Field(min_length=1, description="The upstream: `aud`.")
    keys: PrivateKeys = Field(
        min_length=1, max_length=2, description="Private keys in PEM: the current, then another."
    )
    header: Annotated[str, PlainValidator(header_name)] = Field(
        "X-Auth-Token", description="The header field of the answer that carries it."
    )
    lifetime: FiniteFloat = Field(60.0, ge=1, le=3600, description="Seconds until `exp`, at most.")


class ResourceTable(Table):
    """What clients are told about this resource (RFC 9728 section 2)."""

    resource: str = Field(description="The https URL under which clients know it.")
    authorization_servers: List = Field((), description="Default: the issuers.")
    jwks_uri: str | None = Field(None, description="Keys with which the resource signs answers.")
    scopes_supported: List = Field((), description="Scopes that a client may ask for.")
    resource_name: str | None = Field(None, description="Its name, for people.")
    resource_documentation: str | None = Field(None, description="A page for developers.")
    resource_policy_uri: str | None = Field(None, description="A page: how data may be used.")
    resource_tos_uri: str | None = Field(None, description="A page: terms of service.")


ENTRIES: dict[str, type[Table]] = {
    "issuers": IssuerEntry,
    "rules": RuleEntry,
    "token_sources": SourceEntry,
    "internal_token": InternalToken,
    "resource": ResourceTable,
}
"""The tables whose keys are known, by their names in the file."""
