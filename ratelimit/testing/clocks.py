"""Virtual clocks: a minute's wait in a test takes no time, on asyncio, trio and
threads.

Owns: time that stands still while anybody has something to do, and jumps to the next
moment somebody waits for. What must never come in: limits, servers, anything of the
limiter but the shape of its clock.

    clock = VirtualClock()                      # or TrioClock()
    limiter = RateLimiter(rpm=60, clock=clock)

    async def main():
        for _ in range(120):
            await limiter.acquire()

    clock.run(main)                             # at once
    assert clock.now() > 59

    clock = ThreadClock()                       # the same for threads
    clock.run(worker, worker, worker)

How a jump is safe: a loop is asked to sleep only when none of its callbacks is ready,
so whatever it sleeps for is the next thing that happens; of threads the same is known
once each of them is parked and none has been woken. The next moment is never the
present one, however small the difference is in floats, so no residue of rounding is
waited for again and again.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from math import inf, nextafter, ulp
from typing import Any, TypeVar

from ratelimit.admission.clock import Clock, Flag

__all__ = ["Deadlock", "ThreadClock", "TrioClock", "VirtualClock", "run_virtual"]

T = TypeVar("T")

GRACE = 0.05
"""Real seconds that a virtual loop listens to open sockets before it jumps."""

PATIENCE = 10_000
"""Rounds of a loop in one moment after which a microsecond passes: in real time none of
them would have been for nothing.
"""
TICK = 1e-6


class Deadlock(Exception):
    """Every thread of a virtual clock waits, none of them for a moment: in real time
    they would wait for ever.
    """


class _LoopClock(Clock):
    """A clock whose time passes in an event loop only."""

    def park(self, flag: Flag, seconds: float | None) -> None:  # noqa: ARG002
        """Refuse: a thread that waits would stop the loop, and with it this time."""
        raise RuntimeError(
            f"the time of {type(self).__name__} passes in its event loop; threads wait on ThreadClock"
        )


class VirtualClock(_LoopClock):
    """Virtual time for asyncio, and for the limiter: pass it as ``clock=`` and run the
    test on its loop.

    Its time, in seconds from 0, belongs to the clock: a second `run` goes on where the
    first ended. One loop at a time. While sockets are open, the loop waits until they
    were silent for ``grace`` real seconds before it jumps; what `loop.run_in_executor`
    runs is waited for. Without any timer it waits for real, as every loop does, for a
    thread or a socket to call.
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        self.seconds = 0.0
        self.grace = grace
        self.now = self._now

    def _now(self) -> float:
        return self.seconds

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop in this time: ``loop_factory`` of asyncio.Runner, and of anyio as
        ``("asyncio", {"loop_factory": clock.new_loop})``.
        """
        return _VirtualLoop(self)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``await function(*args)`` on a new loop in this time and return its
        result.
        """

        async def main() -> T:
            return await function(*args)

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main())

    def jump(self, seconds: float) -> None:
        """Go ``seconds`` ahead, at least to the next moment that a float can tell from
        now.
        """
        self.seconds = max(self.seconds + seconds, nextafter(self.seconds, inf))


