"""RefusalLog: a line for each refused request, until there are too many of one reason.

An accepted request comes nowhere near this file. What a refused one sent is logged in three cases
only: a request id and a trace id of the right form, so that its way through other services can be
followed; and the claims that the operator named in KEYCACHE_LOG_CLAIMS, as *the token says* them,
proven or not. The token, its parts and the URL never are.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex

from sanic import HTTPResponse, Request

from app.web.question import Question, of_sanic
from keycache.core.token import parse_token
from keycache.errors import TokenError, UnavailableError
from keycache.guard import read_tokens
from keycache.issuer import Issuer
from keycache.rules import AUTHORIZATION, TokenSource

logger = logging.getLogger("keycache.refusals")

LINES, WINDOW = 5, 10.0
"""Lines of one reason a worker writes in so many seconds; the others are counted."""

CLAIM_CHARS = 128
SECRET = ("authorization", "cookie")
"""Header fields that hold credentials, whatever is configured."""

UNAVAILABLE = "temporarily_unavailable"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=+/-]{1,64}")
_TRACE = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

Later = Callable[[float, Callable[[], None]], object]


class RefusalLog:
    """Told of every refusal; by JWTAuth see `keycache.sanic.JWTAuth`, `on_refusal`.

    claims: those whose values may be logged. sources: where tokens are sent. token_bytes,
    kid_chars: limits of size, as for the verification. later: calls a function after so many
    seconds (`loop.call_later`).
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        claims: Iterable[str],
        limits: tuple[int, int],
        later: Later,
        sources: Sequence[TokenSource] = (AUTHORIZATION,),
    ) -> None:
        self._names = {issuer.issuer: issuer.name for issuer in issuers}
        self._claims = tuple(claims)
        self._sources = sources
        self._secret = {*SECRET, *(source.header for source in sources)}
        self._token_bytes, self._kid_chars = limits
        self._later = later
        self._said: dict[str, int] = {}  # how often in this window, said or not

    def __call__(
        self, request: Request, error: TokenError | UnavailableError, answer: HTTPResponse
    ) -> None:
        """Note a refusal by JWTAuth; the answer gets the request id to be asked about."""
        route = request.route.path if request.route else ""
        question = of_sanic(request, trusted=False)
        answer.headers["X-Request-ID"] = self.note(question, error, answer.status, f"/{route}")

    def note(
        self, question: Question, error: TokenError | UnavailableError, status: int, route: str
    ) -> str:
        """Log a refusal, or count it; returns the request id."""
        about = request_fields(question, self._secret)
        reason = str(error.reason) if isinstance(error, TokenError) else UNAVAILABLE
        if self._may_say(reason):
            fields: dict[str, object] = {
                "reason": reason,
                "status": status,
                **self._told_by_token(question),
                "method": question.method[:10],
                "route": route,
                **about,
            }
            logger.info("refused", extra={"fields": fields})
        return about["request_id"]

    def close(self) -> None:
        """Say how many were left out until now."""
        for reason in list(self._said):
            self._end(reason)

    def _may_say(self, reason: str) -> bool:
        if reason not in self._said:
            self._said[reason] = 0
            self._later(WINDOW, lambda: self._end(reason))
        self._said[reason] += 1
        return self._said[reason] <= LINES

    def _end(self, reason: str) -> None:
        left_out = self._said.pop(reason, 0) - LINES
        if left_out > 0:
            fields = {"reason": reason, "left_out": left_out, "seconds": WINDOW}
            logger.info("refused, and not logged one by one", extra={"fields": fields})

    def _told_by_token(self, question: Question) -> dict[str, object]:
        try:
            text = next(iter(read_tokens(self._sources, question)), "")
            token = parse_token(text, self._token_bytes, self._kid_chars)
        except TokenError:
            return {"issuer": "unknown"}
        issuer = token.payload.get("iss")
        name = self._names.get(issuer, "unknown") if isinstance(issuer, str) else "unknown"
        claims = {
            claim: _bounded(token.payload[claim])
            for claim in self._claims
            if claim in token.payload
        }
        return {"issuer": name} | ({"token_says": claims} if claims else {})


def request_fields(question: Question, secret: Iterable[str] = SECRET) -> dict[str, str]:
    """What connects a log line with those of other services: the request id, and the trace id where
    there is one.

    `X-Request-ID` is taken as it came if it has a sober form and is no piece of what the `secret`
    header fields hold; else there is a new one. `traceparent`: W3C Trace Context, Level 1, section
    3.2.
    """
    sent = question.header("x-request-id")
    if (
        len(sent) == 1
        and _REQUEST_ID.fullmatch(sent[0])
        and not _is_part(sent[0], question, secret)
    ):
        fields = {"request_id": sent[0]}
    else:
        fields = {"request_id": token_hex(16)}
    parents = question.header("traceparent")
    if len(parents) == 1 and (trace_id := traced(parents[0])) is not None:
        fields["trace_id"] = trace_id
    return fields


def _is_part(text: str, question: Question, secret: Iterable[str]) -> bool:
    return len(text) >= 16 and any(
        text in value for name in secret for value in question.header(name)
    )


def traced(parent: str) -> str | None:
    """The trace id in a `traceparent`, None when it is not valid. A later version than 00 may have
    more to say behind a hyphen (section 3.2.4)."""
    match = _TRACE.match(parent)
    if match is None:
        return None
    rest = parent[match.end() :]
    if rest and (match[1] == "00" or not rest.startswith("-")):
        return None
    return match[2]


def _bounded(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:CLAIM_CHARS]
