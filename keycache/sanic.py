"""JWTAuth: protects a Sanic application, by path prefix, by decorator, or both.

    auth = JWTAuth(app, issuer="https://id.example.com/", audience="my-api", protect="/api")

    @app.get("/reports")
    @auth.required(scopes="reports:read")
    async def reports(request): ...

A handler behind it reads the claims in `request.ctx.user`. Each worker process makes its own
Runtime before it serves, and closes it after it has stopped. The only file of keycache that knows
Sanic.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from inspect import isawaitable
from posixpath import normpath
from typing import Any, overload
from urllib.parse import unquote

from sanic import HTTPResponse, Request, Sanic, json

from keycache.core.claims import Claims, scopes
from keycache.errors import ConfigurationError, KeycacheError, Reason, TokenError, UnavailableError
from keycache.events import Observer, ignore
from keycache.issuer import Issuer
from keycache.problems import check_realm, check_scopes, problem
from keycache.runtime import Options, Runtime, check_distinct

Handler = Callable[..., Any]
OnRefusal = Callable[[Request, TokenError | UnavailableError, HTTPResponse], None]


class JWTAuth:
    """Lets requests in that carry a good bearer token (RFC 6750), and answers the others.

    app: the application, or give it to `init_app` later.
    issuer: the `iss` of your tokens, or one or more `Issuer` objects.
    audience: who your API is (`aud`), when `issuer` is a string; so is `jwks_url` then: where the
        keys are, if not where the issuer's discovery document says.
    options: everything about keys and caches, see `Options`.
    observer: told of every fact, for metrics.
    on_refusal: told of every request that is refused, with the error and the answer, to which it
        may add header fields; for logs. It must not raise.
    realm: names the protected space in challenges (RFC 9110 section 11.5).
    protect: path prefixes that need a token: `/api` covers `/api` and everything below it, whether
        a route is there or not. A CORS preflight, which never carries a token, is let through to a
        handler for OPTIONS alone. Your own middleware that answers preflights needs a priority
        above 1000, to come before this one.

    Raises ConfigurationError, with every problem, before anything is served.
    """

    def __init__(  # noqa: PLR0913 - every part but the issuer has a default that is right for most
        self,
        app: Sanic[Any, Any] | None = None,
        *,
        issuer: str | Issuer | Sequence[Issuer],
        audience: str | Sequence[str] = (),
        jwks_url: str | None = None,
        options: Options | None = None,
        observer: Observer = ignore,
        on_refusal: OnRefusal | None = None,
        realm: str = "api",
        protect: str | Iterable[str] = (),
    ) -> None:
        if isinstance(issuer, str):
            audiences = (audience,) if isinstance(audience, str) else tuple(audience)
            issuer = Issuer(issuer=issuer, audiences=audiences, jwks_url=jwks_url)
        elif audience or jwks_url:
            raise ConfigurationError(
                ["audience, jwks_url: belong into the Issuer object when one is given"]
            )
        self.issuers = (issuer,) if isinstance(issuer, Issuer) else tuple(issuer)
        check_distinct(self.issuers)
        self._options = options or Options()
        self._observer = observer
        self._on_refusal = on_refusal
        self._realm = check_realm(realm)
        prefixes = (protect,) if isinstance(protect, str) else tuple(protect)
        if not all(prefix.startswith("/") for prefix in prefixes):
            raise ConfigurationError(["protect: a path prefix begins with /"])
        self._prefixes = tuple(prefix.rstrip("/") for prefix in prefixes)
        self._runtime: Runtime | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Sanic[Any, Any]) -> None:
        """Protect this application: its workers open the runtime before they serve."""
        app.before_server_start(self._open)
        app.after_server_stop(self._close)
        if self._prefixes:
            # Before the application's own middleware: it may rely on request.ctx.user.
            app.register_middleware(self._guard, "request", priority=1000)

    @property
    def runtime(self) -> Runtime:
        """The runtime of this worker. Raises RuntimeError before the server has started."""
        if self._runtime is None:
            raise RuntimeError("JWTAuth is open between before_server_start and after_server_stop")
        return self._runtime

    @overload
    def required(self, handler: Handler, /) -> Handler: ...
    @overload
    def required(self, /, *, scopes: str | Iterable[str]) -> Callable[[Handler], Handler]: ...
    def required(
        self, handler: Handler | None = None, /, *, scopes: str | Iterable[str] = ()
    ) -> Handler | Callable[[Handler], Handler]:
        """Decorate a handler that needs a token; with `scopes` (a string separated by spaces, or
        an iterable) one that grants them all, or the answer is 403 `insufficient_scope`.
        Raises ConfigurationError for what is no scope.
        """
        needed = check_scopes(scopes.split() if isinstance(scopes, str) else tuple(scopes))

        def decorate(handler: Handler) -> Handler:
            @wraps(handler)
            async def protected(request: Request, *args: object, **kwargs: object) -> object:
                refusal = await self._admit(request, needed)
                if refusal is not None:
                    return refusal
                answer = handler(request, *args, **kwargs)
                return await answer if isawaitable(answer) else answer

            return protected

        return decorate(handler) if handler is not None else decorate

    async def authenticate(self, request: Request) -> Claims:
        """The claims of the request's token. Raises TokenError or UnavailableError."""
        return await self.runtime.authenticator.authenticate(bearer_token(request))

    async def _guard(self, request: Request) -> HTTPResponse | None:
        if _is_preflight(request) or not self._covers(request):
            return None
        return await self._admit(request, ())

    def _covers(self, request: Request) -> bool:
        """Whether a protected prefix covers this request: by its path as sent, as decoded and
        without `.` and `..`, and by the path of the route that Sanic chose. Two readings of one
        path must not open a way round.
        """
        try:
            path = request.path
        except AttributeError:
            return True  # `CONNECT host:443`, `GET http://host`: Sanic can read no path in these
        readings = {path, request.uri_template or ""}
        if "%" in path or "//" in path or "/." in path:
            decoded = re.sub("/+", "/", unquote(path))
            readings |= {decoded, normpath(decoded)}
        return any(
            reading == prefix or reading.startswith(f"{prefix}/")
            for reading in readings
            for prefix in self._prefixes
        )

    async def _admit(self, request: Request, needed: tuple[str, ...]) -> HTTPResponse | None:
        """None when the request may go on; the answer when it may not."""
        try:
            claims = getattr(request.ctx, "user", None)
            if not isinstance(claims, Claims):
                claims = await self.authenticate(request)
            _check_scopes(claims, needed)
        except (TokenError, UnavailableError) as error:
            answer = refuse(error, self._realm)
            if self._on_refusal is not None:
                self._on_refusal(request, error, answer)
            return answer
        request.ctx.user = claims
        return None

    async def _open(self, app: Sanic[Any, Any]) -> None:
        self._runtime = Runtime(self.issuers, self._options, self._observer)
        await self._runtime.open()

    async def _close(self, app: Sanic[Any, Any]) -> None:
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.close()


