"""A Sanic application in which GET /protected is for whoever has a good token."""

import os

from sanic import HTTPResponse, Request, Sanic, json

from keycache.sanic import JWTAuth

app = Sanic("reports")
auth = JWTAuth(app, issuer=os.environ["ISSUER"], audience=os.environ["AUDIENCE"])


@app.get("/protected")
@auth.required
async def protected(request: Request) -> HTTPResponse:
    """Who is asking: the claims of the token."""
    return json({"message": "Access granted", "user": request.ctx.user})
