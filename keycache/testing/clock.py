"""FakeClock: the time, until a test stops it."""

import time


class FakeClock:
    """A `keycache.interfaces.Clock` that shows the host's time until it is frozen."""

    def __init__(self) -> None:
        self._frozen: float | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() if self._frozen is None else self._frozen

    def freeze(self, at: float | None = None) -> None:
        """Stop at this moment (seconds since the epoch), or now."""
        self._frozen = self.now() if at is None else at

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once; from then on the clock stands still."""
        self.freeze(self.now() + seconds)

    def run(self) -> None:
        """Show the host's time again."""
        self._frozen = None
