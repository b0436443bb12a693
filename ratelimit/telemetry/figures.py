"""The figures that a view shows beside a snapshot: waits and tokens of late.

Owns what is kept of events, and for how long. Must never draw or wait.
"""

from __future__ import annotations

import threading
from collections import deque
from math import ceil
from typing import Final, TypeVar

from ratelimit.events import Event, Settled, Waited

WINDOW: Final = 60.0
"""Seconds of the tokens that are shown as tokens per minute."""
WAITS: Final = 1_000
"""Waits of a family that percentiles are taken of, the last ones."""
MOST_BILLS: Final = 100_000
"""Answers of one family that are kept within `WINDOW`."""
MOST_KEPT: Final = 500
"""Families that are kept, the last ones: their names may come from requests."""

T = TypeVar("T")


class Recent:
    """The waits and bills of late, by family; it is a hook of their events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[str, deque[float]] = {}
        self._bills: dict[str, deque[tuple[float, int]]] = {}

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        with self._lock:
            match event:
                case Waited(outcome="admitted"):
                    _kept(self._waits, event.family, WAITS).append(event.seconds)
                case Settled():
                    bills = _kept(self._bills, event.family, MOST_BILLS)
                    bills.append((event.at, event.used))
                    _drop_old(bills, event.at)
                case _:
                    pass

    def percentiles(self, family: str) -> tuple[float, float] | None:
        """Return the median and the 95th percentile of the waits, in seconds.

        Of the calls that waited; None where none has.
        """
        with self._lock:
            waits = sorted(self._waits.get(family, ()))
        if not waits:
            return None
        return waits[(len(waits) - 1) // 2], waits[ceil(0.95 * len(waits)) - 1]

    def tokens(self, family: str, now: float) -> int | None:
        """Return the tokens that were billed in the last minute; None: never any.

        :param now: in seconds of the limiter's clock.
        """
        with self._lock:
            bills = self._bills.get(family)
            if bills is None:
                return None
            _drop_old(bills, now)
            return sum(used for _, used in bills)


def _kept(families: dict[str, deque[T]], family: str, most: int) -> deque[T]:
    """Return what is kept of a family, after those that had an event before it."""
    found = families.pop(family, None)
    if found is None:
        found = deque(maxlen=most)
        while len(families) >= MOST_KEPT:
            families.pop(next(iter(families)))
    families[family] = found
    return found


def _drop_old(bills: deque[tuple[float, int]], now: float) -> None:
    while bills and bills[0][0] < now - WINDOW:
        bills.popleft()
