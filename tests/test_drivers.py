"""The drivers: threads, event loops, closed loops and forks, all on one limiter."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from ratelimit import Limit, Limits, RateLimiter, ReentrantUse
from ratelimit.admission import clock as clock_module
from ratelimit.admission import drivers
from ratelimit.admission.clock import Clock, Flag
from ratelimit.admission.flow import Park
from ratelimit.stores.memory import MemoryStore
from ratelimit.testing import ThreadClock, VirtualClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock

MANY = 1e9


def drained(limiter: RateLimiter) -> None:
    """Nobody waits and nothing is in flight."""
    family = limiter.statistics().families["*"]
    assert (family.waiting, family.in_flight) == (0, 0)
    assert family.admitted == family.ended


@pytest.mark.usefixtures("eager_switching")
def test_asyncio_trio_and_threads_share_one_limiter_at_the_same_time() -> None:
    """Two loops and three threads take turns over two slots; the sums are exact."""
    limiter = RateLimiter(
        limits=Limits(Limit("tokens", 100_000, MANY), concurrency=2), arrival_slack=0
    )
    calls, errors = 60, []

    async def one(number: int) -> None:
        async with limiter.reserve(tokens=10, priority=number % 3) as lease:
            await anyio.lowlevel.checkpoint()
            lease.settle(tokens=3)

    async def some() -> None:
        async with anyio.create_task_group() as group:
            for number in range(calls):
                group.start_soon(one, number)

    def threaded() -> None:
        for number in range(calls):
            with limiter.reserve(tokens=10, priority=number % 3) as lease:
                lease.settle(tokens=3)

    def watch(work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001  # shown by the assertion below
            errors.append(error)

    threads = [
        threading.Thread(target=watch, args=(lambda: asyncio.run(some()),)),
        threading.Thread(target=watch, args=(trio.run, some)),
        *(threading.Thread(target=watch, args=(threaded,)) for _ in range(3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not errors
    assert not any(thread.is_alive() for thread in threads)
    drained(limiter)
    (level,) = limiter.statistics().families["*"].levels.values()
    assert level == pytest.approx(100_000 - 5 * calls * 3, abs=1)


@pytest.mark.usefixtures("eager_switching")
def test_cancelled_waiters_among_threads_leave_nothing_behind() -> None:
    """Tasks of two loops are cancelled while threads settle: no turn is lost."""
    limiter = RateLimiter(concurrency=1)

    async def some() -> None:
        async def one(number: int) -> None:
            with anyio.move_on_after(0.0005 * (number % 4)):
                async with limiter.reserve(tokens=1):
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for number in range(80):
                group.start_soon(one, number)

    def threaded() -> None:
        for _ in range(80):
            with limiter.reserve(tokens=1):
                pass

    threads = [
        threading.Thread(target=lambda: asyncio.run(some())),
        threading.Thread(target=trio.run, args=(some,)),
        threading.Thread(target=threaded),
        threading.Thread(target=threaded),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    drained(limiter)


def test_a_limiter_outlives_the_loops_it_was_used_on(loop_clock: LoopClock) -> None:
    """A second run finds the state of the first, waits for it, and works."""
    clock = loop_clock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)

    async def main() -> None:
        async with limiter.reserve(tokens=100):
            pass

    for _ in range(3):
        clock.run(main)
    assert clock.now() == pytest.approx(20)
    drained(limiter)


@pytest.mark.parametrize("waiters", [1, 3])
def test_waiters_of_a_closed_loop_block_nobody(waiters: int) -> None:
    """The tasks of a loop that was closed without cancelling them wait no longer."""
    clock = ThreadClock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)
    loop = asyncio.new_event_loop()

    async def main() -> list[asyncio.Task[Any]]:
        await limiter.acquire(tokens=100)
        tasks = [asyncio.ensure_future(limiter.acquire(tokens=50)) for _ in range(waiters)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(main())
    assert limiter.statistics().waiting == waiters
    loop.close()
    assert limiter.statistics().waiting == 0
    limiter.acquire_sync(tokens=30)
    assert clock.now() == pytest.approx(3)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's complaint about such loops is right, and not ours
    del tasks
    gc.collect()


def test_a_refund_reaches_a_thread_behind_waiters_of_a_closed_loop() -> None:
    """A refund wakes the first waiter that can go on."""
    clock = ThreadClock()
    limiter = RateLimiter(concurrency=1, clock=clock)
    lease = limiter.acquire_nowait(tokens=1)
    loop = asyncio.new_event_loop()

    async def main() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(limiter.acquire(tokens=1))
        await asyncio.sleep(0)
        return task

    def close_and_settle() -> None:
        clock.sleep(1)
        loop.close()
        lease.close()

    task = loop.run_until_complete(main())
    clock.run(lambda: limiter.acquire_sync(tokens=1).close(), close_and_settle)
    drained(limiter)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_call_behind_a_task_of_its_own_loop_is_refused(backend: str) -> None:
    """It would stop the loop that the task before it needs to go on.

    It raises, and the task goes.
    """
    limiter = RateLimiter(concurrency=1, clock=ThreadClock())
    served: list[str] = []

    async def other() -> None:
        (await limiter.acquire(tokens=1)).close()
        served.append("task")

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        async with anyio.create_task_group() as group:
            group.start_soon(other)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ReentrantUse, match="async with"):
                limiter.acquire_sync(tokens=1)
            lease.close()

    anyio.run(main, backend=backend)
    assert served == ["task"]
    drained(limiter)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_call_in_a_loop_may_wait_for_time(backend: str) -> None:
    """With nobody before it, it blocks the loop and goes when its time has come.

    So it does before a task that is more patient.
    """
    clock = ThreadClock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 10, 10)), arrival_slack=0, clock=clock)

    async def main() -> None:
        limiter.acquire_sync(tokens=10)
        limiter.acquire_sync(tokens=5)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(limiter.acquire, tokens=5, priority=1_000))
            await anyio.wait_all_tasks_blocked()
            limiter.acquire_sync(tokens=5)
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert clock.now() == pytest.approx(10)
    assert limiter.statistics().waiting == 0


FORKED = """
    import os, sys, threading, traceback, warnings
    from ratelimit import Limit, Limits, LimiterWarning, RateLimiter

    limiter = RateLimiter(limits=Limits(Limit("tokens", 1000, 1e9), concurrency=1), arrival_slack=0)
    family = limiter._engine.family("")
    lease = limiter.acquire_nowait(tokens=900)
    waiter = threading.Thread(target=lambda: limiter.acquire_sync(tokens=1).close(), daemon=True)
    waiter.start()
    while not limiter.statistics().waiting:
        pass
    admission, estimator = family.admission, limiter._engine.estimator
    locks = [admission.store._lock, admission.queue._lock, estimator._lock]
    for lock in locks:
        lock.acquire()  # another thread of the parent is in the middle of everything
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(15)  # never hang the suite
    for lock in locks if child else ():
        lock.release()
    if child == 0:
        code = 1
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                mine = limiter.acquire_sync(tokens=500)
            assert [warning.category for warning in caught] == [LimiterWarning], caught
            lease.settle(tokens=0)  # the parent's call: nothing of it belongs to this process
            statistics = limiter.statistics().families["*"]
            assert (statistics.waiting, statistics.in_flight) == (0, 1), statistics
            assert [round(level) for level in statistics.levels.values()] == [500], statistics
            assert limiter.estimate(model="gpt-4o", messages=[]).model == "gpt-4o"
            mine.close()
            limiter.acquire_sync(model="gpt-4o", messages=[], max_tokens=1).close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    lease.settle(tokens=10)
    waiter.join(30)
    assert not waiter.is_alive()
    assert round(list(limiter.statistics().families["*"].levels.values())[0]) == 989
