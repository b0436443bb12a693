"""What a limiter shows of itself: frozen snapshots.

Owns the shapes and their labels. Computes nothing but the time left until a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ratelimit.estimate import EstimatorStatistics

if TYPE_CHECKING:
    from ratelimit.control.family import ModelFamily


@dataclass(frozen=True, slots=True)
class FamilyStatistics:
    """One family of models at one moment. Levels are in the unit of their limit and
    below zero in debt; times are seconds.
    """

    levels: Mapping[str, float]
    """by "tokens/60s"-like labels"""
    waiting: int
    in_flight: int
    concurrency: int | None
    """how many may be in flight at once: what was given, or what refusals have taught;
    None: any number
    """
    next_in: float | None
    """when the head of the line may go; None when nobody waits"""
    admitted: int
    ended: int
    refused: int
    """429s that happened all the same"""
    longest_wait: float
    closed_for: float
    """how long a refusal still keeps the line closed"""
    slack: float
    drift: Mapping[str, float]
    """by how much the server's headers have moved each level in all, in its limit's
    unit; negative: others use the limit too
    """


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of a limiter: one entry per family of models, and what the estimator
    learned.
    """

    families: Mapping[str, FamilyStatistics]
    estimator: EstimatorStatistics
    forgotten: int = 0
    """429s of families without given limits that have been forgotten since (see
    `others.py`)
    """

    @property
    def waiting(self) -> int:
        """Calls in all lines."""
        return sum(lane.waiting for lane in self.families.values())

    @property
    def refused(self) -> int:
        """429s seen, over all lanes."""
        return sum(lane.refused for lane in self.families.values()) + self.forgotten


def family_statistics(lane: ModelFamily, now: float) -> FamilyStatistics:
    """Take the snapshot of one lane at ``now``."""
    store = lane.store
    return FamilyStatistics(
        levels=MappingProxyType(
            {f"{name}/{per:g}s": level for (name, per), level in store.levels(now).items()}
        ),
        waiting=len(lane.line),
        in_flight=store.in_flight,
        concurrency=store.concurrency,
        next_in=lane.next_moment(),
        admitted=store.admitted,
        ended=store.ended,
        refused=lane.refused,
        longest_wait=lane.longest_wait,
        closed_for=max(lane.closed_until - now, 0.0),
        slack=lane.slack.seconds,
        drift=MappingProxyType(dict(lane.steering.applied)),
    )
