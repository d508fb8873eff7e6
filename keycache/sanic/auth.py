"""JWTAuth itself: rules for paths, decorators for handlers, and both for blueprints.

Whatever says that a token is needed, one function decides, `JWTAuth._known`; a request whose token
it has verified is not verified again. Each worker process makes its own Runtime before it serves,
and closes it after it has stopped.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import isawaitable
from typing import Any, overload

from sanic import Blueprint, HTTPResponse, Request, Sanic, json
from sanic.blueprints import BlueprintGroup

from keycache.core.claims import Claims
from keycache.errors import ConfigurationError, TokenError, UnavailableError
from keycache.events import Observer, Refused, ignore
from keycache.guard import Admitted, Guard
from keycache.interfaces import Clock
from keycache.issuer import Issuer
from keycache.problems import check_realm, problem
from keycache.resource import Resource
from keycache.rules import AUTHORIZATION, Access, Requirement, Rule, RuleTable, TokenSource
from keycache.runtime import Options, Runtime, check_distinct
from keycache.sanic.extensions import extend
from keycache.sanic.marks import mark, marked
from keycache.sanic.sent import SanicRequest
from keycache.sanic.typed_claims import claims_parser

Handler = Callable[..., Any]
OnRefusal = Callable[[Request, TokenError | UnavailableError, HTTPResponse], None]
Later = Coroutine[Any, Any, HTTPResponse | None]
Words = str | Iterable[str]

FIRST = 1000
"""The priority of our middleware: the application's own may rely on request.ctx.user."""

ANYWHERE = "/**"
REQUIRED = Rule(path=ANYWHERE)

_ANONYMOUS = Access.ANONYMOUS  # looked up once: an enumeration takes its time


@dataclass(slots=True)
class _Running:
    """What lives from the start of the first application to the stop of the last."""

    runtime: Runtime
    guard: Guard
    loop: asyncio.AbstractEventLoop
    applications: int = 0


