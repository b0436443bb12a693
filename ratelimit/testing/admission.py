"""Who is let in: all limits of one caller are looked at, then all are debited, in one
step.

Owns: the sets of meters behind an organisation, a project and a model family, the other
tenant, changes of limits, the ramp and the cap on calls in flight. What must never come
in: HTTP, texts, what a call costs, waiting. `now` is the loop's time in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratelimit.testing.buckets import RESIDUE, LeakyMeter, LevelMeter, Meter, WindowMeter

if TYPE_CHECKING:
    from ratelimit.testing.quotas import Dimension
    from ratelimit.testing.variants import Rules

__all__ = ["Gate", "Pool", "Reading", "Refusal"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as the headers show it: units, and seconds until it is whole."""

    dimension: Dimension
    limit: float
    left: float
    reset: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not let in. `wait` is None when it never will be; `dimension` is
    None for the ramp and the cap on calls in flight.
    """

    reason: str
    dimension: Dimension | None = None
    limit: int = 0
    used: int = 0
    requested: int = 0
    wait: float | None = None


def _meter(dimension: Dimension, rules: Rules, level: float, now: float) -> Meter:
    """The judge's bucket wherever nothing is settled and nobody else takes part;
    windows for those who count in windows.
    """
    window = rules.request_window if dimension.unit == "requests" else rules.window
    if window == "fixed":
        return WindowMeter(dimension.limit, dimension.period, level, now)
    settled = rules.settle != "never" and dimension.unit == "tokens"
    if settled or rules.neighbour:
        return LevelMeter(dimension.limit, dimension.period, level, now)
    return LeakyMeter(dimension.limit, dimension.period, level)


class Pool:
    """The meters that a set of callers shares: an organisation's or a project's for one
    model family.
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        rules: Rules,
        *,
        level: Mapping[str, float],
        hidden: bool,
        seed: str,
        now: float,
    ) -> None:
        self.in_flight = 0
        self.meters = [
            (each, _meter(each, rules, level.get(each.unit, 1.0), now)) for each in dimensions
        ]
        self._hidden = hidden
        self._started = now
        self._changes = sorted(rules.changes)
        self._most = rules.neighbour  # largest share another tenant takes
        self._share = 0.0  # the share it takes at present
        self._ticked, self._random = now, random.Random(seed)

    def advance(self, now: float) -> None:
        """Let happen what happened since the last call: limits that changed, and what
        the other tenant took.
        """
        while self._changes and now - self._started >= self._changes[0][0]:
            _, factor = self._changes.pop(0)
            for dimension, meter in self.meters:
                meter.resize(dimension.limit * factor, now)
        if self._most:
            self._neighbour(now)

    def _neighbour(self, now: float) -> None:
        """Another tenant takes a lump every second, its share drawn anew every ten or
        so; after a silence only ten minutes count.
        """
        self._ticked = max(self._ticked, now - 600)
        while self._ticked + 1 <= now:
            if not self._share or self._random.random() < 0.1:
                self._share = self._random.uniform(0.0, self._most)
            self._ticked += 1
            for _, meter in self.meters:
                lump = self._share * meter.limit / meter.period
                if meter.left(self._ticked) >= lump:
                    meter.take(lump, self._ticked)

    def readings(self, now: float) -> list[Reading]:
        """Every limit as it is now; a hidden change shows the old limit less what is
        used.
        """
        found = []
        for dimension, meter in self.meters:
            left = meter.left(now)
            limit = dimension.limit if self._hidden else meter.limit
            found.append(
                Reading(dimension, limit, left + limit - meter.limit, meter.reset(left, now))
            )
        return found


