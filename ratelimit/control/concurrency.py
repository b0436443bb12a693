"""How many calls may be in flight at once, where only refusals tell.

Owns that one number. Knows no lane, no store and no clock: it is told of refusals and
of time, and says what to hold.
"""

from __future__ import annotations

from math import inf
from typing import Final

CROWD_SECONDS: Final = 30.0
"""How long a bound that was learned from refusals holds before one more is tried."""


class ConcurrencyEstimate:
    """A bound on the calls in flight, for servers that refuse more without naming a
    period or a moment (DeepSeek).

    Calls that flew together are refused together: those that were not tell how many
    fit, and that is the bound, with one more tried from time to time. Where all were
    refused nothing is known but that the server said no: then every answer allows one
    more, as after any new start.
    """

    __slots__ = ("_found", "_most", "_refused", "_since", "_together")

    def __init__(self) -> None:
        self._most = inf
        self._since = -inf
        self._together = 0
        self._refused = 0
        self._found = False

    def refused(self, limit: float | None, in_flight: int, sent: float, now: float) -> None:
        """Hear that too many were in flight, with this call, sent at ``sent``;
        ``limit`` is what the refusal named, if anything.
        """
        if sent > self._since:  # not one of those that were refused together before
            self._together, self._refused, self._since = in_flight, 0, now
        self._refused += 1
        fitted = self._together - self._refused
        self._found = fitted > 0 or limit is not None
        self._most = max(min(limit or inf, fitted), 1)

    def waited(self, now: float) -> bool:
        """Allow one more, as an answer has come: from time to time, or at once while it
        is not known how many fit; say whether it is so.
        """
        if self._most == inf or (self._found and now <= self._since + CROWD_SECONDS):
            return False
        self._most += 1
        self._since = now
        return True

    def bound(self, given: int | None) -> int | None:
        """What to hold besides the bound that was given; None when that is the lower
        one.
        """
        if self._most >= (given or inf):
            self._most = inf
        return None if self._most == inf else int(self._most)