class JWTAuth:
    """Lets requests in that carry a good bearer token (RFC 6750), and answers the others.

    app: the application, or give it to `init_app` later; several of one process may share it.
    issuer: the `iss` of your tokens, or one or more `Issuer` objects.
    audience: who your API is (`aud`), when `issuer` is a string; so is `jwks_url` then: where the
        keys are, if not where the issuer's discovery document says.
    options: everything about keys and caches, see `Options`.
    observer: told of every fact, for metrics.
    on_refusal: told of every request that is refused, with the error and the answer, to which it
        may add header fields; for logs. It must not raise.
    realm: names the protected space in challenges (RFC 9110 section 11.5).
    protect: path prefixes that need a token, all other paths being open: `/api` covers `/api` and
        everything below it, whether a route is there or not.
    rules: instead of `protect`: every request is judged by the first rule that matches its method
        and path, and refused when there is none.
    sources: where tokens are looked for.
    resource: the URL under which clients know this API, or more metadata about it: served as
        RFC 9728 has it, and named in challenges.
    claims_type: a dataclass, TypedDict, msgspec Struct or pydantic model; `request.ctx.user` is
        then an object of this type. A token whose claims do not fit is refused (401
        `invalid_claim`).

    A handler reads the claims in `request.ctx.user`, None when no token was sent and none is
    needed, and everything else in `request.ctx.admitted` (see `keycache.guard.Admitted`). A CORS
    preflight, which never carries a token, is let through to a handler for OPTIONS alone; your own
    middleware that answers preflights needs a priority above 1000, to come before this one.

    Raises ConfigurationError, with every problem, before anything is served.
    """

    def __init__(  # noqa: PLR0913 - every part but the issuer has a default that is right for most
        self,
        app: Sanic[Any, Any] | None = None,
        *,
        issuer: str | Issuer | Sequence[Issuer],
        audience: Words = (),
        jwks_url: str | None = None,
        options: Options | None = None,
        observer: Observer = ignore,
        on_refusal: OnRefusal | None = None,
        realm: str = "api",
        protect: Words = (),
        rules: Sequence[Rule] = (),
        sources: Sequence[TokenSource] = (AUTHORIZATION,),
        resource: Resource | str | None = None,
        claims_type: Any = None,  # noqa: ANN401 - a class of one of four kinds
    ) -> None:
        if isinstance(issuer, str):
            issuer = Issuer(issuer=issuer, audiences=_each(audience), jwks_url=jwks_url)
        elif audience or jwks_url:
            raise ConfigurationError(
                ["audience, jwks_url: belong into the Issuer object when one is given"]
            )
        self.issuers = (issuer,) if isinstance(issuer, Issuer) else tuple(issuer)
        check_distinct(self.issuers)
        self.options = options or Options()
        self.clock: Clock | None = None
        self.resource = Resource(resource=resource) if isinstance(resource, str) else resource
        self.claims_type = claims_type
        self._parse = claims_parser(claims_type) if claims_type is not None else None
        self._observer = observer
        self._on_refusal = on_refusal
        self._realm = check_realm(realm)
        if protect and rules:
            raise ConfigurationError(
                ['protect, rules: give one of them; protect="/api" is short for a rule for /api/**']
            )
        self.rules = RuleTable(
            rules or _rules(_each(protect)), issuers=self.issuers, sources=sources
        )
        self._attribute = f"_admitted_{id(self)}"  # another JWTAuth trusts other tokens
        self._by_blueprint: dict[str, Rule] = {}
        self._running: _Running | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Sanic[Any, Any]) -> None:
        """Protect this application: its workers open the runtime before they serve."""
        app.before_server_start(self._open)
        app.after_server_stop(self._close)
        if self.rules.rules:
            app.register_middleware(self._before, "request", priority=FIRST)
        if self.resource is not None:
            app.add_route(self._metadata, self.resource.metadata_path, name="protected_resource")

    @property
    def runtime(self) -> Runtime:
        """The runtime of this worker. Raises RuntimeError before the server has started."""
        return self._opened().runtime

    @overload
    def required(self, handler: Handler, /) -> Handler: ...
    @overload
    def required(
        self,
        /,
        *,
        scopes: Words = (),
        any_scope: Words = (),
        claims: Mapping[str, object] | None = None,
        issuers: Words = (),
    ) -> Callable[[Handler], Handler]: ...
    def required(
        self,
        handler: Handler | None = None,
        /,
        *,
        scopes: Words = (),
        any_scope: Words = (),
        claims: Mapping[str, object] | None = None,
        issuers: Words = (),
    ) -> Handler | Callable[[Handler], Handler]:
        """Decorate a handler, of HTTP or of a WebSocket, that needs a good token, and may ask more.

        scopes, any_scope: it grants all, or one, of these (a string separated by spaces, or an
            iterable), or the answer is 403 `insufficient_scope`.
        claims: it says this, in the short form of `keycache.predicates`, or 403 `forbidden`.
        issuers: one of the issuers of these names issued it, or 403 `forbidden`.

        Raises ConfigurationError for what cannot be asked.
        """
        rule = self._rule(scopes, any_scope, claims, issuers)

        def decorate(handler: Handler) -> Handler:
            return self._guarded(handler, rule)

        return decorate(handler) if handler is not None else decorate

    def optional(self, handler: Handler, /) -> Handler:
        """Decorate a handler for everybody; but a token that is sent must be good. Without one,
        `request.ctx.user` is None.
        """
        return self._guarded(handler, Rule(path=ANYWHERE, access=Access.OPTIONAL))

    def protect(
        self,
        blueprint: Blueprint | BlueprintGroup,
        /,
        *,
        scopes: Words = (),
        any_scope: Words = (),
        claims: Mapping[str, object] | None = None,
        issuers: Words = (),
    ) -> None:
        """Ask for a token in all routes of a blueprint or of a group; the rest as in `required`.

        Raises ConfigurationError for a blueprint that has already been added to an application.
        """
        rule = self._rule(scopes, any_scope, claims, issuers)

        async def before(request: Request) -> HTTPResponse | None:
            return await self._admit(request, rule)

        for each in _blueprints(blueprint):
            if each.registered:
                raise ConfigurationError(
                    [f"protect: do it before app.blueprint({each.name}), or it comes too late"]
                )
            each.middleware(before, "request", priority=FIRST)
            self._by_blueprint[each.name] = rule

    async def authenticate(self, request: Request) -> Claims:
        """The claims of the request's token. Raises TokenError or UnavailableError."""
        guard = self._opened().guard
        admitted = await guard.admit_by(REQUIRED, SanicRequest(request))
        assert admitted.claims is not None  # noqa: S101 - the rule says so
        return admitted.claims

    @property
    def sources(self) -> tuple[TokenSource, ...]:
        """Where tokens are looked for."""
        return self.rules.sources

    def rule_of(
        self,
        app: Sanic[Any, Any],
        route: Any,  # noqa: ANN401 - Sanic has no type for it
        method: str,
    ) -> Rule | None:
        """By which rule the requests for a route of this application are judged, its handler's
        before its blueprint's before its path's; None: by none.
        """
        found = marked(route.handler, self, method)
        if found is not None:
            return found
        for name, rule in self._by_blueprint.items():
            if name in app.blueprints and route in app.blueprints[name].routes:
                return rule
        if not self.rules.rules or route.handler == self._metadata:
            return None
        path = re.sub("<[^>]*>", "any", f"/{route.path}")
        with suppress(TokenError):
            return self.rules.choose(method, path)
        return None

    async def admit_for(self, request: Request) -> Admitted | HTTPResponse:
        """Judge a request by the rules of its path and its handler, so that its claims are known;
        the answer if it is refused. Who asks for claims and has no rule needs a token.
        """
        try:
            admitted = await self._judge(request, None) if self.rules.rules else None
            handler = request.route.handler if request.route else None
            found = marked(handler, self, request.method) if handler else None
            if found is not None:
                return await self._judge(request, found)
            if admitted is None or admitted.rule.access is Access.ANONYMOUS:
                return await self._judge(request, REQUIRED)
        except (TokenError, UnavailableError) as error:
            return self._refuse(request, error)
        return admitted

    def _rule(
        self, scopes: Words, any_scope: Words, claims: Mapping[str, object] | None, issuers: Words
    ) -> Rule:
        requirement = Requirement(
            issuers=_each(issuers),
            scopes=_words(scopes),
            any_scope=_words(any_scope),
            claims=claims or {},
        )
        rule = Rule(path=ANYWHERE, requirement=requirement)
        RuleTable([rule], issuers=self.issuers)  # refuses a rule that asks for the impossible
        return rule

    def _guarded(self, handler: Handler, rule: Rule) -> Handler:
        async def waited(request: Request, args: Any, kwargs: Any) -> object:  # noqa: ANN401
            try:
                await self._ask(request, rule)
            except (TokenError, UnavailableError) as error:
                return self._refuse(request, error)
            answer = handler(*args, **kwargs)
            return await answer if isawaitable(answer) else answer

        async def refused(request: Request, error: TokenError | UnavailableError) -> object:
            return self._refuse(request, error)

        # No coroutine, but a function that returns one: where nothing must be waited for, this is
        # the handler's own.
        @wraps(handler)
        def guarded(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401
            # A method of a view has its object in front.
            request = args[0] if isinstance(args[0], Request) else args[1]
            try:
                if self._known(request, rule) is None:
                    return waited(request, args, kwargs)
            except (TokenError, UnavailableError) as error:
                return refused(request, error)
            return handler(*args, **kwargs)

        return mark(guarded, self, rule)

    def _before(self, request: Request) -> Later | HTTPResponse | None:
        """Judge a request by the rules for paths; awaitable only where we must wait."""
        try:
            return self._wait(request) if self._known(request, None) is None else None
        except (TokenError, UnavailableError) as error:
            return None if self._is_open(request) else self._refuse(request, error)

    async def _wait(self, request: Request) -> HTTPResponse | None:
        try:
            await self._ask(request, None)
        except (TokenError, UnavailableError) as error:
            return None if self._is_open(request) else self._refuse(request, error)
        return None

    async def _admit(self, request: Request, rule: Rule) -> HTTPResponse | None:
        """None when the request may go on; the answer when it may not."""
        try:
            await self._judge(request, rule)
        except (TokenError, UnavailableError) as error:
            return self._refuse(request, error)
        return None

    def _known(self, request: Request, rule: Rule | None) -> Admitted | None:
        """Judge a request by this rule, or by the one for its path; None, and nothing has happened,
        when we may have to wait. Raises TokenError, UnavailableError.
        """
        context = request.ctx
        admitted: Admitted | None = getattr(context, self._attribute, None)
        if admitted is not None:
            if rule is None or rule is admitted.rule:
                return admitted
            claims = admitted.claims
            if claims is not None:
                rule.requirement.check(claims, self.rules.issuers[claims["iss"]])
                return admitted
        running = self._running or self._opened()
        sent = SanicRequest(request)
        guard = running.guard
        known = guard.known(sent) if rule is None else guard.known_by(rule, sent)
        return None if known is None else self._remember(context, known.admitted)

    async def _judge(self, request: Request, rule: Rule | None) -> Admitted:
        """The same, with all the time that it takes."""
        return self._known(request, rule) or await self._ask(request, rule)

    async def _ask(self, request: Request, rule: Rule | None) -> Admitted:
        """The same, knowing that we must wait."""
        guard, sent = self._opened().guard, SanicRequest(request)
        admitted = await (guard.admit(sent) if rule is None else guard.admit_by(rule, sent))
        return self._remember(request.ctx, admitted)

    def _remember(self, context: Any, admitted: Admitted) -> Admitted:  # noqa: ANN401 - yours
        """Tell the handler. Raises TokenError for claims that do not fit their type."""
        if admitted.rule.access is not _ANONYMOUS:
            claims = admitted.claims
            context.user = claims if self._parse is None else claims and self._parse(claims)
            context.admitted = admitted
        setattr(context, self._attribute, admitted)
        return admitted

    def _refuse(self, request: Request, error: TokenError | UnavailableError) -> HTTPResponse:
        metadata_url = self.resource.metadata_url if self.resource else None
        said = problem(error, self._realm, metadata_url)
        answer = json(said.body, status=said.status, headers=said.headers)
        self._observer(Refused(error.reason if isinstance(error, TokenError) else None))
        if self._on_refusal is not None:
            self._on_refusal(request, error, answer)
        return answer

    def _is_open(self, request: Request) -> bool:
        """Whether a request needs no token whatever the rules say: a CORS preflight, and the
        question where a token is to be had.

        A browser asks if it may ask (Fetch standard, "CORS-preflight fetch") without a token,
        always. Only for a handler that is there for OPTIONS alone, as extensions for CORS add it;
        one that has other work too stays behind its rule.
        """
        route = request.route
        if route is None:
            return False
        if route.handler == self._metadata:
            return True
        return (
            request.method == "OPTIONS"
            and route.methods == {"OPTIONS"}
            and "origin" in request.headers
            and "access-control-request-method" in request.headers
        )

    async def _metadata(self, _: Request) -> HTTPResponse:
        assert self.resource is not None  # noqa: S101 - or there would be no such route
        return json(
            self.resource.document(self.issuers), headers={"Cache-Control": "public, max-age=300"}
        )

    def _opened(self) -> _Running:
        if self._running is None:
            raise RuntimeError("JWTAuth is open between before_server_start and after_server_stop")
        return self._running

    async def _open(self, app: Sanic[Any, Any]) -> None:
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.loop.is_closed():
            runtime = Runtime(self.issuers, self.options, self._observer, self.clock)
            await runtime.open()
            self._running = _Running(runtime, Guard(self.rules, runtime.authenticator), loop)
        elif self._running.loop is not loop:
            raise RuntimeError("one JWTAuth serves the applications of one event loop")
        self._running.applications += 1
        for route in app.router.routes:
            self._guard_handshake(route)
        extend(app, self)

    async def _close(self, app: Sanic[Any, Any]) -> None:
        running = self._running
        if running is not None:
            running.applications -= 1
            if not running.applications:
                self._running = None
                await running.runtime.close()

    def _guard_handshake(self, route: Any) -> None:  # noqa: ANN401 - Sanic has no type for it
        """Refuse a WebSocket before the upgrade, with an HTTP answer. Sanic calls the handler, and
        so what decorates it, after it.
        """
        shake = route.handler
        if not route.extra.websocket or not hasattr(shake, "args"):
            return
        handler = shake.args[0]
        rule = marked(handler, self)
        if rule is None:
            return

        async def guarded(request: Request, *args: object, **kwargs: object) -> object:
            refusal = await self._admit(request, rule)
            return refusal if refusal is not None else await shake(request, *args, **kwargs)

        guarded.is_websocket = True  # type: ignore[attr-defined]
        guarded.__route_handler__ = handler  # type: ignore[attr-defined]  # for sanic-ext
        route.handler = guarded


def _rules(prefixes: Sequence[str]) -> list[Rule]:
    """The rules that `protect` is short for: these prefixes need a token, the rest is open."""
    if not all(prefix.startswith("/") for prefix in prefixes):
        raise ConfigurationError(["protect: a path prefix begins with /"])
    short = {prefix.rstrip("/") for prefix in prefixes}
    outermost = [p for p in short if not any(p.startswith(f"{q}/") for q in short)]
    rules = [Rule(path=f"{prefix}/**") for prefix in sorted(outermost)]
    if rules and "" not in short:
        rules.append(Rule(path=ANYWHERE, access=Access.ANONYMOUS))
    return rules


def _each(texts: str | Iterable[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _words(words: Words) -> tuple[str, ...]:
    return tuple(words.split()) if isinstance(words, str) else tuple(words)


def _blueprints(target: Blueprint | BlueprintGroup) -> list[Blueprint]:
    if isinstance(target, Blueprint):
        return [target]
    return [each for inner in target.blueprints for each in _blueprints(inner)]
