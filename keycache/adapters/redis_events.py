"""RedisAnnouncements: hears over pub/sub that a source has a new version.

Pub/sub promises nothing: what is sent while a subscriber is away is lost. So every confirmation of
a subscription reports its source as changed, as a message does: from then on nothing is missed. And
the refreshers poll besides.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

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
            with suppress(Exception):  # a bug in the client must not end all listening
                await self._subscribed(channels, changed)
            await asyncio.sleep(RETRY)

    async def _subscribed(
        self, channels: dict[bytes, KeySource], changed: Callable[[KeySource], None]
    ) -> None:
        connection = self._client.connection
        await connection.initialize()  # a cluster's client knows no node before
        pubsub = connection.pubsub()
        try:
            await pubsub.subscribe(*channels)
            while True:
                # A time-out here is silence, not a failure: get_message then returns None.
                message = await pubsub.get_message(timeout=30.0)
                if message is not None and message["channel"] in channels:
                    self._client.heard()
                    changed(channels[message["channel"]])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
