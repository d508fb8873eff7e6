"""DemoIssuer: the local identity provider of the demo and of many tests."""

from collections.abc import Mapping

from keycache.testing.issuer import DISCOVERY_PATH, JWKS_PATH, FakeIssuer
from keycache.testing.signing import new_kid

__all__ = ["ALGORITHMS", "DISCOVERY_PATH", "JWKS_PATH", "DemoIssuer"]

ALGORITHMS = ("RS256", "ES256", "EdDSA")


class DemoIssuer(FakeIssuer):
    """A FakeIssuer whose tokens say what the demo shows. The parameters are those of FakeIssuer."""

    def __init__(
        self,
        audience: str = "demo-api",
        *,
        max_age: int = 300,
        discovery: bool = True,
        port: int = 0,
    ) -> None:
        super().__init__(
            audience,
            algorithms=ALGORITHMS,
            claims={"sub": "demo-user", "client_id": "keycache-demo", "scope": "read"},
            max_age=max_age,
            discovery=discovery,
            port=port,
        )

    def forge(
        self,
        *,
        alg: str | None = "ES256",
        kid: str | None = None,
        headers: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Sign a token with a key that is never published. Without `kid` it names a kid that nobody
        knows, another one each time: what somebody sends who wants us to ask for keys.
        """
        kid = kid or new_kid(alg or ALGORITHMS[0])
        return super().forge(alg=alg, kid=kid, headers=headers, **claims)