def run_virtual(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``await function(*args)`` on an asyncio loop whose time is virtual; for a
    limiter in it see `VirtualClock`.
    """
    return VirtualClock().run(function, *args)


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that jumps where others sleep."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._working = 0
        super().__init__(_JumpingSelector(clock, self._waits_for_threads))

    def time(self) -> float:
        # A timer is due within one clock resolution of now; far from zero that must
        # still be a difference that floats can tell.
        self._clock_resolution = max(1e-9, 2 * ulp(self._clock.seconds))
        return self._clock.seconds

    def run_in_executor(  # type: ignore[override]  # typeshed's is generic over *args
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self._working += 1
        work = super().run_in_executor(executor, func, *args)
        work.add_done_callback(self._worked)
        return work

    def _worked(self, _: object) -> None:
        self._working -= 1

    def _waits_for_threads(self) -> bool:
        return self._working > 0


class _JumpingSelector(selectors.BaseSelector):
    """A real selector whose waiting takes no time."""

    def __init__(self, clock: VirtualClock, must_wait: Callable[[], bool]) -> None:
        self._clock = clock
        self._must_wait = must_wait
        self._real = selectors.DefaultSelector()
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or (timeout > 0 and self._must_wait()):
            return self._real.select(None)
        listening = len(self._real.get_map()) > 1  # the loop's own pipe is always there
        events = self._real.select(self._clock.grace if listening and timeout > 0 else 0)
        if not events and timeout > 0:
            self._clock.jump(timeout)
            self._rounds = 0
        else:
            self._rounds += 1
            # a timer for a residue of rounding, set again and again in the same moment:
            # let that moment pass
            if self._rounds >= PATIENCE:
                self._clock.jump(TICK)
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


class TrioClock(_LoopClock):
    """Virtual time for trio, and for the limiter: trio's own MockClock that jumps as
    soon as every task waits. Needs trio.

    Its time, in seconds from 0, belongs to the clock: a second `run` goes on where the
    first ended.
    """

    def __init__(self) -> None:
        from trio.testing import MockClock  # noqa: PLC0415  # trio is no dependency

        self.trio = MockClock(autojump_threshold=0)
        self.now = self.trio.current_time

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``await function(*args)`` in trio, in this time, and return its result."""
        import trio  # noqa: PLC0415

        result: T = trio.run(function, *args, clock=self.trio)
        return result


class ThreadClock(Clock):
    """Virtual time for threads: it jumps to the earliest moment waited for once every
    thread that `run` or `start` began is parked.

    Only `park` and `sleep` are known to be waiting. Whoever blocks otherwise counts as
    busy, and time stands still until it goes on.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lock = threading.RLock()
        self._parked: dict[Flag, float] = {}
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._stuck = False
        self.now = self._now

    def _now(self) -> float:
        return self._seconds

    def park(self, flag: Flag, seconds: float | None) -> None:
        """Block the calling thread until ``flag`` is set or ``seconds`` of this time
        are over; afterwards the flag is set either way.

        Raises `Deadlock` in every thread when all of them wait and none of them for a
        moment.
        """
        try:
            with self._lock:
                self._parked[flag] = (
                    inf
                    if seconds is None
                    else max(self._seconds + seconds, nextafter(self._seconds, inf))
                )
                self._jump_if_idle()
            flag.wait()
        finally:  # also when it is interrupted: nobody waits for a moment of somebody who has gone
            with self._lock:
                self._parked.pop(flag, None)
        with self._lock:
            if self._stuck:
                self._stuck = bool(self._parked)  # the last one turns off the light
                raise Deadlock(
                    "every thread of this clock waits, none of them for a moment, and nobody is left to wake them"
                )

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait for ``seconds`` of this time."""
        until = self._seconds + seconds
        while self._seconds < until:
            self.park(Flag(), until - self._seconds)

    def start(self, function: Callable[..., object], *args: Any) -> None:
        """Start ``function(*args)`` in a thread of this clock; `run` waits for its end
        and raises what it raised.
        """
        context = contextvars.copy_context()
        thread = threading.Thread(target=self._live, args=(context, function, args), daemon=True)
        with self._lock:
            self._running += 1
            self._threads.append(thread)
        thread.start()

    def run(self, *functions: Callable[[], object]) -> None:
        """Run each function in a thread of its own until all have ended, also those
        they `start`; raise the first error of any.
        """
        with self._lock:
            self._running += 1  # nobody jumps before all have begun
        for function in functions:
            self.start(function)
        with self._lock:
            self._running -= 1
            self._jump_if_idle()
        while self._threads:
            self._threads.pop().join()
        errors, self._errors, self._stuck = self._errors, [], False
        if errors:
            raise errors[0]

    def _live(
        self, context: contextvars.Context, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        try:
            context.run(function, *args)
        except BaseException as error:  # noqa: BLE001 - it is raised by `run`
            self._errors.append(error)
        finally:
            with self._lock:
                self._running -= 1
                self._jump_if_idle()

    def _jump_if_idle(self) -> None:
        """Go to the next moment, if nobody is awake: a thread whose flag is set is
        awake though it has not noticed yet.
        """
        if (
            not self._parked
            or len(self._parked) < self._running
            or any(flag.is_set() for flag in self._parked)
        ):
            return
        moment = min(self._parked.values())
        self._stuck = moment == inf
        self._seconds = self._seconds if self._stuck else moment
        for flag, deadline in self._parked.items():
            if deadline <= moment:
                flag.set()
