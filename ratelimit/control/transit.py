"""What was charged lately and may not have arrived at the server yet.

Owns that sum. Must never read a clock: moments are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping


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