def _is_preflight(request: Request) -> bool:
    """Whether a browser asks if it may ask (Fetch standard, "CORS-preflight fetch"): it does so
    without a token, always. Only for a handler that is there for OPTIONS alone, as extensions for
    CORS add it; one that has other work too stays behind its prefix.
    """
    return (
        request.method == "OPTIONS"
        and request.route is not None
        and request.route.methods == {"OPTIONS"}
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )


def _check_scopes(claims: Claims, needed: tuple[str, ...]) -> None:
    if needed and not scopes(claims).issuperset(needed):
        raise TokenError(
            Reason.INSUFFICIENT_SCOPE,
            "The token does not grant what this request needs.",
            scope=" ".join(needed),
        )


def bearer_token(request: Request) -> str:
    """The one bearer token of a request (RFC 6750 section 2.1). Raises TokenError.

    Sanic's own `request.token` also accepts `Token t`, `XBearer t` and a bare token, and joins
    several headers; a verifier must not.
    """
    fields: list[str] = request.headers.getall("authorization", [])
    if not fields:
        raise TokenError(Reason.NO_TOKEN, "No token was sent.")
    if len(fields) > 1:
        raise TokenError(
            Reason.MULTIPLE_TOKENS, "The request has more than one Authorization header."
        )
    scheme, _, token = fields[0].strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        # Another scheme is another kind of credentials: for us, nothing was sent.
        raise TokenError(Reason.NO_TOKEN, "No bearer token was sent.")
    token = token.strip(" ")
    if not token:
        raise TokenError(Reason.MALFORMED_HEADER, "The Authorization header has no token.")
    if " " in token or "," in token or "\t" in token:
        raise TokenError(
            Reason.MALFORMED_HEADER, "The Authorization header holds more than one token."
        )
    return token


def refuse(error: KeycacheError, realm: str) -> HTTPResponse:
    """The answer to a request that was refused with this error."""
    answer = problem(error, realm)
    return json(answer.body, status=answer.status, headers=answer.headers)
