"""RedisAnnouncements: hears over pub/sub that a source has a new version.

Pub/sub promises nothing: what is sent while a subscriber is away is lost. So after every
subscription every source is reported as changed, and the refreshers poll besides.
"""

import asyncio
from collections.abc import Callable

from redis.exceptions import RedisError

from keycache.adapters.redis_client import RedisClient
from keycache.adapters.redis_names import names
from keycache.issuer import KeySource

RETRY = 1.0
"""Seconds between attempts to subscribe."""


class RedisAnnouncements:
    """Implements `keycache.interfaces.Announcements`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def listen(
        self, sources: tuple[KeySource, ...], changed: Callable[[KeySource], None]
    ) -> None:
        """See `Announcements.listen`."""
        channels = {names(source).changed.encode(): source for source in sources}
        while True:
            try:
                await self._subscribed(channels, changed)
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(RETRY)

    async def _subscribed(
        self, channels: dict[bytes, KeySource], changed: Callable[[KeySource], None]
    ) -> None:
        pubsub = self._client.connection.pubsub()
        try:
            await pubsub.subscribe(*channels)
            for source in channels.values():
                changed(source)
            while True:
                # A time-out here is silence, not a failure: get_message then returns None.
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=30.0)
                if message is not None and message["channel"] in channels:
                    changed(channels[message["channel"]])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
