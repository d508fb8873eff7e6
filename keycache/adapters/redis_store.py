"""RedisStore: sealed records in Redis, kept by compare-and-set."""

from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.errors import StoreError
from keycache.interfaces import Loaded
from keycache.issuer import KeySource


class RedisStore:
    """Implements `keycache.interfaces.Store`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        """See `Store.load`."""
        answer = await self._client.step("load", [names(source).record], [known_version])
        match answer:
            case [int(version), record, int(now_ms)] if record is None or type(record) is bytes:
                return Loaded(version, record, now_ms)
        raise StoreError("Redis answered something else than was asked")

    async def save(
        self, source: KeySource, record: bytes, version: int, keep_seconds: float, holder: str
    ) -> bool:
        """See `Store.save`."""
        name = names(source)
        keys = [name.record, name.fence, name.lease, name.backoff]
        kept = await self._client.step(
            "save", keys, [version, record, int(keep_seconds * 1000), holder, name.changed]
        )
        return bool(kept == 1)

    async def discard(self, source: KeySource, version: int) -> None:
        """See `Store.discard`."""
        await self._client.step("discard", [names(source).record], [version])
