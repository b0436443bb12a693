"""The queue: order, sums, and waiters that can never go on. No clock and no I/O."""

from __future__ import annotations

import heapq
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ratelimit import ReentrantUse, locks
from ratelimit.admission.queue import Queue, Waiter
from tests.payments import Sleeper, waiter


def woken(of: Waiter) -> int:
    """Return how often a waiter was woken."""
    assert isinstance(of.parker, Sleeper)
    return of.parker.woken


class QueueMachine(RuleBasedStateMachine):
    """A queue beside a sorted list of its waiters.

    As in real use, ranks within one patience only grow: a rank is arrival + patience.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.waiters: list[tuple[float, int, Waiter]] = []
        self.serial = 0
        self.now = 0.0
        self.left_from_the_middle = False

    @rule(pause=st.sampled_from([0.0, 1.0]))
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(patience=st.sampled_from([0.0, 1.0, 2.0, 3.0]), tokens=st.integers(0, 5))
    def join(self, patience: float, tokens: int) -> None:
        one = waiter(self.now + patience, patience=patience, tokens=tokens)
        self.queue.join(one)
        self.serial += 1
        self.waiters.append((one.rank, self.serial, one))
        self.waiters.sort(key=lambda entry: entry[:2])

    @precondition(lambda self: self.waiters)
    @rule(which=st.integers(0, 10_000))
    def leave(self, which: int) -> None:
        index = which % len(self.waiters)
        _, _, one = self.waiters.pop(index)
        before = woken(self.waiters[0][2]) if self.waiters else 0
        self.left_from_the_middle = bool(self.waiters) and (self.left_from_the_middle or index > 0)
        self.queue.leave(one)
        self.queue.leave(one)
        if self.waiters and index == 0:
            assert woken(self.waiters[0][2]) == before + 1, "the new head was not woken"

    @precondition(lambda self: self.waiters)
    @rule()
    def nudge(self) -> None:
        before = woken(self.waiters[0][2])
        self.queue.nudge()
        assert woken(self.waiters[0][2]) == before + 1

    @invariant()
    def the_order_is_kept(self) -> None:
        assert len(self.queue) == len(self.waiters)
        assert self.queue.head is (self.waiters[0][2] if self.waiters else None)

    @invariant()
    def the_sums_are_those_of_the_waiters(self) -> None:
        for rank in (self.now - 1, self.now, self.now + 1.5, self.now + 3.0):
            total = sum(
                one.payment.amounts["tokens"] for other, _, one in self.waiters if other <= rank
            )
            ahead = self.queue.ahead_of(rank).get("tokens", 0)
            assert ahead <= total + 1e-9
            if not self.left_from_the_middle:
                assert ahead == pytest.approx(total)

    @invariant()
    def a_newcomer_is_shown_whether_it_would_be_first(self) -> None:
        assert not self.waiters or not self.queue.admits(self.waiters[0][0])
        assert self.queue.admits(self.now - 5) or bool(
            self.waiters and self.waiters[0][0] <= self.now - 5
        )


TestQueue = QueueMachine.TestCase


@given(ranks=st.lists(st.floats(0, 10), max_size=30))
def test_the_order_is_by_rank_and_then_by_arrival(ranks: list[float]) -> None:
    """Leaving one by one from the front gives the order of ranks.

    And the order of arrival within a rank.
    """
    queue = Queue()
    waiters = [waiter(rank) for rank in ranks]
    for one in waiters:
        queue.join(one)
    served = []
    while head := queue.head:
        served.append(head)
        queue.leave(head)

    assert served == sorted(waiters, key=lambda one: one.rank)


def test_waiters_of_closed_loops_are_dropped_wherever_they_stand() -> None:
    """The first waiter that can go on is woken; the dead are neither waited for nor
    summed.
    """
    queue = Queue()
    closed = Sleeper(loop="closed")
    closed.closed = True
    alive = waiter(2, Sleeper(loop="open"), tokens=7)
    for one in (
        waiter(0, closed, tokens=10),
        waiter(1, closed, tokens=10),
        alive,
        waiter(3, closed, tokens=1),
        waiter(4, Sleeper(loop="open"), tokens=2),
    ):
        queue.join(one)
    queue.nudge()

    assert queue.head is alive
    assert woken(alive) >= 1
    assert len(queue) == 2
    assert queue.ahead_of(9) == {"tokens": 9}


def test_a_head_of_a_stopped_loop_holds_up_nobody_and_may_join_again() -> None:
    """It is taken out when it is woken; joined anew it stands before its later
    equals.
    """
    queue = Queue()
    stopped, other, later = waiter(0, Sleeper("stopped")), waiter(1), waiter(0)
    assert isinstance(stopped.parker, Sleeper)
    stopped.parker.stopped = True
    queue.join(stopped)
    queue.join(other)
    queue.nudge()
    assert stopped.left
    assert queue.head is other
    assert woken(other) == 1

    stopped.parker.stopped = False
    queue.join(stopped)
    queue.join(later)
    assert queue.head is stopped
    queue.leave(stopped)
    assert queue.head is later


def test_the_memory_of_cancelled_waiters_is_bounded() -> None:
    """Thousands that leave behind one patient head do not stay in the heap."""
    queue = Queue()
    queue.join(waiter(0))
    for _ in range(5_000):
        one = waiter(1)
        queue.join(one)
        queue.leave(one)

    assert len(queue) == 1
    assert len(queue.entries) < 200


def test_after_a_fork_the_queue_is_new() -> None:
    """Whatever state it was in, its lock included."""
    queue = Queue()
    queue.join(waiter(0))
    queue._lock.acquire()
    queue.reset_after_fork()
    newcomer = waiter(1)
    queue.join(newcomer)

    assert queue.head is newcomer
    assert len(queue) == 1


def test_joining_from_inside_is_told_apart_from_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handler that interrupts the holder of the lock and joins raises; it never
    hangs.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    queue = Queue()
    real = heapq.heappush

    def interrupted(heap: Any, entry: Any) -> None:
        if entry[2].rank == 0:
            with pytest.raises(ReentrantUse, match="signal handler or finalizer"):
                queue.join(waiter(5))
        real(heap, entry)

    monkeypatch.setattr(heapq, "heappush", interrupted)
    queue.join(waiter(0))

    assert len(queue) == 1


def test_waking_the_head_needs_no_lock() -> None:
    """A finalizer or signal handler that interrupts the holder of the lock can
    nudge.
    """
    queue = Queue()
    one = waiter(0)
    queue.join(one)
    with queue._lock:
        queue.nudge()

    assert woken(one) == 1


def test_a_dead_head_that_is_nudged_under_the_lock_is_dropped_by_its_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The handler neither waits nor raises; the next waiter is woken all the same."""
    queue = Queue()
    dead, alive = waiter(0, Sleeper("closed")), waiter(1)
    assert isinstance(dead.parker, Sleeper)
    queue.join(dead)
    queue.join(alive)
    dead.parker.closed = True
    real = heapq.heappush

    def interrupted(heap: Any, entry: Any) -> None:
        queue.nudge()  # a signal handler gives something back
        assert woken(alive) == 0
        real(heap, entry)

    monkeypatch.setattr(heapq, "heappush", interrupted)
    queue._locked(queue._join, waiter(2))

    assert queue.head is alive
    assert woken(alive) >= 1
    assert len(queue) == 2


