"""Guard: the one place where a request is judged by the rules; knows no framework.

The rule is chosen by method and path, the token is found where the rule looks for it, verified by
the authenticator, and held against what the rule asks. Nothing here awaits but the authenticator,
and that only for a key that is not known.

Most requests carry a token that came before, to be judged by the same rule. So the header fields of
tokens that were found in the token cache are remembered, a bounded number of them, with what came
of them: to look one up costs a third of reading the token, its digest and the look-up of that. The
token cache is asked each time whether it still stands (`Authenticator.still`). Nobody can fill this
memory but with good tokens that are sent again; it holds them as they were sent, and so does a
worker's memory for every request that it is about to answer.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

import msgspec

from keycache.core.claims import Claims
from keycache.errors import Reason, TokenError
from keycache.rules import Access, Rule, RuleTable, TokenSource
from keycache.token_cache import Accepted


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
    """A request that may go on, and why. One object may be told of many requests; nothing in it can
    be changed.

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


class Recognised(msgspec.Struct, frozen=True, gc=False):
    """Who is let in without waiting; and by which token, where it was in the token cache."""

    admitted: Admitted
    token: Accepted | None = None


class Authenticates(Protocol):
    """What a guard needs of an Authenticator."""

    async def authenticate(self, text: str, /) -> Claims:
        """The claims of this token. Raises TokenError or UnavailableError."""

    def known(self, text: str, /) -> Accepted | None:
        """The token, without waiting; None when that cannot be. Raises TokenError or
        UnavailableError.
        """

    def still(self, accepted: Accepted, /) -> bool:
        """Whether a token that was known before still is."""

    def named(self, name: bytes, /) -> Accepted | None:
        """The token that was given this name, if it still is known."""

    def name(self, accepted: Accepted, name: bytes, /) -> None:
        """Give a token that was known before a name."""


REMEMBERED = 1024
"""Methods and paths whose rule is remembered; a web framework's router remembers as many."""

SEEN = 2048
"""Header fields that are remembered, with what came of them: one or two KB each."""

# Looking up a member of an enumeration costs more than all else that is done with it here.
_ANONYMOUS, _REQUIRED = Access.ANONYMOUS, Access.REQUIRED

_NOBODY: Mapping[str, Claims] = MappingProxyType({})


class Guard:
    """Judges requests by a table of rules."""

    def __init__(self, rules: RuleTable, authenticator: Authenticates) -> None:
        self.rules = rules
        self._choose = lru_cache(REMEMBERED)(rules.choose)
        self._authenticator = authenticator
        # By header field and rule, where a token can only be in that field.
        self._seen: dict[tuple[str, int], Recognised] = {}
        self._field = rules.sources[0].header if len(rules.sources) == 1 else ""

    async def admit(self, sent: Sent) -> Admitted:
        """Judge a request by the rule that its method and path choose.

        Raises TokenError (no_rule, ambiguous_path, and what `admit_by` raises), UnavailableError.
        """
        return await self.admit_by(self._rule(sent), sent)

    async def admit_by(self, rule: Rule, sent: Sent) -> Admitted:
        """Judge a request by this rule, whatever its path.

        Raises TokenError: for a token that is bad, or does not allow this; for none, where one is
        required; for more than one, where one will do. Raises UnavailableError.
        """
        tokens = self._tokens(rule, sent)
        found = [await self._authenticator.authenticate(token) for token in tokens]
        return self._judge(rule, found)

    def known(self, sent: Sent) -> Recognised | None:
        """What `admit` says, when it need not wait; None, and nothing has happened, when it may
        have to. Raises as `admit` does.
        """
        return self.known_by(self._rule(sent), sent)

    def known_by(self, rule: Rule, sent: Sent) -> Recognised | None:
        """What `admit_by` says, when it need not wait; None, and nothing has happened, when it may
        have to. Raises as `admit_by` does.
        """
        if rule.requirement.all_issuers:
            return None
        fields = sent.header(self._field) if self._field else ()
        place = (fields[0], id(rule)) if len(fields) == 1 else None
        if place:
            seen = self._seen.get(place)
            if seen is not None and seen.token and self._authenticator.still(seen.token):
                return seen
        tokens = self._tokens(rule, sent)
        if not tokens:
            return Recognised(Admitted(None, None, _NOBODY, rule))
        accepted = self._authenticator.known(tokens[0])
        if accepted is None:
            return None
        admitted = self._judge_one(rule, accepted.claims)
        if not accepted.found:
            return Recognised(admitted)
        known = Recognised(admitted, accepted)
        if place:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen[place] = known
        return known

    def _rule(self, sent: Sent) -> Rule:
        rule = self._choose(sent.method, sent.path)
        if rule is None:
            raise TokenError(Reason.NO_RULE, "No rule allows this request.")
        return rule

    def _tokens(self, rule: Rule, sent: Sent) -> Sequence[str]:
        """The tokens to verify: one, unless the rule wants more; none, if it allows that."""
        access = rule.access
        if access is _ANONYMOUS:
            return ()
        sources: Sequence[TokenSource] = self.rules.sources
        if rule.sources:
            sources = [source for source in sources if source.name in rule.sources]
        tokens = read_tokens(sources, sent)
        if not tokens and access is _REQUIRED:
            raise TokenError(Reason.NO_TOKEN, "No token was sent.")
        if len(tokens) > 1 and not rule.requirement.all_issuers:
            raise TokenError(Reason.MULTIPLE_TOKENS, "The request has more than one token.")
        return tokens

    def _judge(self, rule: Rule, found: Sequence[Claims]) -> Admitted:
        """Hold the claims of good tokens against the rule. Raises TokenError."""
        if not found:
            return Admitted(None, None, _NOBODY, rule)
        if rule.requirement.all_issuers:
            return self._judge_all(rule, found)
        return self._judge_one(rule, found[0])

    def _judge_one(self, rule: Rule, claims: Claims) -> Admitted:
        issuer = self.rules.issuers[claims["iss"]]
        if not rule.requirement.is_empty:
            rule.requirement.check(claims, issuer)
        return Admitted(claims, issuer.name, MappingProxyType({issuer.name: claims}), rule)

    def _judge_all(self, rule: Rule, found: Sequence[Claims]) -> Admitted:
        """The same where tokens of several issuers must be sent, one of each and no others."""
        wanted = rule.requirement.all_issuers
        issuers = [self.rules.issuers[claims["iss"]] for claims in found]
        by_name = {issuer.name: claims for issuer, claims in zip(issuers, found, strict=True)}
        if not by_name.keys() <= set(wanted):
            raise TokenError(
                Reason.FORBIDDEN, "Tokens of this issuer are not accepted for this request."
            )
        if len(by_name) < len(found):
            raise TokenError(
                Reason.MULTIPLE_TOKENS, "The request has more than one token of one issuer."
            )
        if len(by_name) < len(wanted):
            raise TokenError(Reason.NO_TOKEN, "A token of another issuer is needed as well.")
        first = by_name[wanted[0]]
        rule.requirement.check(first, self.rules.issuers[first["iss"]])
        return Admitted(first, wanted[0], MappingProxyType(by_name), rule)


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
