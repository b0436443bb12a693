"""The virtual clocks that users' tests and ours stand on."""

from __future__ import annotations

import asyncio
import socket
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from ratelimit import RateLimiter
from ratelimit.admission.clock import Flag
from ratelimit.testing.clocks import Deadlock, ThreadClock, VirtualClock, run_virtual

if TYPE_CHECKING:
    from tests.conftest import LoopClock


def test_sleeping_takes_no_time_and_keeps_exact_moments(loop_clock: LoopClock) -> None:
    """A loop wakes at the moments that were asked for, in their order, across days."""
    clock = loop_clock()
    woken: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, clock.now()))

    async def main() -> str:
        async with anyio.create_task_group() as group:
            for seconds in (86_400.0, 0.1, 3.0, 60.0):
                group.start_soon(sleep, seconds)
        return "done"

    assert clock.run(main) == "done"
    assert [seconds for seconds, _ in woken] == [0.1, 3.0, 60.0, 86_400.0]
    assert all(now == pytest.approx(seconds, abs=1e-6) for seconds, now in woken)


def test_a_second_run_goes_on_where_the_first_ended(loop_clock: LoopClock) -> None:
    """The time belongs to the clock, so a limiter outlives the loop it was used on."""
    clock = loop_clock()
    limiter = RateLimiter(rpm=60, burst_share=1 / 60, arrival_slack=0, clock=clock)

    async def two() -> None:
        await limiter.acquire(tokens=0)
        await limiter.acquire(tokens=0)

    clock.run(two)
    assert clock.now() == pytest.approx(1)
    clock.run(two)
    assert clock.now() == pytest.approx(3)


@pytest.mark.parametrize("start", [0.0, 1e7, 1e9, 1e12])
def test_no_residue_of_rounding_is_waited_for_again_and_again(start: float) -> None:
    """Far from zero, where one float step is longer than asyncio's own resolution, a
    timer still ends and time still moves.
    """
    clock = VirtualClock()
    clock.seconds = start

    async def main() -> None:
        await asyncio.sleep(1e-12)
        await asyncio.sleep(0.1)
        await asyncio.sleep(1 / 3)

    clock.run(main)
    assert start < clock.now() < start + 1.001 + 4e-4 * (start >= 1e12)


def test_real_io_is_listened_to_before_the_loop_jumps() -> None:
    """A byte that is on its way arrives before a timer of an hour, and costs no virtual
    time.
    """
    clock = VirtualClock(grace=5.0)

    async def main() -> tuple[bytes, float]:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)

        def send() -> None:
            threading.Event().wait(0.01)
            right.sendall(b"x")

        threading.Thread(target=send).start()
        byte = await asyncio.wait_for(reader.read(1), 3_600)
        writer.close()
        await writer.wait_closed()
        right.close()
        return byte, clock.now()

    assert clock.run(main) == (b"x", 0.0)


def test_work_in_an_executor_is_waited_for() -> None:
    """While a thread works for the loop, the loop's time stands still."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.wait_for(loop.run_in_executor(None, threading.Event().wait, 0.01), 0.001)
        return loop.time() - begun

    assert run_virtual(main) == 0.0


def test_anyio_takes_the_loop_as_a_backend_option() -> None:
    """Suites on anyio's own runner use the clock by `loop_factory`."""
    clock = VirtualClock()
    anyio.run(anyio.sleep, 1_000, backend_options={"loop_factory": clock.new_loop})
    assert clock.now() == pytest.approx(1_000)


def test_a_loop_clock_refuses_to_park_a_thread(loop_clock: LoopClock) -> None:
    """A blocked thread would stop the loop for good; the error says so."""
    clock = loop_clock()
    with pytest.raises(RuntimeError, match="ThreadClock"):
        clock.park(Flag(), 1)
    assert clock.now() == 0


def test_threads_meet_at_the_moments_they_wait_for() -> None:
    """Virtual sleeps of threads end in the order of their moments and take no real
    time.
    """
    clock = ThreadClock()
    woken: list[float] = []

    def sleep(*naps: float) -> None:
        for seconds in naps:
            clock.sleep(seconds)
            woken.append(clock.now())

    clock.run(lambda: sleep(3_600), lambda: sleep(1), lambda: sleep(60, 0.5))
    assert woken == [1, 60, 60.5, 3_600]


def test_a_thread_that_is_woken_stops_the_jump() -> None:
    """A flag that one thread sets for another counts as work: time does not pass
    meanwhile.
    """
    clock = ThreadClock()
    flag = Flag()
    seen: list[float] = []

    def waiter() -> None:
        clock.park(flag, 100)
        seen.append(clock.now())

    def waker() -> None:
        clock.sleep(5)
        flag.set()
        clock.sleep(1_000)

    clock.run(waiter, waker)
    assert seen == [5]
    assert clock.now() == 1_005


