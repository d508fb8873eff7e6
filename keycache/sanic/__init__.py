"""JWTAuth: protects Sanic applications with bearer tokens.

    auth = JWTAuth(app, issuer="https://id.example.com/", audience="my-api", protect="/api")

    @app.get("/reports")
    @auth.required(scopes="reports:read")
    async def reports(request): ...

The only package of keycache that knows Sanic.
"""

from keycache.resource import Resource
from keycache.rules import Access, Requirement, Rule, TokenSource
from keycache.sanic.auth import JWTAuth, OnRefusal
from keycache.sanic.sent import bearer_token

__all__ = [
    "Access",
    "JWTAuth",
    "OnRefusal",
    "Requirement",
    "Resource",
    "Rule",
    "TokenSource",
    "bearer_token",
]