"""


def test_after_a_fork_the_child_starts_anew_with_a_warning() -> None:
    """Locks, waiters and calls in flight are the parent's: the child has full
    buckets.
    """
    done = subprocess.run(  # our own text
        [sys.executable, "-c", textwrap.dedent(FORKED)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_rest_until_a_moment_that_has_come_lets_time_pass() -> None:
    """A moment that rounding has put at the present does not come again and again."""
    clock = ThreadClock()

    def flow() -> Any:
        yield Park(clock.now())
        yield Park(-5.0)
        done.append(clock.now())

    done: list[float] = []
    store = MemoryStore(Limits(), 0.0)
    drivers.run(flow(), store, clock, drivers.ThreadParker(clock))

    assert done == [pytest.approx(2 * drivers.TICK)]


def test_a_thread_may_wait_longer_than_a_lock_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait above what the system's locks take is waited in parts."""
    monkeypatch.setattr(clock_module, "LONGEST", 0.0)

    class Centuries(Clock):
        def __init__(self) -> None:
            self.seconds = 0.0
            self.now = lambda: self.seconds

        def park(self, flag: Flag, seconds: float | None) -> None:
            super().park(flag, seconds)
            self.seconds += threading.TIMEOUT_MAX

    clock = Centuries()
    limiter = RateLimiter(
        limits=Limits(Limit("requests", 1, per=1e11)), arrival_slack=0, clock=clock
    )
    limiter.acquire_sync()
    limiter.acquire_sync()
    assert clock.now() >= 1e11


def test_a_timeout_of_centuries_is_none() -> None:
    """A thread with a timeout that no lock takes waits for its slot like any other."""
    limiter = RateLimiter(concurrency=1)
    lease = limiter.acquire_nowait()
    served: list[object] = []
    thread = threading.Thread(target=lambda: served.append(limiter.acquire_sync(timeout=1e12)))
    thread.start()
    while thread.is_alive() and not limiter.statistics().waiting:
        pass
    lease.close()
    thread.join(30)
    assert len(served) == 1


def test_the_event_loop_goes_on_while_a_call_waits() -> None:
    """Waiting blocks its task only."""
    clock = VirtualClock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(clock.now())

    async def main() -> None:
        ticker = asyncio.create_task(tick())
        await limiter.acquire(tokens=100)
        await limiter.acquire(tokens=95)
        ticker.cancel()

    clock.run(main)
    assert ticks == [pytest.approx(second) for second in range(1, 10)]
