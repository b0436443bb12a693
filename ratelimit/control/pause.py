"""For how long a refusal pauses a family.

Owns the pauses that no refusal names. Must never close a queue: it returns seconds.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ratelimit.feedback import Refusal

FIRST_PAUSE: Final = 1.0
"""Seconds, where a refusal names no moment."""
LONGEST_PAUSE: Final = 60.0
"""Seconds."""


class Pause:
    """Doubles while refusals that name no moment go on, and starts again after answers."""

    __slots__ = ("_seconds", "_until")

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE
        self._until = -inf

    def answered(self, now: float) -> None:
        """Take note of an answer: after the pause is over the next one is short again."""
        if now >= self._until:
            self._seconds = FIRST_PAUSE

    def seconds(self, refusal: Refusal, now: float) -> float:
        """Return for how long to pause after a refusal that came at ``now``."""
        named = refusal.wait or 0.0
        if named and not refusal.slow_down and not refusal.overloaded:
            return named
        if now >= self._until:  # calls that flew together are refused together: one refusal
            recent = now < self._until + 2 * self._seconds
            self._seconds = min(self._seconds * 2, LONGEST_PAUSE) if recent else FIRST_PAUSE
            self._until = now + self._seconds
        return max(named, self._until - now)
