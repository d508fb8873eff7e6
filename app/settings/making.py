"""From settings to the objects that the service is made of.

Each function raises ConfigurationError, with every problem, when its object cannot work.
"""

from pathlib import Path
from typing import Any

from app.settings.fields import Fields
from app.settings.tables import IssuerEntry, RuleEntry, SourceEntry
from keycache.core.budget import Limits
from keycache.core.freshness import Lifetimes
from keycache.errors import ConfigurationError
from keycache.issuer import Fetch, Issuer
from keycache.resource import Resource
from keycache.rules import AUTHORIZATION, Access, Requirement, Rule, RuleTable, TokenSource
from keycache.runtime import Options


def issuers(fields: Fields) -> tuple[Issuer, ...]:
    """The issuers that are trusted: those of the tables, or the one of the top level."""
    if fields.issuer_tables:
        return tuple(issuer(entry, fields) for entry in fields.issuer_tables)
    only = {name: getattr(fields, name) for name in ("issuer", "jwks_url", "jwks_file")}
    return (issuer(IssuerEntry.model_construct(**only), fields),)


def issuer(entry: IssuerEntry, fields: Fields) -> Issuer:
    """One issuer; what its table leaves out comes from the top level."""

    def setting(name: str) -> Any:  # noqa: ANN401 - the setting has the field's type
        own = getattr(entry, name)
        return getattr(fields, name) if own is None else own

    problems: tuple[str, ...] = ()
    try:
        fetch = _fetch(entry, fields)
    except ConfigurationError as error:
        fetch, problems = Fetch(), error.problems
    try:
        made = Issuer(
            issuer=entry.issuer,
            audiences=setting("audience"),
            name=entry.name,
            jwks_url=entry.jwks_url,
            jwks_file=_text(entry.jwks_file),
            fetch=fetch,
            algorithms=setting("algorithms"),
            require=setting("require"),
            typ=setting("typ"),
            leeway=setting("leeway"),
            kid_optional=setting("kid_optional"),
            claims=entry.claims,
            max_lifetime=setting("max_lifetime"),
            scope_claims=setting("scope_claims"),
        )
    except ConfigurationError as error:
        raise ConfigurationError([*error.problems, *problems]) from None
    if problems:
        raise ConfigurationError(problems)
    return made


def _fetch(entry: IssuerEntry, fields: Fields) -> Fetch:
    """How an issuer is asked. What the top level says is for those that are asked at all."""
    ca_bundle, certificate, key, proxy = (
        *(entry.ca_bundle, entry.client_certificate, entry.client_key),
        entry.proxy,
    )
    if entry.jwks_file is None:
        ca_bundle = ca_bundle or fields.ca_bundle
        if not certificate and not key:
            certificate, key = fields.client_certificate, fields.client_key
        proxy = fields.proxy if proxy is None else proxy
    return Fetch(
        headers=tuple((name, value.get_secret_value()) for name, value in entry.headers),
        ca_bundle=_text(ca_bundle),
        client_certificate=_text(certificate),
        client_key=_text(key),
        proxy=proxy.get_secret_value() if proxy else None,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def token_sources(fields: Fields) -> tuple[TokenSource, ...]:
    """Where requests carry tokens."""
    return tuple(map(token_source, fields.source_tables)) or (AUTHORIZATION,)


def token_source(entry: SourceEntry) -> TokenSource:
    """One place where requests carry tokens."""
    return TokenSource(**entry.model_dump(exclude_none=True))


def rules(fields: Fields) -> RuleTable | None:
    """What is asked of which request; None: a good token, whatever is asked for."""
    if not fields.rule_tables:
        return None
    return RuleTable(
        tuple(map(rule, fields.rule_tables)),
        issuers=issuers(fields),
        sources=token_sources(fields),
    )


def rule(entry: RuleEntry) -> Rule:
    """One rule."""
    return Rule(
        path=entry.path,
        methods=entry.methods,
        access=Access(entry.access),
        requirement=Requirement(
            issuers=entry.issuers,
            all_issuers=entry.all_issuers,
            scopes=entry.scopes,
            any_scope=entry.any_scope,
            claims=entry.claims,
        ),
        sources=entry.sources,
    )


def resource(fields: Fields) -> Resource | None:
    """What clients are told about this resource."""
    table = fields.resource_table
    return None if table is None else Resource(**table.model_dump())


def options(
    fields: Fields, *, redis_url: str | None = None, seal_keys: tuple[bytes, ...] = ()
) -> Options:
    """What keycache needs to know. The arguments stand in for settings that are not set."""
    if fields.redis_url is not None:
        redis_url = fields.redis_url.get_secret_value()
    if fields.redis_url is not None or fields.seal_keys:
        seal_keys = tuple(key.get_secret_value() for key in fields.seal_keys)
    return Options(
        redis_url=redis_url,
        seal_keys=seal_keys,
        allow_unsealed=fields.allow_unsealed,
        snapshot=fields.snapshot,
        redis_connect=fields.redis_connect,
        redis_timeout=fields.redis_timeout,
        poll=fields.poll,
        lifetimes=lifetimes(fields),
        limits=limits(fields),
        lease=fields.lease,
        negative_ttl=fields.negative_ttl,
        negative_size=fields.negative_size,
        wait=fields.wait,
        waiters=fields.waiters,
        fetch_connect=fields.fetch_connect,
        fetch_timeout=fields.fetch_timeout,
        fetch_bytes=fields.fetch_bytes,
        fetch_keys=fields.fetch_keys,
        token_bytes=fields.token_bytes,
        kid_chars=fields.kid_chars,
        token_cache=fields.token_cache,
        revocation=fields.revocation,
    )


def lifetimes(fields: Fields) -> Lifetimes:
    """How long key sets may be used."""
    return Lifetimes(
        ttl=fields.ttl,
        ttl_min=fields.ttl_min,
        ttl_max=fields.ttl_max,
        refresh_at=fields.refresh_at,
        stale=fields.stale,
    )


def limits(fields: Fields) -> Limits:
    """How often issuers may be asked."""
    return Limits(
        budget=fields.budget,
        refill=fields.budget_refill,
        backoff_min=fields.backoff_min,
        backoff_max=fields.backoff_max,
    )
