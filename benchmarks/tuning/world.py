"""What is simulated and what comes of it: a limiter's settings, a server, an outcome.

Owns three records. Must never contain a run, a search or a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ratelimit.control.engine import PATIENCE
from ratelimit.control.pricing import Accounting
from ratelimit.control.slack import FIRST_SLACK
from ratelimit.testing import Latency

WINDOW: Final = 10.0
"""Seconds in which variant E counts requests."""

Output = Literal["max", "learned"] | int | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `RateLimiter` that are searched, at their defaults."""

    burst_share: float = 1.0
    arrival_slack: float = FIRST_SLACK
    output: Output = None
    concurrency: int | None = None
    accounting: Accounting = "reconcile"
    patience: float = PATIENCE["batch"]
    """Seconds, of the batch class."""

    def arguments(self) -> dict[str, Any]:
        """Return what differs from the defaults, to pass to `RateLimiter`."""
        given: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if value != each.default and each.name != "patience":
                given[each.name] = value
        if self.patience != PATIENCE["batch"]:
            given["priorities"] = {**PATIENCE, "batch": self.patience}
        return given


@dataclass(frozen=True, slots=True)
class World:
    """The server that the calls are sent to, and the way there."""

    limits: Mapping[str, float]
    """By short names, {"rpm": 500}."""
    variant: str = "P"
    """See `ratelimit.testing.variants`."""
    latency: Latency = field(default_factory=lambda: Latency(jitter=(0.02, 0.1)))
    client: float = 0.002
    """Seconds that building a request, and sending it, keep the client busy, each."""
    level: float = 1.0
    """How full the server's buckets start, 0 to 1."""

    def scaled(self, factor: float) -> World:
        """Return the same with every limit multiplied."""
        return dataclasses.replace(
            self, limits={name: amount * factor for name, amount in self.limits.items()}
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measurements of one run, in seconds."""

    seconds: float
    """From the first arrival until the last answer."""
    debt: float
    """From the last answer until no bucket of the server is in debt."""
    rejected: int
    """429s, those of repeated calls included."""
    failed: int
    """Calls that were given up."""
    waits: tuple[float, ...]
    """From each call's arrival until the server let it in."""
    urgent: tuple[float, ...]
    """The waits of the interactive calls."""
    in_flight: int
    """Calls in flight, at most."""
    used: Mapping[str, float]
    """What the run took of each limit, in its unit."""
    trace: tuple[tuple[float, Mapping[str, tuple[float, float]]], ...] = ()
    """Moment and, by limit, our and the server's level, after each admission."""

    @property
    def makespan(self) -> float:
        """Until all is answered and paid for."""
        return self.seconds + self.debt
