"""What the waiters in front of a newcomer ask for, summed, without looking at each.

Owns running sums over the queue. Must never order the queue (`queue.py` does), lock or
read a clock.

Within one patience, ranks only grow, because a rank is the arrival plus the patience.
So the waiters of one patience are a list with growing ranks, beside which the sum of
all costs so far is kept: what is asked for before a rank is one bisection and a
difference. A queue has few patiences, one a priority, so joining, leaving and
predicting take O(log n) for any number of waiters.

Waiters that leave from the middle are subtracted wholesale until the sums are made
anew, which happens when they are as many as those that stay. Until then a prediction
may be too low, never too high: nobody is turned away for a wait that would have been
short.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Final

MOST_PATIENCES: Final = 32
"""Patiences with sums of their own; waiters of any further one are left out of them."""

FEW: Final = 64
"""Waiters that may leave from the middle before sums are made anew."""


class Sums:
    """Running sums over the waiters of one patience, in the order of their arrival.

    Everything beyond `length` is unwritten: an append that a signal cuts short is
    overwritten by the next one.
    """

    __slots__ = ("first", "left", "left_sums", "length", "ranks", "serials", "totals")

    def __init__(self) -> None:
        self.ranks = array("d")
        self.serials = array("q")
        self.totals: dict[str, array[float]] = {}
        """By dimension: what the waiters up to this one ask for, the ones gone
        included.
        """
        self.length = 0
        self.first = 0
        """Index of the first waiter that has not left."""
        self.left: set[int] = set()
        """Serials of those that have left from the middle."""
        self.left_sums: dict[str, float] = {}

    def write(self, rank: float, serial: int, amounts: Mapping[str, float]) -> int:
        """Write one more waiter behind the end and return the new length, for `length`.

        Nothing counts until the caller stores that length.
        """
        length = self.length
        if length:
            rank = max(rank, self.ranks[length - 1])
        _put(self.ranks, length, rank)
        _put(self.serials, length, serial)
        for name in amounts:
            if name not in self.totals:
                self.totals[name] = array("d", bytes(8 * length))
        for name, totals in self.totals.items():
            before = totals[length - 1] if length else 0.0
            _put(totals, length, before + amounts.get(name, 0.0))
        return length + 1

    def remove(self, serial: int) -> None:
        """Take a waiter out; taking it out twice is taking it out once."""
        place = bisect_left(self.serials, serial, self.first, self.length)
        if place == self.length or self.serials[place] != serial or serial in self.left:
            return
        if place > self.first:
            self.left_sums = self._plus(self.left_sums, place)
            self.left.add(serial)
            return

        first, left_sums, passed = place + 1, self.left_sums, []
        while first < self.length and self.serials[first] in self.left:
            left_sums = self._plus(left_sums, first, -1.0)
            passed.append(self.serials[first])
            first += 1
        self.left_sums, self.first = left_sums, first
        self.left.difference_update(passed)

    def _plus(self, sums: dict[str, float], place: int, times: float = 1.0) -> dict[str, float]:
        return {
            name: sums.get(name, 0.0)
            + times * (totals[place] - (totals[place - 1] if place else 0.0))
            for name, totals in self.totals.items()
        }

    def add_before(self, rank: float, sums: dict[str, float]) -> None:
        """Add to ``sums`` what the waiters of at most this rank ask for."""
        end = bisect_right(self.ranks, rank, self.first, self.length)
        if end == self.first:
            return
        for name, totals in self.totals.items():
            before = totals[self.first - 1] if self.first else 0.0
            amount = totals[end - 1] - before - self.left_sums.get(name, 0.0)
            if amount > 0:
                sums[name] = sums.get(name, 0.0) + amount

    def count_before(self, rank: float) -> int:
        """Return how many waiters of at most this rank have not left, or a few less."""
        end = bisect_right(self.ranks, rank, self.first, self.length)
        return max(end - self.first - len(self.left), 0)

    @property
    def worn(self) -> bool:
        """Whether most of what is kept belongs to waiters that have left."""
        kept = self.length - self.first - len(self.left)
        return self.length - kept > max(kept, FEW)

    def renewed(self) -> Sums:
        """Return the same sums without those that have left."""
        made = Sums()
        for place in range(self.first, self.length):
            if self.serials[place] not in self.left:
                amounts = self._plus({}, place)
                made.length = made.write(self.ranks[place], self.serials[place], amounts)
        return made


def _put(numbers: array[float] | array[int], place: int, value: float) -> None:
    if len(numbers) > place:
        del numbers[place:]
    numbers.append(value)  # type: ignore[arg-type]  # an int for the array of ints


class Ahead:
    """The sums of all patiences."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[float, Sums] = {}

    def of(self, patience: float) -> Sums | None:
        """Return the sums of one patience; None when there are too many patiences."""
        sums = self._sums.get(patience)
        if sums is None and len(self._sums) < MOST_PATIENCES:
            sums = self._sums[patience] = Sums()
        return sums

    def remove(self, patience: float, serial: int) -> None:
        """Take a waiter out."""
        sums = self._sums.get(patience)
        if sums is None:
            return
        sums.remove(serial)
        if sums.worn:
            self._sums[patience] = sums.renewed()

    def before(self, rank: float) -> dict[str, float]:
        """Return what the waiters of at most this rank ask for, by dimension."""
        total: dict[str, float] = {}
        for sums in self._sums.values():
            sums.add_before(rank, total)
        return total

    def count_before(self, rank: float) -> int:
        """Return how many waiters are of at most this rank, or a few less."""
        return sum(sums.count_before(rank) for sums in self._sums.values())

    def clear(self) -> None:
        """Forget all sums: nobody waits."""
        self._sums = {}
