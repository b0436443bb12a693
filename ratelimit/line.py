"""Who is next.

Owns the order of those who wait and the totals of what they ask for. Knows no clock and no I/O: ranks are numbers given by the caller, waking
is a callable of the waiter.

The line is ordered by rank, then by arrival. The flow ranks by ``arrival + patience`` (seconds), so a patient call can be overtaken for at most
its patience and nobody starves: ranks of newcomers only grow.

Invariant: the first entry of the heap is never one that has left. So the head can be read, and woken, without the lock - also by a finalizer
or a signal handler that interrupted whoever holds it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable

from ratelimit.errors import ReentrantUse
from ratelimit.limits import Cost

LOCK_SECONDS = 5.0
"""Critical sections last microseconds. Who waits that long has interrupted the holder: knowing it sooner would cost every call."""


def insist(lock: threading.Lock) -> None:
    """Take a lock that was not free: another thread's, for microseconds, or this very thread's, for ever."""
    if not lock.acquire(timeout=LOCK_SECONDS):
        raise ReentrantUse(
            "the limiter was interrupted in this thread and asked to admit a call from inside; "
            "in a signal handler or finalizer set a flag or schedule the call instead"
        )


class AskAgain(float):
    """A moment at which the head should ask again that predicts nothing: a call may end before it; inf means that only that helps."""

    __slots__ = ()


class Guard:
    """The lock of `insist`, for ``with``."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        insist(self._lock)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Place:
    """One waiter's place: what it asks for and how to wake it.

    ``wake`` may be called from any thread and returns False when the waiter is gone (its event loop was closed); ``gone`` asks for that without
    waking. ``price`` tells what the call costs when its turn has come: more may be known by then than when it joined.
    """

    __slots__ = ("cost", "gone", "left", "price", "rank", "wake")

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
        self.left = False

    def _joined(self) -> Cost:
        return self.cost


class Line:
    """Places in order; joining and leaving are safe from any thread."""

    __slots__ = ("_ahead", "_guard", "_last_rank", "_serial", "_waiting", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[float, int, Place]] = []
        self._serial = itertools.count()
        self._guard = Guard()
        self._ahead: Counter[str] = Counter()
        self._waiting = 0
        self._last_rank = float("-inf")

    def __len__(self) -> int:
        return self._waiting

    @property
    def head(self) -> Place | None:
        """Who is next, or None."""
        try:
            return self.entries[0][2]
        except IndexError:
            return None

    def admits(self, rank: float) -> bool:
        """Whether a newcomer of this rank would be the head."""
        head = self.head
        return head is None or rank < head.rank

    def join(self, place: Place) -> None:
        """Take a place behind all of the same or a lower rank."""
        with self._guard:
            heapq.heappush(self.entries, (place.rank, next(self._serial), place))
            self._ahead.update(place.cost)
            self._waiting += 1
            self._last_rank = max(self._last_rank, place.rank)
        while (head := self.head) and head.gone and head.gone():  # it never asks again, and nobody behind it would hear of that
            self.leave(head)

    def leave(self, place: Place) -> None:
        """Give the place up, served or not, and wake the new head if it was the head's; leaving twice does nothing."""
        with self._guard:
            if place.left:
                return
            place.left = True
            self._waiting -= 1
            was_head = self.head is place
            while self.entries and self.entries[0][2].left:
                heapq.heappop(self.entries)
            if self.entries:
                self._ahead.subtract(place.cost)
            else:
                self._ahead.clear()
                self._last_rank = float("-inf")
            if len(self.entries) > 64 and len(self.entries) > 2 * self._waiting:  # keep the memory of the cancelled bounded
                self.entries = [entry for entry in self.entries if not entry[2].left]
                heapq.heapify(self.entries)
        if was_head:
            self.nudge()

    def nudge(self) -> None:
        """Wake the head: something may fit now. Waiters whose event loop is gone are dropped on the way."""
        if not self.entries:
            return
        while (head := self.head) and not head.wake():
            self.leave(head)

    def ahead_of(self, rank: float) -> Cost:
        """What those in front of a newcomer of this rank ask for, summed; at the end of the line that is known without looking."""
        with self._guard:
            if rank >= self._last_rank:
                return dict(self._ahead)
            total: Counter[str] = Counter()
            for other, _, place in self.entries:
                if other <= rank and not place.left:
                    total.update(place.cost)
            return total

    def forget_all(self) -> None:
        """Drop everybody: after a fork the waiters belong to the parent process."""
        self.__init__()  # type: ignore[misc]  # the state of a new line, whatever state the guard was copied in
