"""How long after its admission a request may arrive, and what may not have arrived yet.

Owns that figure and that sum. Must never touch a bucket or read a clock: see
`ratelimit.stores.bucket` for what the slack is good for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Final

FIRST_SLACK: Final = 2.0
"""Seconds; a Python client takes that long to put a burst of hundreds of calls on the
wire.
"""
SAMPLES: Final = 64
"""Answers seen before the slack may follow them; then the longest of the last 64 to 128
counts.
"""
MARGIN: Final = 1.5


class Slack:
    """A guess until enough answers were seen, then what they show.

    The time to an answer's headers is an upper bound of the time to the request's
    arrival, so the slack is the longest time to headers seen lately, plus half, and
    never above the first guess: long generations say nothing about the network.

    :param first: the first guess, in seconds.
    """

    __slots__ = ("_previous", "_recent", "_seen", "first", "seconds")

    def __init__(self, first: float) -> None:
        self.seconds = self.first = first
        self._previous = inf
        self._recent = 0.0
        self._seen = 0

    def observe(self, seconds: float) -> bool:
        """Take the time from an admission to its headers; return if the slack moved."""
        self._seen += 1
        if seconds > self._recent:
            self._recent = seconds
        elif self._seen < SAMPLES:
            return False

        before = self.seconds
        if self._seen >= SAMPLES:
            self._previous, self._recent, self._seen = self._recent, 0.0, 0
        self.seconds = min(max(self._previous, self._recent) * MARGIN, self.first)
        return self.seconds != before


class InTransit:
    """The calls admitted within the slack."""

    __slots__ = ("_recent", "_tokens")

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()  # admitted at, tokens
        self._tokens = 0.0

    def add(self, admitted_at: float, tokens: float, slack: float) -> Mapping[str, float]:
        """Add a call; return what was charged within ``slack`` seconds before it."""
        recent = self._recent
        while recent and recent[0][0] < admitted_at - slack:
            self._tokens -= recent.popleft()[1]
        before = {"tokens": self._tokens, "requests": len(recent)}
        recent.append((admitted_at, tokens))
        self._tokens += tokens
        return before
