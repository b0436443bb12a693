"""Who is next: order, totals, and waiters that are gone. No clock and no I/O."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ratelimit import ReentrantUse, locks
from ratelimit.admission.queue import Queue, Waiter


class Sleeper:
    """A place that counts how often it was woken, and may be gone."""

    def __init__(self, rank: float, tokens: float = 1, *, gone: bool = False) -> None:
        self.woken = 0
        self.gone = gone
        self.place = Waiter(rank, {"tokens": tokens}, self.wake)

    def wake(self) -> bool:
        self.woken += 1
        return not self.gone


class LineMachine(RuleBasedStateMachine):
    """A line beside a sorted list of those who wait."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Queue()
        self.waiters: list[tuple[float, int, Sleeper]] = []
        self.serial = 0

    @rule(rank=st.sampled_from([0.0, 1.0, 2.0, 3.0]), tokens=st.integers(0, 5))
    def join(self, rank: float, tokens: int) -> None:
        waiter = Sleeper(rank, tokens)
        self.line.join(waiter.place)
        self.serial += 1
        self.waiters.append((rank, self.serial, waiter))
        self.waiters.sort(key=lambda entry: entry[:2])

    @precondition(lambda self: self.waiters)
    @rule(which=st.integers(0, 10_000))
    def leave(self, which: int) -> None:
        index = which % len(self.waiters)
        _, _, waiter = self.waiters.pop(index)
        woken = self.waiters[0][2].woken if self.waiters else 0
        self.line.leave(waiter.place)
        self.line.leave(waiter.place)
        if self.waiters and index == 0:
            assert self.waiters[0][2].woken == woken + 1, "the new head was not woken"

    @precondition(lambda self: self.waiters)
    @rule()
    def nudge(self) -> None:
        woken = self.waiters[0][2].woken
        self.line.nudge()
        assert self.waiters[0][2].woken == woken + 1

    @invariant()
    def the_order_is_kept(self) -> None:
        assert len(self.line) == len(self.waiters)
        assert self.line.head is (self.waiters[0][2].place if self.waiters else None)

    @invariant()
    def the_totals_are_those_of_who_waits(self) -> None:
        for rank in (0.0, 1.5, 3.0):
            total = sum(
                waiter.place.cost["tokens"] for other, _, waiter in self.waiters if other <= rank
            )
            assert self.line.ahead_of(rank).get("tokens", 0) == total

    @invariant()
    def a_newcomer_knows_whether_it_would_be_first(self) -> None:
        assert self.line.admits(0.5) == (not self.waiters or self.waiters[0][0] > 0.5)
        assert not self.waiters or not self.line.admits(self.waiters[0][0])


TestLine = LineMachine.TestCase


@given(ranks=st.lists(st.floats(0, 10), max_size=30))
def test_the_line_is_by_rank_and_then_by_arrival(ranks: list[float]) -> None:
    """Leaving one by one from the front gives the order of ranks, and of arrival within
    a rank.
    """
    line = Queue()
    waiters = [Sleeper(rank) for rank in ranks]
    for waiter in waiters:
        line.join(waiter.place)
    served = []
    while head := line.head:
        served.append(head)
        line.leave(head)
    assert served == [
        waiter.place for waiter in sorted(waiters, key=lambda waiter: waiter.place.rank)
    ]


def test_waiters_that_are_gone_are_dropped_on_the_way() -> None:
    """Waking finds the first who still lives; the others are no longer waited for or
    counted.
    """
    line = Queue()
    waiters = [
        Sleeper(0, 10, gone=True),
        Sleeper(0, 10, gone=True),
        Sleeper(0, 7),
        Sleeper(0, 1, gone=True),
    ]
    for waiter in waiters:
        line.join(waiter.place)
    line.nudge()
    assert line.head is waiters[2].place
    assert waiters[2].woken >= 1
    assert line.ahead_of(9) == {"tokens": 8}


def test_the_memory_of_the_cancelled_is_bounded() -> None:
    """Thousands who leave behind one patient head do not stay in the heap."""
    line = Queue()
    line.join(Sleeper(0).place)
    for _ in range(5_000):
        waiter = Sleeper(1)
        line.join(waiter.place)
        line.leave(waiter.place)
    assert len(line) == 1
    assert len(line.entries) < 200


def test_after_forgetting_everybody_the_line_is_new() -> None:
    """Whatever state it was in, its lock included."""
    line = Queue()
    line.join(Sleeper(0).place)
    line._lock.acquire()
    line.forget_all()
    newcomer = Sleeper(1).place
    line.join(newcomer)
    assert line.head is newcomer
    assert len(line) == 1


def test_joining_from_inside_is_told_apart_from_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who interrupts the holder of the lock in its own thread and joins gets an error
    that says what to do, not a deadlock.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    line = Queue()
    real = heapq.heappush

    def interrupted(heap: Any, entry: Any) -> None:
        if entry[2].rank == 0:
            with pytest.raises(ReentrantUse, match="signal handler or finalizer"):
                line.join(Sleeper(5).place)
        real(heap, entry)

    monkeypatch.setattr(heapq, "heappush", interrupted)
    line.join(Sleeper(0).place)
    assert len(line) == 1


def test_waking_the_head_needs_no_lock() -> None:
    """A finalizer or signal handler that interrupts whoever holds the line's lock can
    still nudge.
    """
    line = Queue()
    waiter = Sleeper(0)
    line.join(waiter.place)
    with line._lock:
        line.nudge()
    assert waiter.woken == 1


def test_who_would_block_the_thread_of_those_before_it_is_refused() -> None:
    """Whoever waits before a place, in its thread and with a loop that lives, could
    never go on; those behind or elsewhere do not matter.
    """
    line = Queue()
    elsewhere, first, closed, me, behind = places = [Sleeper(rank).place for rank in range(5)]
    elsewhere.thread = 0
    closed.gone = lambda: True
    for place in reversed(places):
        line.join(place)
    with pytest.raises(ReentrantUse, match="another thread"):
        line.refuse_blocking(me)
    line.leave(first)
    line.refuse_blocking(me)
    with pytest.raises(ReentrantUse):
        line.refuse_blocking(behind)
    line.leave(me)
    line.refuse_blocking(behind)
