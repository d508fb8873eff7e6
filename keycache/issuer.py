"""Issuer: who signs the tokens, where its keys are, and what its tokens must say."""

from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from keycache.errors import ConfigurationError

DEFAULT_ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
POSSIBLE_ALGORITHMS = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
)
"""Asymmetric signatures of RFC 7518 and RFC 8037. A shared secret (HS*) has no place in a key set
that is public, and `none` has no place anywhere (RFC 8725 section 3.2).
"""

ALWAYS_REQUIRED = ("exp", "iss", "aud")
DEFAULT_TYPES = ("", "jwt", "at+jwt")
ACCESS_TOKEN_TYPE = "at+jwt"
ACCESS_TOKEN_CLAIMS = ("sub", "client_id", "iat", "jti")
"""RFC 9068 section 2.2: what an access token of type `at+jwt` must say beyond exp, iss and aud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer and the policy for its tokens. Immutable: another policy is another object.

    issuer: the exact `iss` of its tokens (compared byte by byte, RFC 7519 section 4.1.1).
    audiences: who we are; a token must name at least one of them in `aud`.
    name: its metric label; the host of `issuer` unless given.
    jwks_url: where its keys are; None asks its discovery document (OpenID Connect Discovery 1.0,
        section 4), and `{issuer}/.well-known/jwks.json` where there is none.
    algorithms: the `alg` values accepted, a choice of `POSSIBLE_ALGORITHMS`.
    require: claims that must be present besides exp, iss and aud.
    typ: the accepted `typ` header values, without `application/` and in lower case. Empty: `jwt`,
        `at+jwt` or none at all. With `at+jwt` alone the RFC 9068 profile holds in full.
    leeway: seconds of clock difference forgiven for exp, nbf and iat.
    kid_optional: a token without `kid` may use the only compatible key of the set.

    Raises ConfigurationError, with every problem, when these cannot work.
    """

    issuer: str
    audiences: tuple[str, ...]
    name: str = ""
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    require: tuple[str, ...] = ()
    typ: tuple[str, ...] = ()
    leeway: float = 30.0
    kid_optional: bool = False
    # What a verification needs of these, worked out once: it is looked at for every token.
    required_claims: tuple[str, ...] = field(init=False, repr=False, compare=False)
    audience_set: frozenset[str] = field(init=False, repr=False, compare=False)
    types: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = ("audiences", "algorithms", "require", "typ")
        if not all(isinstance(getattr(self, name), tuple) for name in lists):
            # A string in place of a tuple would be searched for parts of words (CVE-2024-53861).
            raise ConfigurationError([f"{', '.join(lists)}: each must be a tuple of strings"])
        problems = [*url_problems("issuer", self.issuer)]
        if self.jwks_url is not None:
            problems += url_problems("jwks_url", self.jwks_url)
        if not self.audiences or not all(self.audiences):
            problems.append(
                "audience: name at least one; a token for nobody would be for everybody"
            )
        impossible = [alg for alg in self.algorithms if alg not in POSSIBLE_ALGORITHMS]
        if impossible or not self.algorithms:
            problems.append(
                f"algorithms: {', '.join(impossible) or 'none given'} cannot be used; "
                f"choose from {', '.join(POSSIBLE_ALGORITHMS)}"
            )
        if not 0 <= self.leeway <= 300:
            problems.append(f"leeway: {self.leeway:g} s is not within 0 … 300 s")
        if problems:
            raise ConfigurationError(problems)
        object.__setattr__(self, "typ", tuple(normal_typ(typ) for typ in self.typ))
        if not self.name:
            object.__setattr__(self, "name", urlsplit(self.issuer).netloc)
        profile = ACCESS_TOKEN_CLAIMS if self.typ == (ACCESS_TOKEN_TYPE,) else ()
        required = dict.fromkeys((*ALWAYS_REQUIRED, *profile, *self.require))
        object.__setattr__(self, "required_claims", tuple(required))
        object.__setattr__(self, "audience_set", frozenset(self.audiences))
        object.__setattr__(self, "types", frozenset(self.typ or DEFAULT_TYPES))

    @property
    def source(self) -> "KeySource":
        """Where its keys come from: what all hosts that share them must agree on."""
        return KeySource(self.issuer, self.jwks_url)


@dataclass(frozen=True, slots=True)
class KeySource:
    """The identity of a shared key set: issuer and configured JWKS URL (None: discovery)."""

    issuer: str
    jwks_url: str | None

    @property
    def id(self) -> str:
        """32 hexadecimal digits that name this source in the shared cache.

        A digest of a length-prefixed text: no two sources can spell the same name (compare
        CVE-2025-59936, where a crafted issuer collided with another one's cache key).
        """
        location = self.jwks_url or ""
        text = f"{len(self.issuer)}:{self.issuer}{len(location)}:{location}"
        return sha256(text.encode()).hexdigest()[:32]


def normal_typ(typ: str) -> str:
    """A media type as RFC 7515 section 4.1.9 compares it: no `application/`, lower case."""
    return typ.lower().removeprefix("application/")


def url_problems(setting: str, url: str) -> list[str]:
    """What is wrong with a URL that names an issuer or its keys; one sentence for each problem."""
    if "@" in url.partition("//")[2].partition("/")[0] or "#" in url:  # a password is not repeated
        return [f"{setting}: must hold no user name, password or fragment"]
    if " " in url or not url.isprintable():  # urlsplit drops some of these without a word
        return [f"{setting}: {url!r} holds white space or control characters"]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return [f"{setting}: {url!r} is not a URL ({error})"]
    if not host or parts.scheme not in ("https", "http"):
        return [f"{setting}: {url!r} is not an absolute https URL"]
    if parts.scheme == "http" and not is_loopback(host):
        return [f"{setting}: {url!r} must use https (plain http is for loopback only)"]
    return []


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
