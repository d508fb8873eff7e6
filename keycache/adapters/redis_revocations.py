"""RedisRevocations: the sealed list of revoked tokens in Redis, kept by compare-and-set."""

from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.errors import StoreError
from keycache.interfaces import Loaded
from keycache.issuer import KeySource


class RedisRevocations:
    """Implements `keycache.interfaces.RevocationStore`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """See `RevocationStore.load`."""
        answer = await self._client.step("load", [names(source).revoked], [known_version])
        match answer:
            case [int(version), sealed, int(now_ms)] if sealed is None or type(sealed) is bytes:
                return Loaded(version, sealed, now_ms)
        raise StoreError("Redis answered something else than was asked")

    async def save(
        self, source: KeySource, sealed: bytes, version: int, keep_seconds: float, seen: int
    ) -> bool:
        """See `RevocationStore.save`."""
        name = names(source)
        kept = await self._client.step(
            "revoke",
            [name.revoked],
            [seen, version, sealed, int(keep_seconds * 1000), name.changed],
        )
        return bool(kept == 1)
