"""Waiters that can never go on, or not now: they hold up no other call.

Their event loop was closed around them, or is stopped between two runs.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from ratelimit import Limit, Limits, RateLimiter, WaitTimeout, WouldBlock
from ratelimit.testing import ThreadClock

Tasks = list[asyncio.Task[Any]]


class Marker:
    """An object in the frame of a task."""


def limiter() -> RateLimiter:
    """Return a limiter of one slot and 100 tokens per 10 s, on a clock of threads."""
    return RateLimiter(
        limits=Limits(Limit("tokens", 100, 10), concurrency=1), arrival_slack=0, clock=ThreadClock()
    )


def silence(tasks: Tasks) -> None:
    """Let asyncio not complain, rightly, that these tasks were destroyed."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def waiting(
    held: RateLimiter, number: int, timeout: float | None, markers: list[weakref.ref[Marker]]
) -> Tasks:
    """Start tasks that wait for 10 tokens each; return them when all wait."""

    async def one() -> None:
        marker = Marker()
        markers.append(weakref.ref(marker))
        await held.acquire(tokens=10, timeout=timeout)
        del marker

    tasks = [asyncio.ensure_future(one()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


TIMEOUTS = pytest.mark.parametrize("timeout", [None, 1_000.0], ids=["for good", "timeout"])


@TIMEOUTS
@pytest.mark.parametrize("dead", ["head", "middle", "all"])
def test_the_dead_are_neither_waited_for_nor_kept(dead: str, timeout: float | None) -> None:
    """Wherever they stand: the living go, and the frames of the dead can be
    collected.
    """
    held = limiter()
    queue = held._engine.family("").admission.queue
    lease = held.acquire_nowait(tokens=1)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    markers: list[weakref.ref[Marker]] = []
    others: list[weakref.ref[Marker]] = []
    tasks: Tasks = []
    living: Tasks = []
    if dead == "middle":
        living = second.run_until_complete(waiting(held, 1, timeout, others))
    tasks = first.run_until_complete(waiting(held, 3, timeout, markers))
    if dead != "all":
        living += second.run_until_complete(waiting(held, 1, timeout, others))
    assert held.statistics().waiting == len(tasks) + len(living)

    first.close()
    assert held.statistics().waiting == 0  # the living wait in a loop that is stopped
    assert queue.ahead_of(1e9) == {}
    assert not queue.entries
    silence(tasks)
    tasks.clear()
    gc.collect()
    if timeout is None:  # anyio keeps every task that dies inside a cancel scope of its own
        assert [marker() for marker in markers] == [None] * 3

    lease.close()
    second.run_until_complete(asyncio.wait(living)) if living else None
    second.close()
    held.acquire_nowait(tokens=1).close()
    assert held.statistics().in_flight == held.statistics().waiting == 0


@TIMEOUTS
def test_a_waiter_that_is_cancelled_before_its_loop_is_closed_is_gone(
    timeout: float | None,
) -> None:
    """`wait_for` gives up, and the loop is closed around the rest."""
    held = limiter()
    lease = held.acquire_nowait(tokens=1)
    loop = asyncio.new_event_loop()
    markers: list[weakref.ref[Marker]] = []

    async def main() -> Tasks:
        tasks = await waiting(held, 2, timeout, markers)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(tasks[0], 0.001)
        return tasks

    tasks = loop.run_until_complete(main())
    assert held.statistics().waiting == 1
    loop.close()
    silence(tasks)
    tasks.clear()
    lease.close()
    held.acquire_nowait(tokens=1).close()
    gc.collect()
    assert markers[0]() is None
    if timeout is None:  # see above
        assert markers[1]() is None


@pytest.mark.parametrize("door", ["nowait", "sync", "timeout", "loop", "thread"])
def test_any_call_passes_the_dead(door: str) -> None:
    """Whichever way it comes."""
    held = limiter()
    lease = held.acquire_nowait(tokens=1)
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(waiting(held, 3, None, []))
    loop.close()
    silence(tasks)
    lease.close()

    def thread() -> None:
        worker = threading.Thread(target=lambda: held.acquire_sync(tokens=1).close())
        worker.start()
        worker.join(30)
        assert not worker.is_alive()

    async def task() -> None:
        (await held.acquire(tokens=1)).close()

    ways: dict[str, Callable[[], object]] = {
        "nowait": lambda: held.acquire_nowait(tokens=1).close(),
        "sync": lambda: held.acquire_sync(tokens=1).close(),
        "timeout": lambda: held.acquire_sync(tokens=1, timeout=0).close(),
        "loop": lambda: asyncio.run(task()),
        "thread": thread,
    }
    ways[door]()

    family = held.statistics().families["*"]
    assert (family.waiting, family.in_flight, family.admitted) == (0, 0, 2)
    del tasks
    gc.collect()


@TIMEOUTS
def test_a_loop_that_is_stopped_between_two_runs_holds_up_nobody(timeout: float | None) -> None:
    """Its waiter goes when the loop runs again."""
    held = limiter()
    lease = held.acquire_nowait(tokens=1)
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(waiting(held, 1, timeout, []))
    lease.close()
    other = held.acquire_sync(tokens=1)
    with pytest.raises(WouldBlock):
        held.acquire_nowait(tokens=1)
    other.close()

    loop.run_until_complete(asyncio.wait_for(tasks[0], 5))
    loop.close()
    assert held.statistics().waiting == held.statistics().in_flight == 0


def test_a_timeout_counts_no_dead_waiter_ahead() -> None:
    """The certain wait is that behind the living."""
    held = RateLimiter(
        limits=Limits(Limit("tokens", 100, 10)),
        accounting="never_refund",
        arrival_slack=0,
        clock=ThreadClock(),
    )
    held.acquire_nowait(tokens=100)
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(waiting(held, 9, None, []))
    with pytest.raises(WaitTimeout):
        held.acquire_sync(tokens=10, timeout=2)
    loop.close()
    silence(tasks)
    held.acquire_sync(tokens=10, timeout=2)

    assert held._engine.clock.now() == pytest.approx(1)
    del tasks
    gc.collect()


def test_a_handler_that_settles_under_the_lock_with_a_dead_head_neither_waits_nor_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The holder of the lock drops the dead and wakes the next one when it is done."""
    held = limiter()
    queue = held._engine.family("").admission.queue
    lease = held.acquire_nowait(tokens=1)
    closed, alive = asyncio.new_event_loop(), asyncio.new_event_loop()
    dead = closed.run_until_complete(waiting(held, 1, None, []))
    living = alive.run_until_complete(waiting(held, 1, None, []))
    real = heapq.heappush
    settled: list[bool] = []

    def interrupted(heap: Any, entry: Any) -> None:
        if not settled:
            assert queue._lock.locked()
            closed.close()
            lease.settle(tokens=0)
            settled.append(True)
        real(heap, entry)

    monkeypatch.setattr(heapq, "heappush", interrupted)
    last = alive.run_until_complete(waiting(held, 1, None, []))
    assert settled
    alive.run_until_complete(asyncio.wait_for(asyncio.wait(living + last), 5))
    alive.close()
    silence(dead)

    assert held.statistics().waiting == held.statistics().in_flight == 0
    del dead
    gc.collect()


CRASHED = """
import signal, trio
from ratelimit import RateLimiter

def interrupt(*_):
    raise KeyboardInterrupt

held = RateLimiter(rpm=1_000, concurrency=1)
first = held.acquire_sync(tokens=1)
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    trio.run(lambda: held.acquire(tokens=1))
except BaseException as error:
    print(type(error).__name__)
first.settle(tokens=1)
held.acquire_nowait(tokens=1).settle(tokens=1)
held.acquire_sync(tokens=1, timeout=5).settle(tokens=1)
print(held.statistics().waiting)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
def test_a_trio_run_that_a_signal_handler_has_ended_holds_up_nobody() -> None:
    """Trio cannot end its tasks in order then; they are dead all the same.

    In a process of its own, as trio complains of what is left when it is collected.
    """
    done = subprocess.run(
        [sys.executable, "-c", CRASHED], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.split()[1:] == ["0"]
