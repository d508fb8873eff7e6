"""FirstKeys: a worker that starts waits for its keys, which are in Redis most often."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from app.facts_log import Hears
from keycache.events import KeySetInstalled


class FirstKeys:
    """Hears when this worker holds a key set of each of these issuers (configured names)."""

    def __init__(self, issuers: Iterable[str]) -> None:
        self._missing = set(issuers)
        self._arrived = asyncio.Event()
        self.hears: Hears = {KeySetInstalled: self._installed}

    async def wait(self, seconds: float) -> None:
        """Wait until all are here, but no longer than this: an issuer that is down must hold up
        nobody.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    def _installed(self, event: KeySetInstalled) -> None:
        self._missing.discard(event.issuer)
        if not self._missing:
            self._arrived.set()
