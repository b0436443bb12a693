"""The levels and the counts of a limiter at one moment.

Owns the shapes and their labels. Must never calculate more than the time left until a
moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratelimit.control.engine import Engine
from ratelimit.control.family import ModelFamily
from ratelimit.estimate import EstimatorStatistics
from ratelimit.events.records import name_of
from ratelimit.events.sentences import label_of
from ratelimit.limits import whole


@dataclass(frozen=True, slots=True)
class FamilyStatistics:
    """One family of models at one moment.

    Levels are in the unit of their limit and below zero in debt; times are seconds.
    """

    levels: Mapping[str, float]
    """By labels like "tokens/60s"."""
    waiting: int
    in_flight: int
    concurrency: int | None
    """How many calls may be in flight at once, given or learned; None: any number."""
    next_in: float | None
    """When the head of the queue may go.

    None when nobody waits, and when the head waits for a call to end.
    """
    admitted: int
    ended: int
    refused: int
    """429s that happened all the same."""
    longest_wait: float
    closed_for: float
    """How long a refusal still pauses the queue."""
    slack: float
    drift: Mapping[str, float]
    """By how much headers have moved each level in all, in its limit's unit.

    Negative: others use the limit too.
    """

    processes: int = 1
    """How many processes share the quota, this one included."""

    def __str__(self) -> str:
        levels = ", ".join(f"{whole(level)} {name}" for name, level in self.levels.items())
        return (
            f"level {levels or 'without limits'}; {self.in_flight} in flight, {self.waiting} "
            f"waiting, {self.admitted} admitted, {self.refused} refused (429)"
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of a limiter: one entry per family of models, and what was learned.

    It prints no key that came in the place of a name.
    """

    families: Mapping[str, FamilyStatistics]
    estimator: EstimatorStatistics
    dropped_refusals: int = 0
    """429s of families without given limits that are no longer kept."""

    @property
    def waiting(self) -> int:
        """Calls in all queues."""
        return sum(family.waiting for family in self.families.values())

    @property
    def in_flight(self) -> int:
        """Calls between admission and settlement, over all families."""
        return sum(family.in_flight for family in self.families.values())

    @property
    def refused(self) -> int:
        """429s seen, over all families."""
        return sum(family.refused for family in self.families.values()) + self.dropped_refusals

    def __str__(self) -> str:
        return "\n".join(f"{name_of(name)}: {family}" for name, family in self.families.items())

    def __repr__(self) -> str:
        families = "; ".join(f"{name_of(name)}: {family}" for name, family in self.families.items())
        return f"<Statistics {families}>"


def described(engine: Engine) -> str:
    """Return a limiter as its repr shows it: its limits and what is going on."""
    families = engine.families().items()
    parts = [f"{name_of(name)}: {family.admission.store.limits}" for name, family in families]
    now = statistics_of(engine)
    return f"<RateLimiter {'; '.join(parts)}; {now.in_flight} in flight, {now.waiting} waiting>"


def statistics_of(engine: Engine) -> Statistics:
    """Return the snapshot of a limiter."""
    now = engine.clock.now()
    families = {name: _snapshot(family, now) for name, family in engine.families().items()}
    return Statistics(families, engine.estimator.statistics(), engine.dropped_refusals)


def _snapshot(family: ModelFamily, now: float) -> FamilyStatistics:
    """Return the snapshot of one family at ``now``."""
    admission = family.admission
    store = admission.store
    admission.queue.drop_dead()
    return FamilyStatistics(
        levels={label_of(*key): level for key, level in store.levels(now).items()},
        waiting=len(admission.queue),
        in_flight=store.in_flight,
        concurrency=store.concurrency,
        next_in=admission.next_in(),
        admitted=store.admitted,
        ended=store.ended,
        refused=family.controller.refused,
        longest_wait=admission.longest_wait,
        closed_for=max(store.closed_until - now, 0.0),
        slack=family.slack.seconds,
        drift=dict(family.controller.corrected),
        processes=store.processes,
    )
