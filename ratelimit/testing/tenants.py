"""Another tenant of the same limits, as variant F has it.

Owns what it takes, and when. Must never refuse a call or read a clock: `now` is the
loop's time in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ratelimit.testing.buckets import Bucket
    from ratelimit.testing.variants import Tenant

__all__ = ["Neighbour"]

MEMORY: Final = 600.0
"""Seconds of a silence that count; before them the buckets were full anyhow."""


class Neighbour:
    """The other tenant.

    :param most: largest share of each limit that it takes.
    :param habit: see `Rules.tenant`.
    """

    def __init__(self, most: float, habit: Tenant, *, seed: str, now: float) -> None:
        self._most, self._habit = most, habit
        self._share = most if habit in {"steady", "gulps"} else 0.0
        self._random = random.Random(seed)
        self._ticked = now

    def take(self, buckets: Iterable[Bucket], now: float) -> None:
        """Debit what it has taken since the last call."""
        held = list(buckets)
        self._ticked = max(self._ticked, now - MEMORY)
        while self._ticked + 1 <= now:
            self._draw()
            self._ticked += 1
            self._debit(held, 1.0, self._ticked)

        if self._habit == "steady" and now > self._ticked:
            self._debit(held, now - self._ticked, now)
            self._ticked = now

    def _draw(self) -> None:
        """Draw its share anew: about every ten seconds, or with each new minute."""
        if self._habit == "drawn":
            if not self._share or self._random.random() < 0.1:
                self._share = self._random.uniform(0.0, self._most)
        elif self._habit == "minutes" and (not self._share or int(self._ticked) % 60 == 0):
            self._share = self._random.uniform(0.0, self._most)

    def _debit(self, buckets: list[Bucket], seconds: float, now: float) -> None:
        for bucket in buckets:
            lump = self._share * bucket.limit * seconds / bucket.period
            if bucket.left(now) >= lump:
                bucket.take(lump, now)
