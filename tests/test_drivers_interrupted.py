"""What interrupts a waiter: signal handlers, finalizers and Ctrl-C, in threads and in
tasks; nobody may be left waiting, no lock locked.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from ratelimit import Limit, Limits, RateLimiter, WouldBlock, locks
from ratelimit.admission import drivers as drive
from ratelimit.admission.clock import Clock, Flag
from ratelimit.admission.flow import admit
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.stores.memory import MemoryStore
from ratelimit.testing import ThreadClock
from tests.interruptions import Interruption, interruptions

if TYPE_CHECKING:
    from tests.conftest import LoopClock

MANY = 1e9


def drained(limiter: RateLimiter) -> None:
    """Nobody waits and nothing is in flight."""
    family = limiter.statistics().families["*"]
    assert (family.waiting, family.in_flight) == (0, 0)
    assert family.admitted == family.ended


@pytest.mark.usefixtures("eager_switching")
def test_an_interrupted_thread_leaves_the_line() -> None:
    """Ctrl-C in a waiting thread raises out of the wait, costs nothing and passes the
    turn on.
    """

    class Interrupting(ThreadClock):
        def park(self, flag: Flag, seconds: float | None) -> None:
            del flag, seconds
            raise KeyboardInterrupt

    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), slack=0, clock=Interrupting())
    limiter.acquire_nowait(tokens=100).close()
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire_sync(tokens=50)
    drained(limiter)


def test_a_signal_handler_settles_and_asks_without_waiting() -> None:
    """In a handler `settle` and `acquire_nowait` work as anywhere; the loop's waiter
    hears of it with the loop's next turn.
    """
    limiter = RateLimiter(concurrency=1)
    refused: list[WouldBlock] = []

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)

        def handle(*_: Any) -> None:
            lease.settle(tokens=1)
            try:
                limiter.acquire_nowait(tokens=1)
            except WouldBlock as error:
                refused.append(error)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            waiter = asyncio.create_task(limiter.acquire(tokens=1))
            await asyncio.sleep(0)
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.wait_for(waiter, 30)
            waiter.result().close()
        finally:
            signal.signal(signal.SIGUSR1, before)

    asyncio.run(main())
    assert len(refused) == 1, (
        "somebody waits: a newcomer does not overtake, not even from a handler"
    )
    drained(limiter)


def test_a_signal_handler_wakes_a_thread() -> None:
    """The main thread waits for a slot; its own signal handler frees it."""
    limiter = RateLimiter(concurrency=1)
    lease = limiter.acquire_nowait(tokens=1)
    before = signal.signal(signal.SIGUSR1, lambda *_: lease.close())
    killer = threading.Timer(
        0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)
    )
    killer.start()
    try:
        limiter.acquire_sync(tokens=1, timeout=30).close()
    finally:
        signal.signal(signal.SIGUSR1, before)
        killer.join()
    drained(limiter)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_signal_handler_wakes_a_loop_that_sleeps(backend: str) -> None:
    """All tasks wait and the loop sleeps in the system when a handler frees the slot:
    the waiter goes on without anything else to wake it.
    """
    limiter = RateLimiter(concurrency=1)
    order: list[str] = []

    def rescue(gate: drive.TaskParker) -> None:
        order.append("slept on")
        gate.wake()

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        # another thread: it wakes every loop
        rescuer = threading.Timer(3, rescue, (drive.TaskParker(),))
        before = signal.signal(signal.SIGALRM, lambda *_: lease.settle(tokens=1))
        rescuer.start()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            (await limiter.acquire(tokens=1)).close()
            order.append("woken")
        finally:
            signal.signal(signal.SIGALRM, before)
            rescuer.cancel()

    anyio.run(main, backend=backend)
    assert order == ["woken"]
    drained(limiter)


def test_a_task_can_be_woken_by_what_interrupts_its_wait(loop_clock: LoopClock) -> None:
    """A handler or finalizer settles while the task is on its way into the wait: it
    does not wait for what has happened already.
    """
    clock = loop_clock()
    woken = 0

    async def main() -> None:
        nonlocal woken
        gate = drive.TaskParker()
        me = anyio.get_current_task().id
        woken_at: float | None

        def wake() -> None:
            nonlocal woken_at
            with suppress(RuntimeError):  # the task rests, the loop is between two
                if anyio.get_current_task().id == me:
                    gate.wake()
                    woken_at = clock.now()

        for moment in range(1_000):
            woken_at = None
            with Interruption(moment, wake) as interruption:
                await gate.wait(1.0)
            if woken_at is not None:
                assert clock.now() == woken_at
                woken += 1
            if not interruption.came:
                break

    clock.run(main)
    assert woken > 20


@pytest.mark.parametrize("kind", [Clock, ThreadClock])
def test_a_thread_can_be_woken_by_what_interrupts_its_wait(kind: type[Clock]) -> None:
    """A handler or finalizer settles while its own thread is anywhere inside the wait:
    neither of them waits for the other.
    """
    moments: list[int] = []

    def wait_and_wake() -> None:
        gate = drive.ThreadParker(kind())
        moments.extend(interruptions(lambda: gate.wait(0.001), gate.wake))

    thread = threading.Thread(target=wait_and_wake, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(moments) > 3


def test_ctrl_c_at_any_moment_of_a_wait_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a call that waits is interrupted, its place is given up and no lock
    stays locked: the next one is admitted.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)

    class Waiting:
        def __init__(self) -> None:
            self.clock = ThreadClock()
            self.line = Queue()
            self.store = MemoryStore(Limits(Limit("tokens", 10, 10)), 0.0)
            self.store.take({"tokens": 10}, 0.0)

        def go(self) -> None:
            gate = drive.ThreadParker(self.clock)
            place = Waiter(0.0, {"tokens": 5}, gate.wake)
            drive.run(admit(self.line, place, self.clock.now()), self.store, self.clock, gate)

    some = [Waiting()]

    def go() -> None:
        some[-1].go()

    for _ in interruptions(go):
        some[-1].go()
        assert len(some[-1].line) == len(some[-1].line.entries) == 0
        assert some[-1].line.ahead_of(0.0) == {}
        some.append(Waiting())
    assert len(some) > 50
