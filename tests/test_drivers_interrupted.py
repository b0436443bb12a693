"""Signal handlers, finalizers and Ctrl-C that interrupt a waiter, in threads and
tasks.
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
from ratelimit.admission import drivers
from ratelimit.admission.clock import Clock, Flag
from ratelimit.admission.flow import admit
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Payment
from ratelimit.testing import ThreadClock
from tests.interruptions import Interruption, double_interruptions, interruptions
from tests.payments import paid

if TYPE_CHECKING:
    from tests.conftest import LoopClock

MANY = 1e9


def drained(limiter: RateLimiter) -> None:
    """Nobody waits and nothing is in flight."""
    family = limiter.statistics().families["*"]
    assert (family.waiting, family.in_flight) == (0, 0)
    assert family.admitted == family.ended


@pytest.mark.usefixtures("eager_switching")
def test_an_interrupted_thread_leaves_the_queue() -> None:
    """Ctrl-C in a waiting thread raises out of the wait and costs nothing."""

    class Interrupting(ThreadClock):
        def park(self, flag: Flag, seconds: float | None) -> None:
            del flag, seconds
            raise KeyboardInterrupt

    limiter = RateLimiter(
        limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=Interrupting()
    )
    limiter.acquire_nowait(tokens=100).close()
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire_sync(tokens=50)
    drained(limiter)


def test_a_signal_handler_settles_and_asks_without_waiting() -> None:
    """In a handler `settle` and `acquire_nowait` work as anywhere.

    The waiter of the interrupted loop goes on with the loop's next turn.
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
    """All tasks wait and the loop sleeps in the system when a handler frees the slot.

    The waiter goes on without anything else to wake it.
    """
    limiter = RateLimiter(concurrency=1)
    order: list[str] = []

    def rescue(parker: drivers.TaskParker) -> None:
        order.append("slept on")
        parker.wake()

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        # another thread: it wakes every loop
        rescuer = threading.Timer(3, rescue, (drivers.TaskParker(),))
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
    """A handler settles while the task is on its way into the wait: it does not
    wait.
    """
    clock = loop_clock()
    woken = 0

    async def main() -> None:
        nonlocal woken
        parker = drivers.TaskParker()
        me = anyio.get_current_task().id
        woken_at: float | None

        def wake() -> None:
            nonlocal woken_at
            with suppress(RuntimeError):  # the task rests, the loop is between two
                if anyio.get_current_task().id == me:
                    parker.wake()
                    woken_at = clock.now()

        for moment in range(1_000):
            woken_at = None
            with Interruption(moment, wake) as interruption:
                await parker.wait(1.0)
            if woken_at is not None:
                assert clock.now() == woken_at
                woken += 1
            if not interruption.came:
                break

    clock.run(main)
    assert woken > 20


@pytest.mark.parametrize("kind", [Clock, ThreadClock])
def test_a_thread_can_be_woken_by_what_interrupts_its_wait(kind: type[Clock]) -> None:
    """A handler settles while its own thread is anywhere inside the wait: neither
    hangs.
    """
    moments: list[int] = []

    def wait_and_wake() -> None:
        parker = drivers.ThreadParker(kind())
        moments.extend(interruptions(lambda: parker.wait(0.001), parker.wake))

    thread = threading.Thread(target=wait_and_wake, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(moments) > 3


class Waiting:
    """A call that has to wait half a second on a clock of its own, again and again."""

    def __init__(self) -> None:
        self.clock = ThreadClock()
        self.queue = Queue()
        self.store = MemoryStore(Limits(Limit("tokens", 10, 10), concurrency=3), 0.0)
        self.paid: list[Payment] = []
        paid(self.store, {"tokens": 10})

    def go(self) -> None:
        parker = drivers.ThreadParker(self.clock)
        payment = Payment({"tokens": 5})
        self.paid.append(payment)
        flow = admit(self.queue, Waiter(0.0, payment, parker), self.clock.now())
        drivers.run(flow, self.store, self.clock, parker)

    def in_order(self) -> bool:
        """Return whether the books agree with the payments, and nobody waits."""
        return (
            self.store.admitted == 1 + sum(payment.paid for payment in self.paid)
            and len(self.queue) == len(self.queue.entries) == 0
            and self.queue.ahead_of(0.0) == {}
        )


def test_ctrl_c_at_any_moment_of_a_wait_stops_no_other_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever a call that waits is interrupted, it leaves the queue and no lock is
    locked.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    some = [Waiting()]
    for _ in interruptions(some[-1].go):
        some[-1].go()
        assert some[-1].in_order()
        some.append(Waiting())

    assert len(some) > 50


def test_ctrl_c_twice_in_a_row_stops_no_other_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the first one still takes the call out of the
    queue.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    some = [Waiting()]
    for _ in double_interruptions(some[-1].go):
        some[-1].go()
        assert some[-1].in_order()
        some.append(Waiting())

    assert len(some) > 500
