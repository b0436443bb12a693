"""Virtual clocks: in a test a minute's wait takes no time.

Owns the clocks of asyncio and trio. Must never touch limits, servers, or anything of
the limiter but the shape of its clock.

    clock = VirtualClock()                      # or TrioClock()
    limiter = RateLimiter(rpm=60, clock=clock)

    async def main():
        for _ in range(120):
            await limiter.acquire()

    clock.run(main)                             # at once
    assert clock.now() > 59

    clock = ThreadClock()                       # the same for threads
    clock.run(worker, worker, worker)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ratelimit.admission.clock import Clock, Flag
from ratelimit.testing.thread_clock import Deadlock, ThreadClock
from ratelimit.testing.virtual_loop import TICK, VirtualLoop

if TYPE_CHECKING:
    from trio.lowlevel import Task
    from trio.testing import MockClock

__all__ = ["Deadlock", "ThreadClock", "TrioClock", "VirtualClock", "run_virtual"]

T = TypeVar("T")

GRACE: Final = 0.05
"""Real seconds that a virtual loop listens to open sockets before it jumps."""
BUSY_ROUNDS: Final = 1_000
"""Rounds of trio without a wait after which `TICK` passes, as in `virtual_loop`. Trio's
rounds take ten times as long.
"""


class _LoopClock(Clock):
    """A clock that runs in an event loop only."""

    def park(self, flag: Flag, seconds: float | None) -> None:  # noqa: ARG002  # it always refuses
        """Refuse: a thread that waits would stop the loop, and with it this time."""
        raise RuntimeError(
            f"the time of {type(self).__name__} passes in its event loop, which a blocked thread "
            "stops; use ThreadClock for threads"
        )


class VirtualClock(_LoopClock):
    """Virtual time for asyncio, and for the limiter: pass it as ``clock=``.

    The test runs on its loop, by `run`. Its time, in seconds from 0, belongs to the
    clock: a second `run` goes on where the first ended. One loop at a time. Work in
    threads, by `loop.run_in_executor` or anyio, takes no virtual time. Without any
    timer the loop waits for real, as every loop does, for a thread or a socket.

    :param grace: real seconds in which open sockets have to be silent before a jump.
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        self.seconds = 0.0
        self.grace = grace
        self.now = self._now

    def _now(self) -> float:
        return self.seconds

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop in this time.

        It is ``loop_factory`` of asyncio.Runner, and of anyio as ``("asyncio",
        {"loop_factory": clock.new_loop})``.
        """
        return VirtualLoop(self)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``await function(*args)`` on a new loop in this time."""

        async def main() -> T:
            return await function(*args)

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main())

    def jump(self, seconds: float) -> None:
        """Go ``seconds`` ahead, at least one float step."""
        self.seconds = max(self.seconds + seconds, nextafter(self.seconds, inf))


def run_virtual(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``await function(*args)`` on an asyncio loop in virtual time.

    For a limiter in that time see `VirtualClock`.
    """
    return VirtualClock().run(function, *args)


class TrioClock(_LoopClock):
    """Virtual time for trio, and for the limiter: pass it as ``clock=``. Needs trio.

    It is trio's own MockClock, which jumps as soon as every task waits; while a thread
    works for trio it does not. Its time, in seconds from 0, belongs to the clock: a
    second `run` goes on where the first ended.
    """

    def __init__(self) -> None:
        from trio.testing import MockClock  # noqa: PLC0415  # trio is no dependency

        self.trio = MockClock(autojump_threshold=0)
        self.now = self.trio.current_time

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``await function(*args)`` in trio, in this time."""
        import trio  # noqa: PLC0415  # trio is no dependency

        watch = _TrioWatch(self.trio, trio.to_thread.current_default_thread_limiter)
        result: T = trio.run(function, *args, clock=self.trio, instruments=[watch])  # type: ignore[list-item]  # duck-typed
        return result


class _TrioWatch:
    """An instrument that holds trio's jumps for threads, and ends a busy wait."""

    def __init__(self, clock: MockClock, threads: Callable[[], Any]) -> None:
        self._clock, self._threads = clock, threads
        self._rounds = 0

    def after_task_step(self, task: Task) -> None:  # noqa: ARG002  # trio names its argument
        """Jump only while no thread works."""
        threshold = inf if self._threads().borrowed_tokens else 0.0
        if threshold != self._clock.autojump_threshold:
            self._clock.autojump_threshold = threshold

    def before_io_wait(self, timeout: float) -> None:
        """Let a moment pass after many rounds in which no task has waited."""
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds >= BUSY_ROUNDS:
            self._clock.jump(TICK)
            self._rounds = 0
