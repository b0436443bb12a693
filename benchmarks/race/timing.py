"""Time in a race: a virtual clock that ticks, and the longest callback of a loop.

Owns both uses of asyncio's private hooks. Must never contain clients, servers or rows.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ratelimit.testing import VirtualClock

TICK: Final = 1e-6
"""Seconds that a round of the event loop takes on the virtual clock."""


class RaceClock(VirtualClock):
    """Virtual time in which each round of the event loop takes a microsecond.

    A limiter with float levels (aiolimiter) is left with residues of 1e-13 tokens and
    asks to be woken for them at a moment that is, in floats, now. Where rounds take no
    time it would be woken without end.
    """

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop that ticks."""
        loop: Any = super().new_loop()
        once = loop._run_once  # noqa: SLF001  # asyncio has no public hook for a round

        def ticking() -> None:
            self.jump(TICK)
            once()

        loop._run_once = ticking  # noqa: SLF001
        return loop  # type: ignore[no-any-return]


@contextmanager
def longest_callback() -> Iterator[Callable[[], float]]:
    """Measure every callback of this thread's event loop, the fake server's excepted.

    In seconds of the thread's CPU time: on a busy machine the wall clock would show
    other processes. `Handle._run` is asyncio's private way to run one callback;
    no public one sees them all.
    """
    longest, thread = 0.0, threading.get_ident()
    handles: Any = events.Handle
    run = handles._run  # noqa: SLF001

    def timed(handle: Any) -> None:
        nonlocal longest
        began = time.thread_time()
        run(handle)
        passed = time.thread_time() - began
        if passed > longest and threading.get_ident() == thread:
            task = getattr(handle._callback, "__self__", None)  # noqa: SLF001
            if not (
                isinstance(task, asyncio.Task)
                and "InProcess" in getattr(task.get_coro(), "__qualname__", "")
            ):
                longest = passed

    handles._run = timed  # noqa: SLF001
    try:
        yield lambda: longest
    finally:
        handles._run = run  # noqa: SLF001
