"""Guard: the one place where a request is judged by the rules; knows no framework.

The rule is chosen by method and path, the token is found where the rule looks for it, verified by
the authenticator, and held against what the rule asks. Nothing here awaits but the authenticator,
and that only for a key that is not known.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from keycache.core.claims import Claims
from keycache.errors import Reason, TokenError
from keycache.issuer import Issuer
from keycache.rules import Access, Rule, RuleTable, TokenSource


class Sent(Protocol):
    """A request, as far as it is judged."""

    @property
    def method(self) -> str:
        """As it was sent."""

    @property
    def path(self) -> str:
        """As it was sent, with its percent-encoding, and without the query."""

    def header(self, name: str) -> Sequence[str]:
        """The values of all header fields of this name (in lower case), in their order."""

    def cookie(self, name: str) -> Sequence[str]:
        """The values of all cookies of this exact name (RFC 6265 section 5.4)."""


class Admitted(msgspec.Struct, frozen=True):
    """A request that may go on, and why.

    claims: of its token; None: it came without one, and that is fine. With `all_issuers`, of the
        token of the first of them.
    issuer: the name of the issuer of `claims`.
    all: the claims of each token, by the name of its issuer.
    rule: by which it was judged.
    """

    claims: Claims | None
    issuer: str | None
    all: Mapping[str, Claims]
    rule: Rule


class Authenticates(Protocol):
    """What a guard needs of an Authenticator."""

    async def authenticate(self, text: str, /) -> Claims:
        """The claims of this token. Raises TokenError or UnavailableError."""


class Guard:
    """Judges requests by a table of rules."""

    def __init__(self, rules: RuleTable, authenticator: Authenticates) -> None:
        self.rules = rules
        self._authenticate = authenticator.authenticate

    async def admit(self, sent: Sent) -> Admitted:
        """Judge a request by the rule that its method and path choose.

        Raises TokenError (no_rule, ambiguous_path, and what `admit_by` raises), UnavailableError.
        """
        rule = self.rules.choose(sent.method, sent.path)
        if rule is None:
            raise TokenError(Reason.NO_RULE, "No rule allows this request.")
        return await self.admit_by(rule, sent)

    async def admit_by(self, rule: Rule, sent: Sent) -> Admitted:
        """Judge a request by this rule, whatever its path.

        Raises TokenError for the token, or for a token too few or too many; UnavailableError.
        """
        if rule.access is Access.ANONYMOUS:
            return Admitted(None, None, {}, rule)
        tokens = read_tokens(self._sources(rule), sent)
        if not tokens:
            if rule.access is Access.OPTIONAL:
                return Admitted(None, None, {}, rule)
            raise TokenError(Reason.NO_TOKEN, "No token was sent.")
        if rule.requirement.all_issuers:
            return await self._admit_all(rule, tokens)
        if len(tokens) > 1:
            raise TokenError(Reason.MULTIPLE_TOKENS, "The request has more than one token.")
        claims = await self._authenticate(tokens[0])
        issuer = self.rules.issuers[claims["iss"]]
        rule.requirement.check(claims, issuer)
        return Admitted(claims, issuer.name, {issuer.name: claims}, rule)

    async def _admit_all(self, rule: Rule, tokens: Sequence[str]) -> Admitted:
        """Judge a request that must have a good token of each of several issuers."""
        wanted = rule.requirement.all_issuers
        found: dict[str, Claims] = {}
        issuers: dict[str, Issuer] = {}
        for token in tokens:
            claims = await self._authenticate(token)
            issuer = self.rules.issuers[claims["iss"]]
            if issuer.name not in wanted:
                raise TokenError(
                    Reason.FORBIDDEN, "Tokens of this issuer are not accepted for this request."
                )
            if issuer.name in found:
                raise TokenError(
                    Reason.MULTIPLE_TOKENS, "The request has more than one token of one issuer."
                )
            found[issuer.name], issuers[issuer.name] = claims, issuer
        if len(found) < len(wanted):
            raise TokenError(Reason.NO_TOKEN, "A token of another issuer is needed as well.")
        first = wanted[0]
        rule.requirement.check(found[first], issuers[first])
        return Admitted(found[first], first, found, rule)

    def _sources(self, rule: Rule) -> Sequence[TokenSource]:
        if not rule.sources:
            return self.rules.sources
        return [source for source in self.rules.sources if source.name in rule.sources]


def read_tokens(sources: Sequence[TokenSource], sent: Sent) -> list[str]:
    """The tokens that a request carries, of each source at most one. Raises TokenError:
    multiple_tokens (of one source), malformed_header.
    """
    tokens = []
    for source in sources:
        token = read_token(source, sent)
        if token is not None:
            tokens.append(token)
    return tokens


def read_token(source: TokenSource, sent: Sent) -> str | None:
    """The token of one source; None when nothing, or credentials of another kind, was sent.

    For `Authorization`: RFC 6750 section 2.1. Raises TokenError: multiple_tokens, malformed_header.
    """
    values = sent.cookie(source.cookie) if source.cookie else sent.header(source.header)
    if not values:
        return None
    if len(values) > 1:
        raise TokenError(Reason.MULTIPLE_TOKENS, "The request has more than one token.")
    text = values[0].strip(" \t")
    if source.scheme:
        scheme, _, text = text.partition(" ")
        if scheme.lower() != source.scheme:
            # Another scheme is another kind of credentials: for us, nothing was sent.
            return None
        text = text.strip(" ")
        if not text:
            raise TokenError(Reason.MALFORMED_HEADER, "The header field has no token.")
    if " " in text or "," in text or "\t" in text:
        raise TokenError(Reason.MALFORMED_HEADER, "The header field holds more than one token.")
    return text or None
