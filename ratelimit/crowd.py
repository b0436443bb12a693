"""How many calls may be in flight at once, where only refusals tell.

Owns that one number. Knows no lane, no store and no clock: it is told of refusals and of time, and says what to hold.
"""

from __future__ import annotations

from math import inf
from typing import Final

CROWD_SECONDS: Final = 30.0
"""How long a bound that was learned from refusals holds before one more is tried."""


class Crowd:
    """A bound on the calls in flight, for servers that refuse more without naming a period or a moment (DeepSeek)."""

    __slots__ = ("_most", "_since")

    def __init__(self) -> None:
        self._most = inf
        self._since = -inf

    def refused(self, limit: float | None, in_flight: int, now: float) -> None:
        """Hear that so many were too many: let fewer be so, for a while; ``limit`` is what the refusal named, if anything."""
        self._most = max(min(self._most, limit or inf, in_flight - 1), 1)
        self._since = now

    def waited(self, now: float) -> bool:
        """Allow one more from time to time since the last refusal; say whether that is now."""
        if self._most == inf or now <= self._since + CROWD_SECONDS:
            return False
        self._most += 1
        self._since = now
        return True

    def bound(self, given: int | None) -> int | None:
        """What to hold besides the bound that was given; None when that is the lower one."""
        if self._most >= (given or inf):
            self._most = inf
        return None if self._most == inf else int(self._most)
