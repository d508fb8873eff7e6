"""The values that rules are made of; each is immutable, and refuses what it cannot mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keycache.core.claims import Claims, scopes
from keycache.errors import ConfigurationError, Reason, TokenError
from keycache.issuer import Issuer
from keycache.predicates import Predicate, predicates
from keycache.problems import check_scopes


class Access(StrEnum):
    """Who may send a request that a rule matches."""

    REQUIRED = "required"  # who sends a good token
    OPTIONAL = "optional"  # everybody; but a token that is sent must be good
    ANONYMOUS = "anonymous"  # everybody; a token is not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """Where a token is looked for in a request: in a header field or in a cookie.

    header: the field's name. prefix: what stands before the token, in any case: `Bearer` by default
        in `Authorization` (RFC 6750 section 2.1), nothing by default in other fields.
    cookie: the cookie's name.
    name: what rules call it; the name of the field or cookie, in lower case, unless given.

    Raises ConfigurationError, with every problem.
    """

    header: str = ""
    prefix: str | None = None
    cookie: str = ""
    name: str = ""
    scheme: str = field(init=False, repr=False, compare=False)  # the prefix as it is compared

    def __post_init__(self) -> None:
        problems = []
        if bool(self.header) is bool(self.cookie):
            problems.append("give either a header or a cookie")
        if not _TOKEN.fullmatch(self.header + self.cookie + (self.prefix or "")):
            problems.append("the name of a header or cookie, and a prefix, are each one word")
        if self.cookie and self.prefix is not None:
            problems.append("prefix: belongs to a header")
        name = self.name or (self.header or self.cookie).lower()
        if problems:
            raise ConfigurationError([f"token source {name}: {problem}" for problem in problems])
        bearer = "Bearer" if self.header.lower() == "authorization" else ""
        object.__setattr__(self, "header", self.header.lower())
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "scheme", (bearer if self.prefix is None else self.prefix).lower())


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2

AUTHORIZATION = TokenSource(header="authorization")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a rule asks of a good token.

    issuers: names of issuers, of which one has issued it; empty: every trusted issuer will do.
    all_issuers: names of issuers of each of which a good token must be sent. What follows is asked
        of the token of the first.
    scopes: all of these are granted. any_scope: one of these is (RFC 6749 section 3.3).
    claims: all of these hold; a mapping of the short form is accepted, and becomes predicates.

    Raises ConfigurationError, with every problem.
    """

    issuers: tuple[str, ...] = ()
    all_issuers: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    any_scope: tuple[str, ...] = ()
    claims: tuple[Predicate, ...] | Mapping[str, object] = ()
    predicates: tuple[Predicate, ...] = field(init=False, repr=False, compare=False)
    is_empty: bool = field(init=False, repr=False, compare=False)
    all_scopes: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lists = ("issuers", "all_issuers", "scopes", "any_scope")
        if not all(isinstance(getattr(self, name), tuple) for name in lists):
            raise ConfigurationError([f"{', '.join(lists)}: each must be a tuple of strings"])
        problems: list[str] = []
        try:
            check_scopes((*self.scopes, *self.any_scope))
        except ConfigurationError as error:
            problems += error.problems
        if self.issuers and self.all_issuers:
            problems.append("issuers, all_issuers: give one of them")
        if self.all_issuers and len(set(self.all_issuers)) != max(2, len(self.all_issuers)):
            problems.append("all_issuers: must be two or more different ones; for one use issuers")
        try:
            tests = predicates(self.claims) if isinstance(self.claims, Mapping) else self.claims
            object.__setattr__(self, "claims", tests)
            object.__setattr__(self, "predicates", tests)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(problems)
        asked = (self.issuers, self.all_issuers, self.scopes, self.any_scope, self.claims)
        object.__setattr__(self, "is_empty", not any(asked))
        object.__setattr__(self, "all_scopes", frozenset(self.scopes))

    def check(self, claims: Claims, issuer: Issuer) -> None:
        """Whether the claims of a good token of this issuer are enough.

        Raises TokenError: insufficient_scope, forbidden.
        """
        if self.is_empty:
            return
        if self.issuers and issuer.name not in self.issuers:
            raise TokenError(
                Reason.FORBIDDEN, "Tokens of this issuer are not accepted for this request."
            )
        if self.scopes or self.any_scope:
            granted = scopes(claims, issuer.scope_paths)
            if not granted >= self.all_scopes or (
                self.any_scope and granted.isdisjoint(self.any_scope)
            ):
                raise TokenError(
                    Reason.INSUFFICIENT_SCOPE,
                    "The token does not grant what this request needs.",
                    scope=" ".join(dict.fromkeys((*self.scopes, *self.any_scope))),
                )
        for predicate in self.predicates:
            if not predicate.holds(claims):
                raise TokenError(
                    Reason.FORBIDDEN,
                    f"The claim {predicate.name} does not have a value that this request needs.",
                )


NOTHING_MORE = Requirement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is asked of requests to some paths.

    path: a pattern of segments. `/orders` is that path alone, `*` stands for any one segment
        (`/orders/*/items`), and `**` at the end for everything below, and for what it is below
        (`/api/**` matches `/api` too). A slash at the end of pattern or path makes no difference.
    methods: in upper case; empty: every method. GET includes HEAD.
    access: see `Access`. requirement: what a token must say beyond being good.
    sources: names of the token sources that are looked at; empty: all that are configured.
    """

    path: str
    methods: tuple[str, ...] = ()
    access: Access = Access.REQUIRED
    requirement: Requirement = NOTHING_MORE
    sources: tuple[str, ...] = ()
    all_methods: frozenset[str] = field(init=False, repr=False, compare=False)  # with HEAD

    def __post_init__(self) -> None:
        if not all(isinstance(value, tuple) for value in (self.methods, self.sources)):
            raise ConfigurationError(["methods, sources: each must be a tuple of strings"])
        head = ("HEAD",) if "GET" in self.methods else ()
        object.__setattr__(self, "all_methods", frozenset((*self.methods, *head)))

    @property
    def asks(self) -> tuple[object, ...]:
        """What it means for the requests that it matches."""
        return (self.access, self.requirement, self.sources)

    def __str__(self) -> str:
        return f"{','.join(self.methods)} {self.path}".lstrip()
