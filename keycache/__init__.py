"""sanic-keycache: verify JSON Web Tokens with signing keys that all workers share."""

from typing import TYPE_CHECKING

from keycache.core.claims import Claims
from keycache.errors import (
    ConfigurationError,
    KeycacheError,
    Reason,
    TokenError,
    UnavailableError,
)
from keycache.issuer import Issuer

if TYPE_CHECKING:
    from keycache.runtime import Options, Runtime

__all__ = [
    "Claims",
    "ConfigurationError",
    "Issuer",
    "KeycacheError",
    "Options",
    "Reason",
    "Runtime",
    "TokenError",
    "UnavailableError",
]


def __getattr__(name: str) -> object:
    """Import the runtime when it is asked for: who reads an error needs no Redis and no HTTP."""
    if name in ("Options", "Runtime"):
        from keycache import runtime  # noqa: PLC0415

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
