"""How many calls may be in flight at once, where only refusals tell.

Owns that one figure. Must never touch a store or read a clock: it is given refusals,
answers and moments, and returns a limit.
"""

from __future__ import annotations

from math import inf
from typing import Final

RAISE_SECONDS: Final = 30.0
"""Seconds that a learned limit holds before one more call is tried."""


class ConcurrencyEstimate:
    """A learned limit on calls in flight, for servers that name no period (DeepSeek).

    Calls that were in flight together are refused together: those that were not refused
    show how many fit. That is the limit, with one more tried from time to time. Where
    all were refused nothing is known but that the server refused: then every answer
    allows one more, as after any start.
    """

    __slots__ = ("_changed_at", "_in_flight_then", "_known", "_limit", "_refusals")

    def __init__(self) -> None:
        self._limit = inf
        self._changed_at = -inf
        self._in_flight_then = 0
        self._refusals = 0
        self._known = False

    def on_refusal(
        self, limit: float | None, in_flight: int, admitted_at: float, now: float
    ) -> None:
        """Take note that too many calls were in flight.

        :param limit: what the refusal named, if anything.
        :param in_flight: calls in flight, the refused one included.
        :param admitted_at: when the refused call was admitted; like ``now`` in seconds
            of one clock.
        """
        if admitted_at > self._changed_at:  # not one of those that were refused before
            self._in_flight_then, self._refusals, self._changed_at = in_flight, 0, now
        self._refusals += 1
        fitted = self._in_flight_then - self._refusals
        self._known = fitted > 0 or limit is not None
        self._limit = max(min(limit or inf, fitted), 1)

    def on_success(self, now: float) -> bool:
        """Take note of an answer; return whether one more call may be in flight now."""
        if self._limit == inf or (self._known and now <= self._changed_at + RAISE_SECONDS):
            return False
        self._limit += 1
        self._changed_at = now
        return True

    def limit(self, given: int | None) -> int | None:
        """Return the learned limit; None when there is none below the one given."""
        if self._limit >= (given or inf):
            self._limit = inf
        return None if self._limit == inf else int(self._limit)
