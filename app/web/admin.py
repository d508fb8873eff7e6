"""The admin application, for the second listener: `/metrics`, `/livez` and `/readyz`."""

import asyncio
from collections.abc import Callable
from typing import TypedDict

from sanic import HTTPResponse, Request, json, raw

from app.web.answers import ERROR_FORMAT, NOT_STORED
from app.web.server import Application, application
from keycache.core.decision import Age
from keycache.runtime import Runtime
from metrics import exposition
from metrics.observer import flush_all

METHODS = ("GET", "HEAD")

WHY_NOT = {
    Age.ABSENT: "no keys yet: the issuer has not answered",
    Age.DEAD: "the keys are too old to be used, and the issuer does not answer",
}
"""Ages with which a request can only be answered by 503, and why."""


class Readiness(TypedDict):
    """The body of `/readyz`. reasons: one sentence for each thing that is not as it should be."""

    status: str
    reasons: list[str]


def make_admin(runtime: Callable[[], Runtime], draining: Callable[[], bool]) -> Application:
    """The application; `runtime` gives that of this worker, once it is open."""
    app = application("keycache-admin", response_seconds=30)
    one_page = asyncio.Semaphore(1)  # the threads of two would only slow each other down

    @app.route("/metrics", methods=METHODS, error_format=ERROR_FORMAT)
    async def metrics(request: Request) -> HTTPResponse:
        accept, codings = (
            ",".join(request.headers.getall(name, [])) for name in ("accept", "accept-encoding")
        )
        async with one_page:
            flush_all()
            body, content_type, headers = await asyncio.to_thread(_page, accept, codings)
        return raw(body, content_type=content_type, headers=headers)

    @app.route("/livez", methods=METHODS, error_format=ERROR_FORMAT)
    async def livez(_: Request) -> HTTPResponse:
        """The process answers; whether it is of use is what /readyz says."""
        return json({"status": "live"}, headers=dict(NOT_STORED))

    @app.route("/readyz", methods=METHODS, error_format=ERROR_FORMAT)
    async def readyz(_: Request) -> HTTPResponse:
        ready, body = readiness(runtime(), draining=draining())
        return json(body, status=200 if ready else 503, headers=dict(NOT_STORED))

    return app


def _page(accept: str, codings: str) -> tuple[bytes, str, dict[str, str]]:
    body, content_type = exposition.render(accept)
    body, headers = exposition.encode(body, codings)
    return body, content_type, headers


def readiness(runtime: Runtime, *, draining: bool) -> tuple[bool, Readiness]:
    """Whether this worker can decide about tokens of every issuer.

    `degraded` still is ready: it serves from what it holds, and somebody should look.
    """
    health = runtime.health()
    missing = [f"{each.name}: {WHY_NOT[each.age]}" for each in health if each.age in WHY_NOT]
    missing += [
        f"{each.name}: which tokens are revoked is not known: Redis has not answered"
        for each in health
        if not each.revocations_known
    ]
    if draining:
        missing.append("draining: this worker is being stopped")
    if missing:
        return False, {"status": "not ready", "reasons": missing}
    worries = [
        f"{each.name}: its keys are stale, the issuer does not answer"
        for each in health
        if each.age is Age.STALE
    ]
    if not runtime.store_up:
        worries.append("redis: does not answer; each worker goes on with the keys it holds")
    return True, {"status": "degraded" if worries else "ready", "reasons": worries}
