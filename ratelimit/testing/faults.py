"""Faults that a test injects: which request goes wrong, and how.

Owns: the kinds, and the choice of the request. What must never come in: answering; the
server plays the fault it is handed.
"""

from __future__ import annotations

import math
import random
import threading
from dataclasses import dataclass, field
from typing import Literal, get_args

from ratelimit.errors import InvalidArgument

__all__ = ["Fault", "FaultKind", "Faults"]

FaultKind = Literal[
    "429", "quota", "slow_down", "flex", "500", "503", "drop", "slow", "broken_stream"
]


@dataclass(slots=True)
class Fault:
    """One kind of failure, for the next `count` requests or for each with
    `probability`.

    Before the buckets, costing nothing: `429` (a refusal without any rate-limit
    header), `quota` (insufficient_quota), `slow_down` (rate_limit_error), `flex` (no
    resources for flex processing). After admission, keeping the charge: `500`, `503`,
    `drop` (the connection is cut without an answer), `broken_stream` (200, then an
    error event; other answers become a 500). `slow`: an ordinary answer, `seconds`
    later.
    """

    kind: FaultKind
    count: int | None = None
    probability: float = 1.0
    seconds: float = 0.0
    endpoint: str = ""
    before: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise InvalidArgument(
                f"fault {self.kind!r}: name one of {', '.join(get_args(FaultKind))}"
            )
        if self.count is not None and (self.count < 1):
            raise InvalidArgument(
                f"fault count={self.count!r}: how many requests fail, at least 1, or None for no end"
            )
        if not 0 < self.probability <= 1:
            raise InvalidArgument(
                f"fault probability={self.probability!r}: a number above 0, at most 1"
            )
        if not 0 <= self.seconds < math.inf:
            raise InvalidArgument(f"fault seconds={self.seconds!r}: finite and not negative")
        self.before = self.kind in {"429", "quota", "slow_down", "flex"}


class Faults:
    """The faults in force, in the order of their injection; any thread may add one."""

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self._faults = list(faults)
        self._random = random.Random(f"faults {seed}")
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put one more in force."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Let every further request live."""
        with self._lock:
            self._faults.clear()

    def draw(self, endpoint: str) -> Fault | None:
        """The first fault that hits this request, used up by one."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if (
                    fault.endpoint not in {"", endpoint}
                    or self._random.random() >= fault.probability
                ):
                    continue
                if fault.count is not None:
                    fault.count -= 1
                    if fault.count == 0:
                        self._faults.remove(fault)
                return fault
        return None
