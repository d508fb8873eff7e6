"""A Sanic application in which GET /protected is for whoever has a good token."""

import os

from sanic import HTTPResponse, Request, Sanic, json

from keycache.sanic import JWTAuth

app = Sanic("reports")
auth = JWTAuth(
    app,
    issuer=os.environ.get("ISSUER", "https://id.example.com/"),
    audience=os.environ.get("AUDIENCE", "reports"),
)


@app.get("/protected")
@auth.required
async def protected(request: Request) -> HTTPResponse:
    """Who is asking: the claims of the token."""
    return json({"message": "Access granted", "user": request.ctx.user})


@app.get("/reports")
@auth.required(scopes="reports:read")
async def reports(_: Request) -> HTTPResponse:
    """For tokens that grant it."""
    return json([])
