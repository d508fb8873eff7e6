"""VirtualLoop: an asyncio event loop whose time passes only when nobody has anything to do.

An hour of waiting costs nothing and happens in the same order every time: where another loop waits
for the next timer, this one moves its clock.

A history takes five thousand turns, so a turn has no more in it than is needed: there are no
sockets, no other threads and no debug mode. In everything else it is the turn of asyncio's own
loop, down to the order of timers that are due at the same moment: a seed plays the same on both.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

_RESOLUTION = 1e-9  # of the clock: what is due within it is due now
_LONGEST = 86400.0  # seconds of waiting in one turn
_MANY = 100  # timers, from which on the cancelled are swept out once they are more than half


class _Handle:
    """A callback to be called soon, with what asyncio and we ask of an `asyncio.Handle`."""

    __slots__ = ("args", "callback", "context", "off")

    def __init__(
        self, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.off = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off


class _Timer(float):
    """The moment when a callback is to be called, which is how the heap compares it."""

    __slots__ = ("args", "callback", "context", "heap", "off")

    callback: Callable[..., object]
    args: tuple[object, ...]
    context: Context | None
    off: bool
    heap: "_Heap | None"

    def when(self) -> float:
        return float(self)

    def cancel(self) -> None:
        if self.heap is not None and not self.off:
            self.heap.cancelled += 1
        self.off = True

    def cancelled(self) -> bool:
        return self.off


class _Heap(list[_Timer]):
    """The timers. cancelled: how many of them."""

    cancelled = 0

    def sweep(self) -> None:
        """Forget those that were cancelled."""
        for timer in self:
            if timer.off:
                timer.heap = None
        self[:] = [timer for timer in self if not timer.off]
        heapify(self)
        self.cancelled = 0


class VirtualLoop(asyncio.BaseEventLoop):
    """Starts at time 0."""

    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._soon: deque[_Handle | _Timer] = deque()
        self._timers = _Heap()

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, context)
        self._soon.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> _Timer:
        timer = _Timer(when)
        timer.callback, timer.args, timer.context = callback, args, context
        timer.off, timer.heap = False, self._timers
        heappush(self._timers, timer)
        return timer

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> _Timer:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """One turn: let time pass if nobody is ready, then call everybody who is."""
        soon = self._soon
        self._pass_time()
        for _ in range(len(soon)):  # who becomes ready meanwhile has their turn next
            handle = soon.popleft()
            if handle.off:
                continue
            try:
                if handle.context is None:
                    handle.callback(*handle.args)
                else:
                    handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as in asyncio's loop
                message = f"Exception in callback {handle.callback}"
                self.call_exception_handler({"message": message, "exception": error})

    def _pass_time(self) -> None:
        """Go to the first timer if nobody is ready; whose timer is due is ready."""
        soon, timers = self._soon, self._timers
        if len(timers) > _MANY and timers.cancelled > len(timers) / 2:
            timers.sweep()
        while timers and timers[0].off:
            heappop(timers).heap = None
            timers.cancelled -= 1
        if not soon and not self._stopping:
            if not timers:
                raise RuntimeError("everybody waits and no timer is set: the simulation is stuck")
            self._now += min(max(0.0, timers[0] - self._now), _LONGEST)
        due = self._now + _RESOLUTION
        while timers and timers[0] < due:
            timer = heappop(timers)
            timer.heap = None
            soon.append(timer)


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