class Ramp:
    """Guard against a traffic that grows too fast: at most half as much again in a
    quarter of an hour, from `floor` tokens a minute on.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._minute, self._used = 0, 0.0
        self._peaks: dict[int, float] = {}  # quarter of an hour -> its busiest minute

    def look(self, tokens: float, now: float) -> float | None:
        """None when `tokens` may be added now, else seconds until the next minute."""
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0.0
        ceiling = max(self._floor, 1.5 * self._peaks.get(minute // 15 - 1, 0.0))
        return None if self._used + tokens <= ceiling else (minute + 1) * 60 - now

    def take(self, tokens: float) -> None:
        """Count what was let in."""
        self._used += tokens
        quarter = self._minute // 15
        self._peaks = {known: peak for known, peak in self._peaks.items() if known >= quarter - 1}
        self._peaks[quarter] = max(self._peaks.get(quarter, 0.0), self._used)


class Gate:
    """What one call has to pass: its organisation's pool, its project's, the cap and
    the ramp.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        in_flight: int | None,
        ramp: Ramp | None,
        refusals_cost_requests: bool,
    ) -> None:
        self._pools = pools
        self._cap, self._ramp = in_flight, ramp
        self._refusals_cost_requests = refusals_cost_requests

    def admit(self, cost: Mapping[str, float], now: float) -> Refusal | None:
        """Debit every meter by its unit's `cost`, or none: then a refusal tells the
        first that had not enough.

        A refused request costs no tokens; a request when the server counts refusals,
        and always when it is too large.
        """
        for pool in self._pools:
            pool.advance(now)
        refusal = self._look(cost, now)
        if refusal is None:
            for pool in self._pools:
                pool.in_flight += 1
                for dimension, meter in pool.meters:
                    meter.take(cost[dimension.unit], now)
            if self._ramp:
                self._ramp.take(cost["tokens"])
        elif refusal.reason == "too_large" or (refusal.dimension and self._refusals_cost_requests):
            self._take_request(now)
        return refusal

    def leave(self, more_tokens: float, now: float) -> None:
        """A call ends: `more_tokens` is what its usage says beyond its charge, 0 where
        nothing is settled.
        """
        for pool in self._pools:
            pool.in_flight -= 1
            for dimension, meter in pool.meters if more_tokens else ():
                if dimension.unit == "tokens" and isinstance(meter, LevelMeter | WindowMeter):
                    meter.settle(more_tokens, now)

    def readings(self, now: float) -> list[Reading]:
        """All limits this call passed."""
        return [reading for pool in self._pools for reading in pool.readings(now)]

    def _look(self, cost: Mapping[str, float], now: float) -> Refusal | None:
        if self._cap is not None and self._pools[0].in_flight >= self._cap:
            return Refusal("in_flight", limit=self._cap, used=self._pools[0].in_flight, requested=1)
        for pool in self._pools:
            for dimension, meter in pool.meters:
                if cost[dimension.unit] > meter.limit:
                    return Refusal(
                        "too_large",
                        dimension,
                        int(meter.limit),
                        requested=int(cost[dimension.unit]),
                    )
        if self._ramp and (pause := self._ramp.look(cost["tokens"], now)) is not None:
            return Refusal("slow_down", wait=pause)
        for pool in self._pools:
            for dimension, meter in pool.meters:
                # even a call that takes nothing yet finds the door shut when nothing is
                # left
                needed = max(cost[dimension.unit], 1)
                if (cost[dimension.unit] or dimension.unit != "images") and not meter.fits(
                    needed, now
                ):
                    return self._refusal(dimension, meter, needed, now)
        return None

    def _refusal(self, dimension: Dimension, meter: Meter, needed: float, now: float) -> Refusal:
        """In whole units, as the texts are; `Used` is clamped at Limit, so with debt
        the named wait is a lower bound, as recorded.
        """
        limit, left = int(meter.limit), int(max(0.0, meter.left(now)) + RESIDUE)
        return Refusal(
            dimension.unit,
            dimension,
            limit,
            limit - left,
            int(needed),
            meter.wait(needed - left, now),
        )

    def _take_request(self, now: float) -> None:
        for pool in self._pools:
            for dimension, meter in pool.meters:
                if dimension.unit == "requests" and meter.fits(1, now):
                    meter.take(1, now)
