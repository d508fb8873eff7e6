"""VirtualLoop: an asyncio event loop whose time passes only when nobody has anything to do.

An hour of waiting costs nothing and happens in the same order every time: the loop asks its
selector to wait for the next timer, and this selector moves the clock instead."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _TimeMachine(selectors.SelectSelector):
    """Waits by moving the loop's clock. Real sockets are never ready here."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits and no timer is set: the simulation is stuck")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0."""

    def __init__(self) -> None:
        self._machine = _TimeMachine()
        super().__init__(self._machine)

    def time(self) -> float:
        return self._machine.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
