"""The only file that waits.

Owns clocks, gates and the two drivers that carry out what `flow.py` yields: one for
async code (asyncio and trio, through anyio), one for threads. Knows nothing of limits,
costs and models.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from math import inf
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from ratelimit.admission.clock import Clock, Flag
from ratelimit.admission.flow import Command, Rest, Take
from ratelimit.stores import Grant, Store

T = TypeVar("T")

# seconds; rest at least so long: a shorter delay can be lost in rounding, and the same
# moment would come for ever
TICK = 1e-6


class ThreadParker:
    """What one thread waits at."""

    __slots__ = ("_clock", "_flag")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flag = Flag()

    def wake(self) -> bool:
        """Let the thread go on; from any thread, also from inside its wait."""
        self._flag.set()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until woken, at most ``seconds``."""
        self._clock.park(self._flag, None if seconds == inf else seconds)
        # whoever has set the old one meanwhile is heard all the same: now everything is
        # looked at anew
        self._flag = Flag()


def in_event_loop() -> bool:
    """Whether the caller runs in an event loop, so that blocking its thread would stop
    all that it could wait for.
    """
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True


class TaskParker:
    """What one task waits at; woken from its own event loop, another one, a thread, a
    finalizer or a signal handler.
    """

    __slots__ = ("_closed", "_event", "_post", "_running", "_task", "_thread")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._thread = threading.get_ident()
        # Both event loops take callbacks from other threads and tell which task runs,
        # under different names; anyio's takes ten times as long.
        native: Any = anyio.lowlevel.current_token().native_token
        self._post: Callable[[Callable[[], None]], object]
        self._running: Callable[[], object]
        if hasattr(native, "call_soon_threadsafe"):
            self._post, self._running = (
                native.call_soon_threadsafe,
                sys.modules["asyncio"].current_task,
            )
        else:
            self._post, self._running = (
                native.run_sync_soon,
                sys.modules["trio"].lowlevel.current_task,
            )
        # trio ends all tasks before it ends
        self._closed: Callable[[], bool] | None = getattr(native, "is_closed", None)
        self._task = self._running()

    def gone(self) -> bool:
        """Whether the task can never go on, because its event loop was closed around
        it.
        """
        return self._closed is not None and self._closed()

    def _set(self) -> None:
        self._event.set()

    def wake(self) -> bool:
        """Let the task go on; False when its event loop is gone."""
        try:
            if self._event.is_set():  # by somebody to whom the task rested: it comes
                return not self.gone()
            if self._rests():
                self._event.set()
            else:
                self._post(self._set)
        # asyncio: "Event loop is closed"; trio: RunFinishedError; the message differs,
        # the meaning does not
        except RuntimeError:
            return False
        return True

    def _rests(self) -> bool:
        """Whether another task of its loop runs: then this one is in its wait, the loop
        is awake, and it is enough to set the event.

        Otherwise the loop has to be sent a message, which costs more. It may be asleep:
        this is another thread, or a signal is handled while nothing runs. Or this very
        task was interrupted on its way into the wait, and would not see what was set
        for those who are in it.
        """
        if self._thread != threading.get_ident():
            return False
        try:
            running = self._running()  # None between two tasks, in a callback
        except RuntimeError:  # a signal is handled while the loop sleeps, or after its end
            return False
        return running is not None and running is not self._task

    async def wait(self, seconds: float) -> None:
        """Wait until woken, at most ``seconds``."""
        if seconds == inf:
            await self._event.wait()
        else:
            with anyio.move_on_after(seconds):
                await self._event.wait()
        self._event = anyio.Event()


Flow = Generator[Command, Any, T]


def _answer(command: Command, store: Store, clock: Clock) -> Grant | float:
    if isinstance(command, Take):
        return store.take(command.cost, clock.now())
    return store.moment(command.cost, command.ahead)  # type: ignore[union-attr]


def run(flow: Flow[T], store: Store, clock: Clock, gate: ThreadParker) -> T:
    """Drive ``flow`` in the calling thread; raise `ReentrantUse` where that thread
    would have to do something else first.
    """
    answer: object = None
    try:
        while True:
            command = flow.send(answer)
            if isinstance(command, Rest):
                command.refuse_blocking()
                gate.wait(max(command.until - clock.now(), TICK))
                answer = clock.now()
            else:
                answer = _answer(command, store, clock)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def run_async(flow: Flow[T], store: Store, clock: Clock, gate: TaskParker) -> T:
    """Drive ``flow`` in the calling task; cancelling it while it rests leaves the line
    as if it had never come.
    """
    answer: object = None
    try:
        while True:
            command = flow.send(answer)
            if isinstance(command, Rest):
                await gate.wait(max(command.until - clock.now(), TICK))
                answer = clock.now()
            else:
                answer = _answer(command, store, clock)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        flow.close()
