"""The only file that waits.

Owns how a thread and a task rest, and the two drivers that carry out what `flow.py`
yields: one for async code (asyncio and trio, through anyio), one for threads. Must
never know limits, costs or models.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from math import inf
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel

from ratelimit.admission.clock import Clock, Flag
from ratelimit.admission.flow import Answer, Command, Fit, Park, Predict, Take
from ratelimit.errors import ReentrantUse
from ratelimit.limits import Amounts
from ratelimit.stores.payments import Payment, Wait

TICK: Final = 1e-6
"""Seconds of the shortest rest.

A shorter delay can be lost in rounding, and the same moment would come again and again.
"""

Flow = Generator[Command, Answer, None]


class Paying(Protocol):
    """What a flow pays into: the store of one family, or those of a pool's members."""

    def take(self, payment: Payment, now: float, rank: float = inf) -> Wait | None:
        """Pay and return None, or return the wait."""

    def not_before(self, payment: Payment, now: float, ahead: Amounts) -> float:
        """Return a moment before which a call cannot go, behind what is ahead."""

    def refuse_oversize(self, payment: Payment) -> None:
        """Raise `RequestTooLarge` for what no amount of waiting makes fit."""

    def waits_for_itself(self, thread: int) -> bool:
        """Return whether only calls of this thread could make room."""


class ThreadParker:
    """Where one thread rests."""

    __slots__ = ("_clock", "_flag")

    loop: object = None

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flag = Flag()

    def wake(self) -> bool:
        """Let the thread go on; from any thread, also from inside its wait."""
        self._flag.set()
        return True

    def gone(self) -> bool:
        """Return False: a thread that rests goes on when it is woken."""
        return False

    def wait(self, seconds: float) -> None:
        """Rest until woken, at most ``seconds``."""
        self._clock.park(self._flag, None if seconds == inf else seconds)
        # A wake-up that sets the old flag from now on is not lost: the flow looks at
        # everything anew.
        self._flag = Flag()


def in_event_loop() -> bool:
    """Return whether the caller runs in an event loop, which blocking would stop."""
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True


def running_loop() -> Any:
    """Return the event loop that the caller runs in; None outside of any."""
    try:
        return anyio.lowlevel.current_token().native_token
    except RuntimeError:
        return None


def running_task() -> object:
    """Return what runs the caller: the task, or the thread outside an event loop."""
    try:
        return anyio.get_current_task().id
    except RuntimeError:  # no event loop runs in this thread
        return threading.get_ident()


_CLOSED: Final = (RuntimeError, OSError)
"""What an event loop raises that is closed.

asyncio: "Event loop is closed"; trio: RunFinishedError, or, where it did not end in
order, that the socket which would wake it is closed.
"""


class TaskParker:
    """Where one task rests.

    It is woken from its own event loop, another one, a thread, a finalizer or a signal
    handler.
    """

    __slots__ = ("_event", "_post", "_running", "_task", "_thread", "loop")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._thread = threading.get_ident()
        # Both event loops take callbacks from other threads and tell which task runs,
        # under different names. anyio's `get_current_task` takes ten times as long
        # (benchmarks/overhead.py, row "contended_100").
        loop: Any = anyio.lowlevel.current_token().native_token
        self.loop = loop
        self._post: Callable[[Callable[[], object]], object]
        self._running: Callable[[], object]
        if hasattr(loop, "call_soon_threadsafe"):
            self._post = loop.call_soon_threadsafe
            self._running = sys.modules["asyncio"].current_task
        else:
            self._post = loop.run_sync_soon
            self._running = sys.modules["trio"].lowlevel.current_task
        self._task = self._running()

    def gone(self) -> bool:
        """Return whether the task can never go on: its event loop is closed.

        trio ends all tasks before it ends, unless an exception of a signal handler ends
        it in its own code.
        """
        if hasattr(self.loop, "is_closed"):
            closed: bool = self.loop.is_closed()
            return closed
        try:
            if self._thread == threading.get_ident() and self._running() is not None:
                return False  # a task of it runs just now
        except RuntimeError:
            pass  # the caller is no task
        try:
            self._post(bool)
        except _CLOSED:
            return True
        return False

    def wake(self) -> bool:
        """Let the task go on; False when its event loop is closed or not running."""
        try:
            if self._event.is_set():
                return self._runs()
            if self._rests():
                self._event.set()
            else:
                self._post(self._set)
        except _CLOSED:
            return False
        return self._runs()

    def _set(self) -> None:
        self._event.set()

    def _runs(self) -> bool:
        return not hasattr(self.loop, "is_running") or self.loop.is_running()

    def _rests(self) -> bool:
        """Return whether another task of the same event loop runs now.

        Then this task is in its wait, the loop is awake, and setting the event is
        enough. Otherwise the loop has to be sent a message, which costs more: it may be
        asleep (this is another thread, or a signal is handled while nothing runs), or
        this very task was interrupted on its way into the wait and would not see what
        is set for those that wait already.
        """
        if self._thread != threading.get_ident():
            return False
        try:
            running = self._running()  # None between two tasks, in a callback
        except RuntimeError:  # a signal is handled while the loop sleeps, or after its end
            return False
        return running is not None and running is not self._task

    async def wait(self, seconds: float) -> None:
        """Rest until woken, at most ``seconds``."""
        if seconds == inf:
            await self._event.wait()
        else:
            with anyio.move_on_after(seconds):
                await self._event.wait()
        self._event = anyio.Event()


def _answer(command: Take | Predict | Fit, store: Paying, clock: Clock) -> Answer:
    if isinstance(command, Take):
        return store.take(command.payment, clock.now(), command.rank)
    if isinstance(command, Fit):
        if not command.payment.paid:
            store.refuse_oversize(command.payment)
        return None
    return store.not_before(command.payment, clock.now(), command.ahead)


def run(flow: Flow, store: Paying, clock: Clock, parker: ThreadParker) -> None:
    """Drive ``flow`` in the calling thread.

    Raises `ReentrantUse` where the thread would have to do something else first.
    """
    answer: Answer = None
    try:
        while True:
            command = flow.send(answer)
            if isinstance(command, Park):
                command.refuse_blocking()
                if command.until == inf and in_event_loop():
                    _refuse_waiting_for_own_tasks(store)
                parker.wait(max(command.until - clock.now(), TICK))
                answer = clock.now()
            else:
                answer = _answer(command, store, clock)
    except StopIteration:
        return
    finally:
        flow.close()


def _refuse_waiting_for_own_tasks(store: Paying) -> None:
    """Raise `ReentrantUse` if only tasks of this very thread could free a slot."""
    if store.waits_for_itself(threading.get_ident()):
        raise ReentrantUse(
            "this call would block the event loop of the calls that it waits for, and none of "
            "them could ever end: use `await limiter.acquire(...)` or `async with` in async code, "
            "or make this call in another thread"
        )


async def run_async(flow: Flow, store: Paying, clock: Clock, parker: TaskParker) -> None:
    """Drive ``flow`` in the calling task.

    Cancelling the task while it rests leaves the queue as if it had never come.
    """
    answer: Answer = None
    try:
        while True:
            command = flow.send(answer)
            if isinstance(command, Park):
                await parker.wait(max(command.until - clock.now(), TICK))
                answer = clock.now()
            else:
                answer = _answer(command, store, clock)
    except StopIteration:
        return
    finally:
        flow.close()
