"""A FastAPI application behind nginx, which asks keycache about every request before this sees it.

Only nginx may reach it: whoever else could would say who they are and be believed. Hence it
listens on a Unix socket, in a directory that nothing but nginx may enter.
"""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, FastAPI, HTTPException, Request


@dataclass(frozen=True)
class User:
    """Whom the token speaks for."""

    sub: str
    iss: str
    scopes: tuple[str, ...]


def known_user(request: Request) -> User:
    """The user, as nginx has them from keycache; each value is percent-encoded UTF-8.

    nginx leaves out a field that is empty. There is always an issuer, so a request without it has
    not come through nginx: 503, for then we do not know who it is.
    """
    headers = request.headers
    if len(headers.getlist("x-auth-issuer")) != 1:
        raise HTTPException(503, "The token could not be verified.", {"Retry-After": "1"})
    return User(
        sub=unquote(headers.get("x-auth-subject", "")),
        iss=unquote(headers["x-auth-issuer"]),
        scopes=tuple(map(unquote, headers.get("x-auth-scope", "").split())),
    )


app = FastAPI()


@app.get("/protected")
async def protected(user: Annotated[User, Depends(known_user)]) -> dict[str, object]:
    """Who is asking."""
    return {"message": "Access granted", "user": user}
