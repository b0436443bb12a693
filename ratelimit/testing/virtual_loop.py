"""An asyncio loop that jumps where another loop sleeps.

Owns the jump: the loop sleeps only when none of its callbacks is ready, so whatever it
sleeps for is the next thing that happens. Must never touch limits or servers.

A timer is due when the time has reached its moment and not a float earlier, and its
moment is at least `SOONEST` after the one in which it is set. So a task that sets a
timer for a residue of rounding again and again sees the time move, as in real time.

While a thread works for the loop, whether by `loop.run_in_executor` or
`anyio.to_thread`, the time stands still. Threads that anyio counts in a limiter other
than its default one cannot be seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from math import inf, nextafter, ulp
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

try:
    import sniffio
except ImportError:  # pragma: no cover  # anyio installs it, or does without it
    sniffio = None  # type: ignore[assignment]

__all__ = ["VirtualLoop"]

SOONEST: Final = 1e-9
"""Seconds; the resolution of the clock of a real loop."""
BUSY_ROUNDS: Final = 10_000
"""Rounds of a loop without a jump of a `TICK` after which one passes. In real time each
of them takes some time, which a task that polls the clock waits for.
"""
TICK: Final = 1e-6
"""Seconds."""


class Time(Protocol):
    """The time that a loop lives in."""

    seconds: float
    grace: float
    """Real seconds in which open sockets have to be silent before a jump."""

    def jump(self, seconds: float) -> None:
        """Go ahead."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time."""

    def __init__(self, time: Time) -> None:
        self._virtual = time
        self._working = 0
        self._threads: anyio.CapacityLimiter | None = None
        super().__init__(_JumpingSelector(time, self._waits_for_threads))

    def time(self) -> float:
        """Return the virtual time."""
        # The loop runs a timer that is due within one clock resolution. One float step
        # is the smallest that still is a difference.
        self._clock_resolution = ulp(self._virtual.seconds)
        return self._virtual.seconds

    def call_at(  # type: ignore[override]  # typeshed's is generic over *args
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer for ``when``, at the earliest `SOONEST` from now."""
        now = self._virtual.seconds
        moment = max(when, now + SOONEST, nextafter(now, inf))
        return super().call_at(moment, callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # typeshed's is generic over *args
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Let a thread work, and let time stand still meanwhile."""
        self._working += 1
        work = super().run_in_executor(executor, func, *args)
        work.add_done_callback(self._worked)
        return work

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ARG002  # it is of virtual time
    ) -> None:
        """Wait for the executor's threads without a timeout, which would pass at once.

        From Python 3.12 on, `asyncio.Runner` gives them 300 seconds of the loop's time.
        """
        await super().shutdown_default_executor()

    def _worked(self, _: object) -> None:
        self._working -= 1

    def _waits_for_threads(self) -> bool:
        if self._threads is None:
            self._threads = _worker_threads()

        return self._working > 0 or self._threads.borrowed_tokens > 0


def _worker_threads() -> anyio.CapacityLimiter:
    """Return anyio's limiter of the running loop's worker threads.

    No task runs while a loop selects, so where sniffio is installed the library's
    name is set, in the way that sniffio documents.
    """
    if sniffio is None:
        return anyio.to_thread.current_default_thread_limiter()

    before, sniffio.thread_local.name = sniffio.thread_local.name, "asyncio"
    try:
        return anyio.to_thread.current_default_thread_limiter()
    finally:
        sniffio.thread_local.name = before


class _JumpingSelector(selectors.BaseSelector):
    """A real selector that waits in virtual time."""

    def __init__(self, time: Time, must_wait: Callable[[], bool]) -> None:
        self._time = time
        self._must_wait = must_wait
        self._real = selectors.DefaultSelector()
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or (timeout > 0 and self._must_wait()):
            return self._real.select(None)

        listening = len(self._real.get_map()) > 1  # the loop's own pipe is always there
        events = self._real.select(self._time.grace if listening and timeout > 0 else 0)
        if not events and timeout > 0:
            self._time.jump(timeout)
            if timeout >= TICK:
                self._rounds = 0
                return events

        self._rounds += 1
        if self._rounds >= BUSY_ROUNDS:
            self._time.jump(TICK)
            self._rounds = 0

        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
