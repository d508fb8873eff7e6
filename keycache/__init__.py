"""sanic-keycache: verify JSON Web Tokens with signing keys that all workers share."""

from keycache.core.claims import Claims
from keycache.errors import (
    ConfigurationError,
    KeycacheError,
    Reason,
    TokenError,
    UnavailableError,
)
from keycache.issuer import Issuer
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
