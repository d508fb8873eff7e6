"""Every error as JSON: no stack trace, no text that the sender wrote, no HTML.

    {"error": "Not found"}

JWTAuth answers for tokens; this file answers for everything else that can go wrong.
"""

import logging
from asyncio import CancelledError
from http import HTTPStatus
from typing import Any

from sanic import HTTPResponse, Request, Sanic, json
from sanic.exceptions import SanicException

from app.web.question import of_sanic
from app.web.refusals import request_fields

logger = logging.getLogger("keycache.web")

NOT_STORED = {"Cache-Control": "no-store"}

ERROR_FORMAT = "json"
"""The `error_format` of every route. Sanic would use it for no answer of ours; but where none is
given it reads and parses the source of each handler, while a worker starts, to guess one.
"""


def answer_errors_in_json(app: Sanic[Any, Any]) -> None:
    """Answer every exception of this application, Sanic's own (404, 405, 408, 413, …) included."""
    app.error_handler.add(Exception, _answer)
    app.error_handler.add(CancelledError, _answer)  # which is no Exception


def _answer(request: Request, error: BaseException) -> HTTPResponse:
    status, headers = 500, dict(NOT_STORED)
    if isinstance(error, SanicException):
        status = error.status_code
        headers |= error.headers  # `Allow` of a 405
    elif isinstance(error, CancelledError):
        status = 503
    if status == 500:
        # A bug. Neither the URL nor a header is logged: a token may stand in both.
        route = request.route.path if request.route else "no route"
        about = {"fields": request_fields(of_sanic(request, trusted=False))}
        logger.error("%s /%s failed", request.method[:10], route, exc_info=error, extra=about)
    return json({"error": _phrase(status)}, status=status, headers=headers)


def _phrase(status: int) -> str:
    """`Not found` for 404: the registered phrase, as a sentence begins."""
    try:
        return HTTPStatus(status).phrase.capitalize()
    except ValueError:
        return "Request failed"
