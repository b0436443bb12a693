"""What gateways show of their windows: how many requests are left, and until when.

Owns how many calls may be in flight by that, and when a window that is used up opens
again. Must never touch a bucket, close a queue or read a clock.

A bucket that refills all the time is wrong for a window: what drips back before its end
is refused. So a window is kept by what headers show of it. Each answer that has counted
shows what was left when its call arrived, and calls that it does not show are in flight
still: while no more are in flight than the least that was shown is left, none of them
is one too many, whatever else uses the same window, and in whatever order they arrive.
A call that was sent after an answer is newer than it, and what it shows counts alone.

Resets are whole numbers, so a window may end almost a second later than it is shown to.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final, NamedTuple

from ratelimit.feedback import Reading

ROUNDED: Final = 1.0
"""Seconds that a reset which is a whole number may be too short."""
UNANSWERED: Final = 30.0
"""Seconds for which a cap outlasts its windows, where no answer shows new ones."""


class _Window(NamedTuple):
    left: float
    seen_at: float
    end: float


class Windows:
    """The windows of requests that the headers of one family show."""

    __slots__ = ("_known", "shown")

    def __init__(self) -> None:
        self.shown = False
        """Whether the last answer showed one."""
        self._known: dict[float | None, _Window] = {}  # by period

    def on_headers(self, readings: Iterable[Reading], admitted_at: float, now: float) -> bool:
        """Take one answer's readings; return whether they show a window.

        :param admitted_at: when the call was admitted; like ``now`` in seconds of one
            clock.
        """
        before, self.shown = self._known, False
        if before:
            self._known = {key: one for key, one in before.items() if one.end > now}
        for reading in readings:
            left, reset = reading.remaining, reading.reset
            if not reading.windowed or reading.name != "requests" or left is None or reset is None:
                continue

            self.shown = True
            seen = _Window(left, now, now + reset + ROUNDED)
            known = before.get(reading.period)
            if known is not None and admitted_at < known.seen_at and left >= known.left:
                seen = known._replace(seen_at=now)
            self._known[reading.period] = seen
        return self.shown

    def cap(self, learned: int | None, given: int | None) -> tuple[int | None, float]:
        """Return how many calls may be in flight, None for any number, and until when.

        At least one, which asks. Without any answer the cap is over a while after the
        windows are.

        :param learned: a concurrency that was learned; `given` one that was given.
        """
        left = self.left()
        if left == inf:
            return learned, inf
        most = max(int(left), 1)
        until = max(window.end for window in self._known.values()) + UNANSWERED
        return min(most, learned or most, given or most), until

    def left(self) -> float:
        """Return how many requests all windows have left; inf: none is known."""
        return min((window.left for window in self._known.values()), default=inf)

    def opens(self) -> float:
        """Return when all windows that are used up have ended; -inf: none is."""
        ends = [window.end for window in self._known.values() if window.left < 1]
        return max(ends, default=-inf)
