"""What JWTAuth does where sanic-ext is: inject claims into handlers, and tell OpenAPI about tokens.

sanic-ext injects before any middleware and decorator has run, so whoever asks for claims is judged
there and then, by the same function and the same rules.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from sanic import HTTPResponse, Request, Sanic

from keycache.core.claims import Claims
from keycache.guard import Admitted
from keycache.rules import Access, Rule, TokenSource

App = Sanic[Any, Any]


class Refused(Exception):  # noqa: N818 - it carries an answer, and is no fault
    """Takes the answer of a request that is refused out of an injection."""

    def __init__(self, answer: HTTPResponse) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Protecting(Protocol):
    """What is needed of JWTAuth."""

    claims_type: Any

    @property
    def sources(self) -> tuple[TokenSource, ...]:
        """Where tokens are looked for."""

    def rule_of(self, app: App, route: Any, method: str) -> Rule | None:  # noqa: ANN401 - untyped
        """By which rule the requests for a route are judged; None: by none."""

    async def admit_for(self, request: Request) -> Admitted | HTTPResponse:
        """Judge a request by all rules that its route has; the answer if it is refused."""


def extend(app: App, auth: Protecting) -> None:
    """Tell sanic-ext of the claims that handlers may ask for, and of the tokens that routes need.
    Does nothing where it is not in use. For a listener before sanic-ext's own.
    """
    extensions = getattr(app, "_ext", None)
    if extensions is None:
        return
    _inject(app, auth)
    _document(app, auth)


def _inject(app: App, auth: Protecting) -> None:
    """`Claims` and your own type, and each of them or None, as types of a handler's arguments."""

    async def admitted(request: Request) -> Admitted:
        found = await auth.admit_for(request)
        if isinstance(found, HTTPResponse):
            raise Refused(found)
        return found

    async def claims(request: Request) -> Claims | None:
        return (await admitted(request)).claims

    async def user(request: Request) -> Any:  # noqa: ANN401 - of your type
        found = await admitted(request)
        return None if found.claims is None else request.ctx.user

    if (Refused, None) not in app.error_handler.cached_handlers:
        app.exception(Refused)(lambda _, refused: refused.answer)
    wanted: list[tuple[Any, Callable[[Request], Awaitable[Any]]]] = [(Claims, claims)]
    if auth.claims_type is not None:
        wanted.append((auth.claims_type, user))
    for kind, constructor in wanted:
        app.ext.add_dependency(kind, constructor)
        app.ext.add_dependency(kind | None, constructor)


def _document(app: App, auth: Protecting) -> None:
    """OpenAPI's security schemes, and for each operation what it needs and what it answers."""
    from sanic_ext.extensions.openapi.builders import (  # noqa: PLC0415 - it may not be there
        OperationStore,
        SpecificationBuilder,
    )

    operations: Mapping[Any, Any] = OperationStore()  # type: ignore[no-untyped-call]
    specification = SpecificationBuilder()
    for source in auth.sources:
        kind, details = _scheme(source)
        specification.add_security_scheme(source.name, kind, **details)
    for route in app.router.routes:
        view = getattr(route.handler, "view_class", None)
        for method in sorted(route.methods or ()):
            rule = auth.rule_of(app, route, method)
            operation = operations[getattr(view, method.lower()) if view else route.handler]
            # What was said by hand, or before, stays as it is.
            if rule and rule.access is not Access.ANONYMOUS and not operation.security:
                _describe(operation, auth, rule)


def _describe(operation: Any, auth: Protecting, rule: Rule) -> None:  # noqa: ANN401 - untyped
    if rule.access is Access.OPTIONAL:
        operation.secured()
    for name in rule.sources or [source.name for source in auth.sources]:
        operation.secured(name)
    operation.response(HTTPStatus.UNAUTHORIZED, description="No token, or one that is not good.")
    needed = rule.requirement
    if needed.scopes or needed.any_scope:
        # OpenAPI has a place for scopes in its own OAuth flows only.
        scopes = [*needed.scopes, *([" or ".join(needed.any_scope)] if needed.any_scope else [])]
        operation.response(
            HTTPStatus.FORBIDDEN, description=f"The token must grant {', '.join(scopes)}."
        )


def _scheme(source: TokenSource) -> tuple[str, dict[str, Any]]:
    """A token source as an OpenAPI security scheme."""
    if source.cookie:
        return "apiKey", {"location": "cookie", "name": source.cookie}
    if source.header == "authorization" and source.scheme:
        return "http", {"scheme": source.scheme, "bearer_format": "JWT"}
    return "apiKey", {"location": "header", "name": source.header}
