"""SystemClock: the time of day of this host."""

import time


class SystemClock:
    """Implements `keycache.interfaces.Clock`."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()
