"""Issuer: who signs the tokens, where its keys are, and what its tokens must say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from math import inf
from urllib.parse import urlsplit

from keycache.errors import ConfigurationError
from keycache.predicates import ClaimPath, Predicate, claim_path, predicates

DEFAULT_ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
POSSIBLE_ALGORITHMS = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
    "Ed25519",
)
"""Asymmetric signatures of RFC 7518 and RFC 8037. A shared secret (HS*) has no place in a key set
that is public, and `none` has no place anywhere (RFC 8725 section 3.2).

`Ed25519` is RFC 9864's name for what `EdDSA` is with that curve. It is no default: whose issuer
sends it says so, and everybody else's list stays as it was. A JWK and a token must use the same one
of the two, as with every `alg`. The ES names say their curve already.
"""

ALWAYS_REQUIRED = ("exp", "iss", "aud")
DEFAULT_TYPES = ("", "jwt", "at+jwt")
DEFAULT_SCOPE_CLAIMS = ("scope", "scp")
ACCESS_TOKEN_TYPE = "at+jwt"
ACCESS_TOKEN_CLAIMS = ("sub", "client_id", "iat", "jti")
"""RFC 9068 section 2.2: what an access token of type `at+jwt` must say beyond exp, iss and aud."""

FETCH_HEADERS = (
    *("accept-encoding", "connection", "content-length", "cookie", "host", "if-modified-since"),
    *("if-none-match", "keep-alive", "proxy-authorization", "proxy-connection", "range", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
)
"""Header fields that are the fetcher's own: another value would break HTTP, or a bound of ours."""

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # section 5.5, without obs-text


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """How an issuer is asked for its keys, where a plain https request is not enough.

    headers: added to the requests for this issuer's documents, as (name, value) or as a mapping;
        their values may be secret. They go to the hosts of `issuer` and `jwks_url` only, not to
        another one that a discovery document names.
    ca_bundle: path of a PEM file: who signs its certificate, instead of the host's authorities.
    client_certificate, client_key: paths of PEM files: what we show it (mutual TLS, RFC 8446
        section 4.4.2); without `client_key` the key stands in the file of the certificate.
    proxy: the `http://` or `https://` URL of a forward proxy; it may hold a user and a password.

    Raises ConfigurationError, with every problem and no secret.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_bundle: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.headers, Mapping):
            object.__setattr__(self, "headers", tuple(self.headers.items()))
        problems = []
        for name, value in self.headers:
            if not _FIELD_NAME.fullmatch(name):
                problems.append(f"headers: {name!r} is not the name of a header field")
            elif name.lower() in FETCH_HEADERS:
                problems.append(f"headers: {name} is a matter of the fetcher itself")
            elif not _FIELD_VALUE.fullmatch(value):
                problems.append(f"headers: {name}: its value is empty, or not plain ASCII")
        names = [name.lower() for name, _ in self.headers]
        twice = sorted({name for name in names if names.count(name) > 1})
        problems += [f"headers: {name} is given twice" for name in twice]
        if self.client_key and not self.client_certificate:
            problems.append("client_key: given without client_certificate")
        if self.proxy is not None:
            problems += _proxy_problems(self.proxy)
        if problems:
            raise ConfigurationError(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer and the policy for its tokens. Immutable: another policy is another object.

    issuer: the exact `iss` of its tokens (compared byte by byte, RFC 7519 section 4.1.1).
    audiences: who we are; a token must name at least one of them in `aud`.
    name: its metric label; the host of `issuer` unless given.
    jwks_url: where its keys are; None asks its discovery document (OpenID Connect Discovery 1.0,
        section 4), and `{issuer}/.well-known/jwks.json` where there is none.
    jwks_file: path of a file with its keys, read at every refresh instead of any request.
    fetch: how it is asked, where a plain https request is not enough.
    algorithms: the `alg` values accepted, a choice of `POSSIBLE_ALGORITHMS`.
    require: claims that must be present besides exp, iss and aud.
    typ: the accepted `typ` header values, without `application/` and in lower case. Empty: `jwt`,
        `at+jwt` or none at all. With `at+jwt` alone the RFC 9068 profile holds in full.
    leeway: seconds of clock difference forgiven for exp, nbf and iat.
    kid_optional: a token without `kid` may use the only compatible key of the set.
    claims: values that claims must have, see `keycache.predicates`; a mapping of the short form is
        accepted, and becomes predicates.
    max_lifetime: seconds between `iat`, which is then required, and `exp` at most; None: any.
    scope_claims: paths of the claims that grant scopes: a string of scopes separated by spaces, or
        a list of strings. RFC 9068 section 2.2.3 has `scope`; `scp` is as common.

    Raises ConfigurationError, with every problem, when these cannot work.
    """

    issuer: str
    audiences: tuple[str, ...]
    name: str = ""
    jwks_url: str | None = None
    jwks_file: str | None = None
    fetch: Fetch = Fetch()
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    require: tuple[str, ...] = ()
    typ: tuple[str, ...] = ()
    leeway: float = 30.0
    kid_optional: bool = False
    claims: tuple[Predicate, ...] | Mapping[str, object] = ()
    max_lifetime: float | None = None
    scope_claims: tuple[str, ...] = DEFAULT_SCOPE_CLAIMS
    # What a verification needs of these, worked out once: it is looked at for every token.
    required_claims: tuple[str, ...] = field(init=False, repr=False, compare=False)
    audience_set: frozenset[str] = field(init=False, repr=False, compare=False)
    types: frozenset[str] = field(init=False, repr=False, compare=False)
    predicates: tuple[Predicate, ...] = field(init=False, repr=False, compare=False)
    scope_paths: tuple[ClaimPath, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = ("audiences", "algorithms", "require", "typ", "scope_claims")
        if not all(isinstance(getattr(self, name), tuple) for name in lists):
            # A string in place of a tuple would be searched for parts of words (CVE-2024-53861).
            raise ConfigurationError([f"{', '.join(lists)}: each must be a tuple of strings"])
        problems = self._source_problems()
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
        if self.max_lifetime is not None and not 0 < self.max_lifetime < inf:
            problems.append(f"max_lifetime: {self.max_lifetime:g} s is not a time above 0 s")
        problems += self._set_paths()
        if problems:
            raise ConfigurationError(problems)
        object.__setattr__(self, "typ", tuple(normal_typ(typ) for typ in self.typ))
        if not self.name:
            object.__setattr__(self, "name", urlsplit(self.issuer).netloc)
        profile = ACCESS_TOKEN_CLAIMS if self.typ == (ACCESS_TOKEN_TYPE,) else ()
        issued = () if self.max_lifetime is None else ("iat",)
        required = dict.fromkeys((*ALWAYS_REQUIRED, *profile, *issued, *self.require))
        object.__setattr__(self, "required_claims", tuple(required))
        object.__setattr__(self, "audience_set", frozenset(self.audiences))
        object.__setattr__(self, "types", frozenset(self.typ or DEFAULT_TYPES))

    def _set_paths(self) -> list[str]:
        """Read the paths of claims; what is wrong with them."""
        problems: list[str] = []
        try:
            tests = predicates(self.claims) if isinstance(self.claims, Mapping) else self.claims
            object.__setattr__(self, "claims", tests)
            object.__setattr__(self, "predicates", tests)
        except ConfigurationError as error:
            problems += error.problems
        try:
            object.__setattr__(self, "scope_paths", tuple(map(claim_path, self.scope_claims)))
        except ConfigurationError as error:
            problems += [f"scope_claims: {problem}" for problem in error.problems]
        return problems

    def _source_problems(self) -> list[str]:
        problems = [*url_problems("issuer", self.issuer)]
        if self.jwks_url is not None:
            problems += url_problems("jwks_url", self.jwks_url)
        if self.jwks_file is not None and (self.jwks_url is not None or self.fetch != Fetch()):
            problems.append(
                "jwks_file: nobody is asked when the keys stand in a file; leave out jwks_url,"
                " headers, ca_bundle, client_certificate and proxy, or leave out jwks_file"
            )
        return problems

    @property
    def source(self) -> "KeySource":
        """Where its keys come from: what all hosts that share them must agree on."""
        if self.jwks_file is not None:
            return KeySource(self.issuer, f"file:{self.jwks_file}")
        return KeySource(self.issuer, self.jwks_url)


@dataclass(frozen=True, slots=True)
class KeySource:
    """The identity of a shared key set: issuer and configured JWKS URL (None: discovery).

    For a file it is `file:` and its path, which no JWKS URL can be.
    """

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


def _proxy_problems(url: str) -> list[str]:
    """What is wrong with the URL of a proxy; it is not repeated, as it may hold a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ["proxy: not a URL"]
    if not host or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        return ["proxy: not an absolute http or https URL"]
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return ["proxy: must be a host and a port, without a path"]
    return []


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