def test_threads_that_wait_for_nothing_get_an_error() -> None:
    """When every thread waits and none for a moment, each gets an error that says so,
    instead of hanging the suite.
    """
    clock = ThreadClock()
    limiter = RateLimiter(concurrency=1, clock=clock)

    def never_ends() -> None:
        held.append(limiter.acquire_sync(tokens=1))

    held: list[object] = []
    with pytest.raises(Deadlock, match="no thread is left"):
        clock.run(never_ends, never_ends, never_ends)
    assert len(limiter.statistics().families["*"].levels) == 0
    assert limiter.statistics().waiting == 0


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    """`run` raises what a thread raised, after all have ended, also of threads begun by
    threads.
    """
    clock = ThreadClock()

    def fail() -> None:
        clock.sleep(2)
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        clock.run(lambda: clock.start(fail), lambda: clock.sleep(10))
    assert clock.now() == 10


def test_the_main_thread_alone_may_wait_on_a_thread_clock() -> None:
    """A test without threads of its own uses the clock as it is: a wait is a jump."""
    clock = ThreadClock()
    limiter = RateLimiter(rpm=60, burst_share=1 / 60, arrival_slack=0, clock=clock)
    for _ in range(5):
        limiter.acquire_sync(tokens=0)
    assert clock.now() == pytest.approx(4)


@pytest.mark.parametrize("start", [0.0, 100.0, 1e9])
def test_a_timer_never_fires_in_the_moment_in_which_it_is_set(start: float) -> None:
    """A timer for 1e-16 s, which a leaky level's rounding makes aiolimiter set again
    and again, moves the time each time, also while other callbacks are ready.
    """
    clock = VirtualClock()
    clock.seconds = start

    async def busy(loop: asyncio.AbstractEventLoop) -> None:
        while loop.time() < start + 1e-3:  # noqa: ASYNC110  # busy on purpose
            await asyncio.sleep(0)

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        polling = loop.create_task(busy(loop))
        moments = [loop.time()]
        for _ in range(4):
            due = loop.create_future()
            loop.call_at(loop.time() + 1e-16, due.set_result, None)
            await due
            moments.append(loop.time())

        polling.cancel()
        return moments

    moments = clock.run(main)

    assert all(before < after for before, after in pairwise(moments))
    assert moments[-1] < start + 1e-3


def test_no_timer_fires_before_its_moment() -> None:
    """Timers half a nanosecond apart see each their own time."""
    clock = VirtualClock()
    seen: list[float] = []

    def see(moment: float) -> None:
        seen.append(clock.now() - moment)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for moment in (1.0, 1.0 + 5e-10, 1.0 + 1e-15):
            loop.call_at(moment, see, moment)

        await asyncio.sleep(2)

    clock.run(main)

    assert seen == pytest.approx([0, 0, 0], abs=1e-15)
    assert min(seen) >= 0


def test_a_task_that_polls_the_clock_gets_on(loop_clock: LoopClock) -> None:
    """In real time a round of the loop takes some, so a busy wait ends; here too."""
    clock = loop_clock()

    async def main() -> None:
        start = clock.now()
        while clock.now() <= start:  # busy on purpose
            await anyio.lowlevel.checkpoint()

        middle = clock.now()
        while clock.now() <= middle:  # noqa: ASYNC110  # busy on purpose
            await anyio.sleep(1e-17)

    clock.run(main)

    assert 0 < clock.now() < 1e-3


def test_work_in_a_thread_of_anyio_takes_no_time(loop_clock: LoopClock) -> None:
    """While a worker thread works, no timer of the loop fires: neither a timeout around
    the work nor another task's sleep; afterwards time goes on.
    """
    clock = loop_clock()
    woken: list[float] = []

    async def sleep() -> None:
        await anyio.sleep(60)
        woken.append(clock.now())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(sleep)
            with anyio.move_on_after(30) as scope:
                work = threading.Event().wait
                await anyio.to_thread.run_sync(work, 0.05, abandon_on_cancel=True)

            ends.append((scope.cancelled_caught, clock.now()))

    ends: list[tuple[bool, float]] = []
    clock.run(main)

    assert [cancelled for cancelled, _ in ends] == [False]
    assert ends[0][1] < 1e-3
    assert woken == [pytest.approx(60, abs=1e-3)]


def test_an_error_of_a_worker_thread_lets_time_go_on(loop_clock: LoopClock) -> None:
    """The work is over however it ends."""
    clock = loop_clock()

    def fail() -> None:
        raise KeyError("here")

    async def main() -> None:
        with pytest.raises(KeyError):
            await anyio.to_thread.run_sync(fail)

        await anyio.sleep(60)

    clock.run(main)

    assert clock.now() == pytest.approx(60, abs=1e-3)
