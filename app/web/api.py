"""The public application: `/protected` for people, `/verify` for proxies, and our own keys."""

from collections.abc import Callable
from functools import partial

from sanic import HTTPResponse, Request, json, raw

from app.settings import Settings
from app.web.answers import ERROR_FORMAT, NOT_STORED
from app.web.forward_auth import Answer, ForwardAuth, Refusal
from app.web.internal_token import InternalTokens
from app.web.original import PREFIX, is_trusted
from app.web.question import METHODS, METHODS_BELOW, Question, of_sanic
from app.web.refusals import RefusalLog
from app.web.server import Application, application
from keycache.errors import TokenError
from keycache.events import Observer, Refused
from keycache.problems import problem
from keycache.rules import RuleTable
from keycache.sanic import JWTAuth

REALM = "api"
JWKS_PATH = "/.well-known/jwks.json"
JWKS_SECONDS = 300
"""For how long an upstream may keep our keys: a new one is published before it signs."""

SPARE_SECONDS = 10.0
"""What a handler may take beyond its longest wait for the refresher: far more than it needs."""


def make_api(
    settings: Settings, auth: JWTAuth, refusals: RefusalLog, observer: Observer
) -> tuple[Application, ForwardAuth]:
    """The application, protected by `auth`, which its listeners open and close; and who decides
    about the questions to `/verify`. observer: told of those that are refused.

    Raises ConfigurationError when the settings cannot work.
    """
    app = application("keycache", response_seconds=settings.wait + SPARE_SECONDS, optimise=True)
    auth.init_app(app)

    @app.route("/protected", methods=METHODS, error_format=ERROR_FORMAT)
    @auth.required
    async def protected(request: Request) -> HTTPResponse:
        return json(
            {"message": "Access granted", "user": request.ctx.user}, headers=dict(NOT_STORED)
        )

    internal = _internal_tokens(settings)
    if internal is not None:

        @app.route(JWKS_PATH, methods=METHODS, error_format=ERROR_FORMAT)
        async def jwks(_: Request) -> HTTPResponse:
            headers = {"Cache-Control": f"public, max-age={JWKS_SECONDS}"}
            return raw(internal.jwks, headers=headers, content_type="application/jwk-set+json")

    metadata_url = settings.resource.metadata_url if settings.resource else None

    def refuse(question: Question, error: Refusal) -> Answer:
        said = problem(error, REALM, metadata_url)
        observer(Refused(error.reason if isinstance(error, TokenError) else None))
        request_id = refusals.note(question, error, said.status, PREFIX)
        body = json(said.body).body or b""
        headers = said.headers | {"X-Request-ID": request_id}
        return Answer(said.status, headers, body, "application/json")

    forward = _forward_auth(settings, internal, refuse)
    add_verify(app, forward)

    @app.before_server_start
    async def open_guard(_: object) -> None:
        """After the extension's own listener, which opens the runtime."""
        forward.open(auth.runtime.authenticator)

    return app, forward


def _internal_tokens(settings: Settings) -> InternalTokens | None:
    table = settings.internal_token
    if table is None:
        return None
    return InternalTokens(
        [key.get_secret_value() for key in table.keys],
        issuer=table.issuer,
        audience=table.audience,
        lifetime=table.lifetime,
    )


def _forward_auth(
    settings: Settings,
    internal: InternalTokens | None,
    refuse: Callable[[Question, Refusal], Answer],
) -> ForwardAuth:
    rules = settings.rules()
    if rules is None:
        rules = RuleTable((), issuers=settings.issuers(), sources=settings.token_sources())
    named = settings.internal_token.header if settings.internal_token else ""
    return ForwardAuth(
        rules,
        refuse,
        proxies=settings.trusted_proxies,
        headers=settings.identity_headers,
        internal=(named, internal) if internal else None,
    )


def add_verify(app: Application, forward: ForwardAuth) -> None:
    """The routes of the questions that `forward` answers."""

    async def verify(request: Request, **_: str) -> HTTPResponse:
        peer = request.conn_info.client_ip if request.conn_info else None
        question = of_sanic(request, trusted=is_trusted(peer, forward.proxies))
        answer = await forward.answer(question)
        return answer.response()

    add = partial(app.add_route, verify, error_format=ERROR_FORMAT)
    add(PREFIX, METHODS, strict_slashes=True)
    # Every path below is one that is asked about, an empty one too.
    add(f"{PREFIX}/", METHODS_BELOW, strict_slashes=True, name="verify_root")
    add(f"{PREFIX}/<original:path>", METHODS_BELOW, name="verify_below")
