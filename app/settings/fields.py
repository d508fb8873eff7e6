"""Every setting: its type, its default, and why it is there."""

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
)

from app.cpus import available_cpus
from app.logs import Style
from app.settings.headers import IDENTITY_HEADERS, IdentityHeaders
from app.settings.names import TABLES
from app.settings.tables import (
    InternalToken,
    IssuerEntry,
    ResourceTable,
    RuleEntry,
    SourceEntry,
)
from app.settings.values import (
    List,
    Location,
    Networks,
    Port,
    ReadableFile,
    RedisURL,
    SealKeys,
    Secret,
    of_type,
)
from keycache.core.budget import Limits
from keycache.core.freshness import Lifetimes
from keycache.issuer import DEFAULT_ALGORITHMS, DEFAULT_SCOPE_CLAIMS
from keycache.runtime import Options

_LIFETIMES, _LIMITS, _OPTIONS = Lifetimes(), Limits(), Options()


class Fields(BaseModel):
    """What the environment and the file can set; what it means is told by `Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field("", description="The exact `iss` of your tokens; trust has no default.")
    audience: List = Field((), description="Who we are: a token must name one of these in `aud`.")
    jwks_url: str | None = Field(
        None, description="Where the keys are; unset: discovery, then /.well-known/jwks.json."
    )
    jwks_file: ReadableFile | None = Field(
        None, description="A file with the keys, read at every refresh; no issuer is asked."
    )
    algorithms: List = Field(
        DEFAULT_ALGORITHMS, description="Accepted `alg` values; only signatures with a public key."
    )
    require: List = Field((), description="Claims that must be present besides exp, iss and aud.")
    typ: List = Field((), description="Accepted `typ` values; at+jwt alone asks for RFC 9068.")
    leeway: FiniteFloat = Field(30.0, description="Seconds of clock difference forgiven, 0 … 300.")
    kid_optional: bool = Field(
        default=False,
        description="A token without kid may use the only compatible key.",
    )
    max_lifetime: FiniteFloat | None = Field(
        None,
        description="Seconds from `iat`, then required, to `exp`, at most; unset: any.",
    )
    scope_claims: List = Field(
        DEFAULT_SCOPE_CLAIMS, description="Claims that grant scopes, as in realm_access.roles."
    )
    ca_bundle: ReadableFile | None = Field(
        None, description="PEM file: who signs the issuers' certificates; unset: the host's store."
    )
    client_certificate: ReadableFile | None = Field(
        None, description="PEM file: the certificate that we show to issuers (mutual TLS)."
    )
    client_key: ReadableFile | None = Field(
        None, description="PEM file: its key, unless the certificate's file holds it."
    )
    proxy: Secret | None = Field(
        None, description="Forward proxy to the issuers: http://[user:password@]host:port."
    )

    ttl: FiniteFloat = Field(
        _LIFETIMES.ttl, description="Seconds a key set is fresh when its issuer does not say."
    )
    ttl_min: FiniteFloat = Field(
        _LIFETIMES.ttl_min,
        description="Seconds; a shorter max-age would hammer the issuer.",
    )
    ttl_max: FiniteFloat = Field(
        _LIFETIMES.ttl_max,
        description="Seconds; a longer max-age keeps a removed key too long.",
    )
    refresh_at: FiniteFloat = Field(
        _LIFETIMES.refresh_at,
        description="Share of the TTL after which keys are refreshed (± 10 %), ahead of expiry.",
    )
    stale: FiniteFloat = Field(
        _LIFETIMES.stale,
        description="Seconds after the TTL for which keys still serve while the issuer is down.",
    )
    budget: int = Field(
        _LIMITS.budget, description="Forced refreshes at once: strangers can cause these."
    )
    budget_refill: FiniteFloat = Field(
        _LIMITS.refill, description="Seconds until one more forced refresh may happen."
    )
    negative_ttl: FiniteFloat = Field(
        _OPTIONS.negative_ttl, description="Seconds a kid that nobody knows is remembered as such."
    )
    negative_size: int = Field(
        _OPTIONS.negative_size, description="Unknown kids remembered per issuer: bounded memory."
    )
    wait: FiniteFloat = Field(
        _OPTIONS.wait, description="Seconds a request waits for the keys to be refreshed."
    )
    waiters: int = Field(
        _OPTIONS.waiters, description="Requests of a worker that may wait at once; others get 503."
    )
    backoff_min: FiniteFloat = Field(
        _LIMITS.backoff_min, description="Seconds, the longest pause after the first failure."
    )
    backoff_max: FiniteFloat = Field(
        _LIMITS.backoff_max, description="Seconds, the longest pause after any number of failures."
    )
    fetch_connect: FiniteFloat = Field(
        _OPTIONS.fetch_connect, description="Seconds to connect to the issuer."
    )
    fetch_timeout: FiniteFloat = Field(
        _OPTIONS.fetch_timeout, description="Seconds for one whole JWKS request, body included."
    )
    fetch_bytes: int = Field(
        _OPTIONS.fetch_bytes, description="Bytes of a JWKS answer; a larger one is refused."
    )
    fetch_keys: int = Field(
        _OPTIONS.fetch_keys, description="Keys of a JWKS answer; a longer list is refused."
    )
    lease: FiniteFloat = Field(
        _OPTIONS.lease, description="Seconds one worker may hold the right to fetch."
    )
    token_bytes: int = Field(
        _OPTIONS.token_bytes, description="Bytes of a token; a longer one is refused unread."
    )
    kid_chars: int = Field(_OPTIONS.kid_chars, description="Characters of a kid: bounded memory.")
    token_cache: int = Field(
        _OPTIONS.token_cache, description="Verified tokens a worker remembers; 0 turns it off."
    )

    revocation: bool = Field(
        default=False,
        description="Refuse what `keycache revoke` names; 503 when it is not known what that is.",
    )

    redis_url: RedisURL | None = Field(
        None, description="Redis or Valkey; unset: an embedded Valkey on a private Unix socket."
    )
    redis_connect: FiniteFloat = Field(
        _OPTIONS.redis_connect,
        description="Seconds to connect to Redis: requests must not wait.",
    )
    redis_timeout: FiniteFloat = Field(
        _OPTIONS.redis_timeout, gt=0, description="Seconds for one Redis command; never unbounded."
    )
    poll: FiniteFloat = Field(
        _OPTIONS.poll, description="Seconds between looks at the version in Redis."
    )
    seal_keys: SealKeys = Field(
        (), description="Seals what is in Redis: the current key, then the previous (base64url)."
    )
    allow_unsealed: bool = Field(
        default=False,
        description="Run with Redis and no seal key: who writes there can mint tokens.",
    )
    snapshot: Location | None = Field(
        None, description="Directory for the last good keys: a start without Redis and issuer."
    )

    host: str = Field("127.0.0.1", description="Address of the public listener; loopback is safe.")
    port: Port = Field(8000, description="Port of the public listener; 0 takes any free one.")
    admin_host: str = Field("127.0.0.1", description="Address of /metrics, /livez and /readyz.")
    admin_port: Port = Field(9000, description="Port of the admin listener; 0 takes any free one.")
    control: Location | None = Field(
        None,
        description="Unix socket for `keycache reload`; unset: by user and admin port, in $TMPDIR.",
    )
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="Worker processes; the default is the CPUs this process may use.",
    )
    grace: FiniteFloat = Field(
        25.0,
        ge=0,
        description="Seconds for requests in flight after SIGTERM; Kubernetes kills after 30.",
    )

    log: Style = Field(
        "auto", description="console, json, or auto: console on a terminal, json elsewhere."
    )
    log_claims: List = Field(
        (), description="Claims whose values a refusal's log line may show; none unless named."
    )
    trusted_proxies: Networks = Field(
        (), description="Networks of the proxies that may say, in X- headers, what is asked for."
    )
    fast_verify: bool = Field(
        default=True,
        description="Answer plain requests for /verify without Sanic's full cycle, byte for byte.",
    )

    issuer_tables: tuple[IssuerEntry, ...] = Field((), description="Several issuers.")
    rule_tables: tuple[RuleEntry, ...] = Field(
        (), description="What is asked of a request; none: a good token of any issuer."
    )
    source_tables: tuple[SourceEntry, ...] = Field(
        (), description="Where tokens are sent; none: the Authorization header."
    )
    identity_headers: IdentityHeaders = Field(
        IDENTITY_HEADERS,
        description="Header fields of /verify: subject, issuer, scopes, payload, or a claim.",
    )
    internal_token: InternalToken | None = Field(
        None, description="JWTs of our own, which prove to the upstream that it was us."
    )
    resource_table: ResourceTable | None = Field(
        None, description="What clients are told about this resource (RFC 9728)."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _has_its_type(cls, value: object, info: ValidationInfo) -> object:
        """A variable of the environment is always a text; what the file has must have its type."""
        name = info.field_name or ""
        if info.context and name in info.context["from_file"]:
            return of_type(cls.model_fields[name].annotation, value)
        return value


SETTING_NAMES = tuple(name for name in Fields.model_fields if name not in TABLES.values())
"""The settings that the environment can hold, by their names in the file."""
