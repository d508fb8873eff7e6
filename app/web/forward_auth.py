"""ForwardAuth: what `/verify` answers, whoever carries the question and the answer.

    question → the request it asks about → rule → token → claims → identity → answer
                   (where there are rules)   └─────── refused, and why ─────────┘

An answer is kept for as long as the claims that it is about are, as their note. `decide` never
awaits. Where only waiting for a key can tell, it has no answer, and nothing has
happened; `answer` then waits. A request that is the same to the last byte as one that was let in by
a token which had come before hangs on that token alone: `again` asks for nothing else.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf

import msgspec
from sanic import HTTPResponse

from app.settings.headers import IDENTITY_HEADERS, IdentityHeader
from app.web.identity import identity
from app.web.internal_token import InternalTokens
from app.web.original import Network, original
from app.web.question import Question
from keycache.core.claims import Claims, scopes
from keycache.errors import ConfigurationError, Reason, TokenError, UnavailableError
from keycache.guard import Admitted, Authenticates, Guard
from keycache.rules import Rule, RuleTable

ANY_GOOD_TOKEN = Rule(path="/**")
"""The rule where none is configured."""

ABOUT_NOTHING = Rule(path="/**")
"""The rule where some are, and a proxy does not say what it asks about. What is wrong with a token
comes first: so its health check, which has none, sees by the 401 that we are there.
"""

Refusal = TokenError | UnavailableError


class Answer(msgspec.Struct, gc=False):
    """An answer to a question. wire: its bytes, once somebody has needed them."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    content_type: str
    wire: bytes = b""

    def response(self) -> HTTPResponse:
        """The answer as Sanic sends it."""
        return HTTPResponse(self.body, self.status, dict(self.headers), self.content_type)


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """The answer that this ForwardAuth gave for some claims, of which it is the note, and until
    when it may: seconds since the epoch.
    """

    by: "ForwardAuth"
    answer: Answer
    until: float


class ForwardAuth:
    """Answers questions about requests.

    table: the rules, the issuers and the token sources; without rules a good token is enough, and
        nobody asks which request it came with.
    refuse: makes the answer to a question that is refused.
    proxies: whose word about the original request is taken.
    headers: the fields of a good answer. internal: the name of one more, for a token of our own.
    clock: seconds since the epoch.

    Raises ConfigurationError when there are rules and nobody whose word is taken.
    """

    def __init__(  # noqa: PLR0913 - the composition root names each part once
        self,
        table: RuleTable,
        refuse: Callable[[Question, Refusal], Answer],
        *,
        proxies: Sequence[Network] = (),
        headers: Sequence[IdentityHeader] = IDENTITY_HEADERS,
        internal: tuple[str, InternalTokens] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if table.rules and not proxies:
            raise ConfigurationError(
                ["trusted_proxies: there are rules; name the proxies that may ask about them"]
            )
        self.proxies = proxies
        self._table = table
        self._refuse = refuse
        self._identity = identity(headers)
        self._internal = internal
        self._clock = clock

    def open(self, authenticator: Authenticates) -> None:
        """Decide with this authenticator from now on."""
        self._guard = Guard(self._table, authenticator)
        self._authenticator = authenticator

    def again(self, name: bytes) -> Answer | None:
        """The answer to a request that `decide` was told of by this name before, if its token is
        still known.
        """
        token = self._authenticator.named(name)
        return None if token is None else self._answer(token.claims)

    def decide(self, question: Question, name: bytes = b"") -> Answer | None:
        """The answer, when it is known without waiting.

        name: what nobody but an equal request of an equal peer has: its digest; for `again`.
        """
        try:
            rule, sent = self._rule(question)
            known = self._guard.known_by(rule, sent)
            if known is None:
                return None
            answer = self._accept(known.admitted)
        except (TokenError, UnavailableError) as error:
            return self._refuse(question, error)
        if name and known.token is not None:
            self._authenticator.name(known.token, name)
        return answer

    async def answer(self, question: Question) -> Answer:
        """The answer, after waiting if need be."""
        answer = self.decide(question)
        if answer is not None:
            return answer
        try:
            rule, sent = self._rule(question)
            return self._accept(await self._guard.admit_by(rule, sent))
        except (TokenError, UnavailableError) as error:
            return self._refuse(question, error)

    def _rule(self, question: Question) -> tuple[Rule, Question]:
        """The rule that decides, and the request that it judges. Raises TokenError."""
        if not self._table.rules:
            return ANY_GOOD_TOKEN, question
        asked = original(question)
        if asked is None:
            return ABOUT_NOTHING, question
        rule = self._table.choose(asked.method, asked.path)
        if rule is None:
            raise TokenError(Reason.NO_RULE, "No rule allows this request.")
        return rule, question

    def _accept(self, admitted: Admitted) -> Answer:
        if admitted.rule is ABOUT_NOTHING:
            raise TokenError(
                Reason.UNKNOWN_REQUEST, "The proxy did not say which request it asks about."
            )
        claims = admitted.claims
        return self._good({}, (), "") if claims is None else self._answer(claims)

    def _answer(self, claims: Claims) -> Answer:
        """The answer to who has a token of these claims, and is let in."""
        now = self._clock() if self._internal else 0.0
        kept = getattr(claims, "note", None)
        if type(kept) is _Kept and kept.by is self and now < kept.until:
            return kept.answer
        issuer = self._table.issuers[claims["iss"]]
        granted = scopes(claims, issuer.scope_paths)
        token, until = "", inf
        if self._internal is not None:
            ends = claims["exp"] + issuer.leeway
            token, expires = self._internal[1].mint(claims, granted, ends, now)
            until = now + (expires - now) / 2  # what is handed out is good for a while yet
        answer = self._good(claims, granted, token)
        claims.note = _Kept(self, answer, until)
        return answer

    def _good(self, claims: Mapping[str, object], granted: Collection[str], token: str) -> Answer:
        headers = self._identity(claims, granted)
        if self._internal is not None:
            headers[self._internal[0]] = token
        headers["Cache-Control"] = "no-store"
        return Answer(200, headers, b"", "text/plain; charset=utf-8")