def test_a_call_that_would_block_the_thread_of_waiters_before_it_is_refused() -> None:
    """A waiter before it, of its thread and with a loop that lives, could never go on.

    Waiters behind it, or of another thread, do not matter.
    """
    queue = Queue()
    loops = [Sleeper(f"loop {number}") for number in range(5)]
    elsewhere, first, closed, me, behind = waiters = [
        waiter(rank, parker) for rank, parker in enumerate(loops)
    ]
    elsewhere.thread = 0
    for one in reversed(waiters):
        queue.join(one)
    loops[2].closed = True
    with pytest.raises(ReentrantUse, match="another thread"):
        queue.refuse_blocking(me)
    queue.leave(first)
    queue.refuse_blocking(me)
    with pytest.raises(ReentrantUse):
        queue.refuse_blocking(behind)
    queue.leave(me)
    queue.refuse_blocking(behind)

    assert [one.queued for one in (elsewhere, closed, behind)] == [True] * 3


def steps_of(act: Any) -> int:
    """Return how many functions, of Python or C, ``act`` calls."""
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        del frame
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def filled(number: int) -> tuple[Queue, list[Waiter]]:
    """Return a queue of so many waiters of three patiences."""
    queue, waiters = Queue(), []
    for arrival in range(number):
        patience = (0.0, 10.0, 60.0)[arrival % 3]
        one = waiter(arrival * 0.001 + patience, patience=patience, tokens=5)
        queue.ahead_of(one.rank)
        queue.join(one)
        waiters.append(one)
    return queue, waiters


def test_joining_with_a_timeout_takes_the_same_steps_for_any_number_of_waiters() -> None:
    """20,000 waiters of mixed priorities cost no more each than 200 do."""
    few = steps_of(lambda: filled(200)) / 200
    many = steps_of(lambda: filled(20_000)) / 20_000

    assert many == pytest.approx(few, rel=0.1)


@pytest.mark.parametrize("order", ["front", "back", "middle"])
def test_leaving_takes_about_the_same_steps_for_any_number_of_waiters(order: str) -> None:
    """From wherever they leave: sums and heap are made anew only now and then."""

    def leave_all(number: int) -> float:
        queue, waiters = filled(number)
        waiters.sort(key=lambda one: one.rank)
        if order == "back":
            waiters.reverse()
        elif order == "middle":
            waiters = waiters[number // 2 :] + waiters[: number // 2]

        def leave() -> None:
            for one in waiters:
                queue.leave(one)

        return steps_of(leave) / number

    assert leave_all(8_000) <= 2 * leave_all(400)
