"""Who is next.

Owns the order of those who wait and the totals of what they ask for. Knows no clock and
no I/O: ranks are numbers given by the caller, waking is a callable of the waiter.

The line is ordered by rank, then by arrival. The flow ranks by ``arrival + patience``
(seconds), so a patient call can be overtaken for at most its patience and nobody
starves: ranks of newcomers only grow.

Invariant: the first entry of the heap is never one that has left. So the head can be
read, and woken, without the lock - also by a finalizer or a signal handler that
interrupted whoever holds it.

Interruptions: Python looks for signals when a call has returned, so between
``lock.acquire()`` and the ``try`` that releases it an exception may come (Ctrl-C), and
the lock would be locked for good: see `ratelimit.locks`. What is begun under the lock and cut
short was begun with plain assignments, which nothing can cut, so `leave` can tell how
far it had come.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from math import inf
from typing import TypeVar

from ratelimit.errors import ReentrantUse
from ratelimit.limits import Cost
from ratelimit.locks import reentrant_use, wait_steps

T = TypeVar("T")


class AskAgain(float):
    """A moment at which the head should ask again that predicts nothing: a call may end
    before it; inf means that only that helps.
    """

    __slots__ = ()


class Waiter:
    """One waiter's place: what it asks for and how to wake it.

    ``wake`` may be called from any thread and returns False when the waiter is gone
    (its event loop was closed); ``gone`` asks for that without waking. ``price`` tells
    what the call costs when its turn has come: more may be known by then than when it
    joined.
    """

    __slots__ = ("cost", "counted", "gone", "left", "price", "rank", "thread", "wake")

    def __init__(
        self,
        rank: float,
        cost: Cost,
        wake: Callable[[], bool],
        price: Callable[[], Cost] | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        self.price = price or self._joined
        self.gone = gone
        self.rank = rank
        self.cost = cost
        self.wake = wake
        self.thread = threading.get_ident()  # in which it waits
        self.counted = False  # in the line's totals
        self.left = False  # the line, and has passed its turn on

    def _joined(self) -> Cost:
        return self.cost


class Queue:
    """Places in order; joining and leaving are safe from any thread."""

    __slots__ = ("_ahead", "_last_rank", "_lock", "_serial", "_wait_steps", "_waiting", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[float, int, Waiter]] = []
        self._serial = itertools.count()
        self._lock = threading.Lock()
        self._wait_steps = wait_steps(self._lock)
        self._ahead: dict[str, float] = {}
        self._waiting = 0
        self._last_rank = -inf

    def __len__(self) -> int:
        return self._waiting

    @property
    def head(self) -> Waiter | None:
        """Who is next, or None."""
        try:
            return self.entries[0][2]
        except IndexError:
            return None

    def admits(self, rank: float) -> bool:
        """Whether a newcomer of this rank would be the head."""
        head = self.head
        return head is None or rank < head.rank

    def _alone(self, act: Callable[..., T], *args: object) -> T:
        for entered in self._wait_steps:
            if entered:
                break
            raise reentrant_use()
        try:
            return act(*args)
        finally:
            self._lock.release()

    def join(self, place: Waiter) -> None:
        """Take a place behind all of the same or a lower rank; who is interrupted here
        has to `leave`, as everybody.
        """
        self._alone(self._join, place)
        # it never asks again, and nobody behind it would hear of that
        while (head := self.head) and head.gone and head.gone():
            self.leave(head)

    def _join(self, place: Waiter) -> None:
        entry = (place.rank, next(self._serial), place)
        ahead = _sum(self._ahead, place.cost, 1)
        last_rank = max(self._last_rank, place.rank)
        self._ahead, self._last_rank = ahead, last_rank
        self._waiting += 1
        place.counted = True
        heapq.heappush(self.entries, entry)

    def leave(self, place: Waiter) -> None:
        """Give the place up, served or not, and wake the new head if it was the head's;
        twice is once, or the end of once cut short.
        """
        if not place.left:
            if self._alone(self._leave, place):
                self.nudge()
            place.left = True

    def _leave(self, place: Waiter) -> bool:
        """Take the place out; say whether the head, another one now, may not have heard
        of it.
        """
        passes_on = self.head is place or not place.counted
        if place.counted:
            ahead = _sum(self._ahead, place.cost, -1)
            self._ahead = ahead
            self._waiting -= 1
            place.counted = False
        while self.entries and not self.entries[0][2].counted:
            heapq.heappop(self.entries)
        if not self.entries:
            self._ahead = {}
            self._last_rank = -inf
        # keep the memory of the cancelled bounded
        elif len(self.entries) > 64 and len(self.entries) > 2 * self._waiting:
            entries = [entry for entry in self.entries if entry[2].counted]
            heapq.heapify(entries)
            self.entries = entries
        return passes_on

    def refuse_blocking(self, place: Waiter) -> None:
        """Raise `ReentrantUse` if somebody before this place waits in the same thread:
        while that is blocked, neither could ever go on.
        """
        if self.head is not place and self._alone(self._blocks, place):
            raise ReentrantUse(
                "this call would block the thread that calls before it wait in, and none of them could ever go on: in async code use `await` or "
                "`async with` for each call, or make this one in another thread; in a signal handler set a flag instead"
            )

    def _blocks(self, place: Waiter) -> bool:
        mine = next((entry for entry in self.entries if entry[2] is place), None)
        return mine is not None and any(
            entry < mine
            and entry[2].counted
            and entry[2].thread == place.thread
            and not (entry[2].gone and entry[2].gone())
            for entry in self.entries
        )

    def nudge(self) -> None:
        """Wake the head: something may fit now. Waiters whose event loop is gone are
        dropped on the way.
        """
        if not self.entries:
            return
        while (head := self.head) and not head.wake():
            self.leave(head)

    def ahead_of(self, rank: float) -> Cost:
        """What those in front of a newcomer of this rank ask for, summed; at the end of
        the line that is known without looking.
        """
        return self._ahead if rank >= self._last_rank else self._alone(self._ahead_of, rank)

    def _ahead_of(self, rank: float) -> Cost:
        total: dict[str, float] = {}
        for other, _, place in self.entries:
            if other <= rank and place.counted:
                total = _sum(total, place.cost, 1)
        return total

    def forget_all(self) -> None:
        """Drop everybody: after a fork the waiters belong to the parent process."""
        self.__init__()  # type: ignore[misc]  # the state of a new line, whatever state the lock was copied in


def _sum(totals: Cost, cost: Cost, times: int) -> dict[str, float]:
    """Other totals, not the same ones changed: what is summed halfway when it is cut
    short was for nothing.
    """
    return {
        **totals,
        **{name: totals.get(name, 0) + times * amount for name, amount in cost.items()},
    }
