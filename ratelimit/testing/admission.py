"""Admission: check all limits of one caller, then debit all of them in one step.

Owns the buckets behind an organisation, a project and a model family, the other tenant,
changes of limits, the ramp guard and the cap on calls in flight. Must never touch HTTP
or texts, compute what a call costs, or wait. `now` is the loop's time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratelimit.testing.buckets import RESIDUE, Bucket, LeakyBucket, SettledBucket, WindowBucket
from ratelimit.testing.tenants import Neighbour

if TYPE_CHECKING:
    from ratelimit.testing.quotas import Dimension
    from ratelimit.testing.variants import Rules

__all__ = ["Admission", "FamilyBuckets", "RampGuard", "Reading", "Refusal"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as the headers show it: units, and seconds until it is full."""

    dimension: Dimension
    limit: float
    left: float
    reset: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted."""

    reason: str
    dimension: Dimension | None = None
    """None for the ramp guard and the cap on calls in flight."""
    limit: int = 0
    used: int = 0
    requested: int = 0
    wait: float | None = None
    """Seconds until the call would be admitted, None when it never will be."""


def bucket_for(dimension: Dimension, rules: Rules, level: float, now: float) -> Bucket:
    """Make the bucket that enforces `dimension`, filled to the share `level`.

    The judge's own bucket enforces every limit that is a leaky bucket without
    settlement. The other tenant of variant F is debited at seconds that have passed
    already, and aiolimiter, which reads the clock itself, takes no date.
    """
    window = rules.request_window if dimension.unit == "requests" else rules.window
    if window == "fixed":
        return WindowBucket(dimension.limit, dimension.period, level, now)

    if window == "clock":
        start = now // dimension.period * dimension.period
        return WindowBucket(dimension.limit, dimension.period, level, start)

    settles = rules.settle != "never" or rules.cache_reads == "refunded"
    settled = settles and dimension.unit == "tokens"
    if settled or rules.neighbour:
        return SettledBucket(dimension.limit, dimension.period, level, now)

    return LeakyBucket(dimension.limit, dimension.period, level)


class FamilyBuckets:
    """The buckets of one organisation or project for one model family.

    :param level: how full they start, 0 to 1, by unit.
    :param hidden: whether headers keep showing the first limits when limits change.
    :param seed: of what the other tenant takes.
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
        self.buckets = [
            (each, bucket_for(each, rules, level.get(each.unit, 1.0), now)) for each in dimensions
        ]
        self._hidden = hidden
        self._started = now
        self._changes = sorted(rules.changes)
        self._neighbour = (
            Neighbour(rules.neighbour, rules.tenant, seed=seed, now=now)
            if rules.neighbour
            else None
        )

    def advance(self, now: float) -> None:
        """Apply the changes of limits, and what the other tenant took, up to `now`."""
        while self._changes and now - self._started >= self._changes[0][0]:
            _, factor = self._changes.pop(0)
            for dimension, bucket in self.buckets:
                bucket.resize(dimension.limit * factor, now)

        if self._neighbour:
            self._neighbour.take((bucket for _, bucket in self.buckets), now)

    def readings(self, now: float) -> list[Reading]:
        """Return every limit as it is shown at `now`.

        A hidden change shows the old limit less what is used.
        """
        found = []
        for dimension, bucket in self.buckets:
            left = bucket.left(now)
            limit = dimension.limit if self._hidden else bucket.limit
            shown = left + limit - bucket.limit
            found.append(Reading(dimension, limit, shown, bucket.reset(left, now)))

        return found


class RampGuard:
    """Guard against traffic that grows by more than half in a quarter of an hour.

    :param floor: tokens a minute up to which every growth is allowed.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._minute, self._used = 0, 0.0
        self._peaks: dict[int, float] = {}  # quarter of an hour -> its busiest minute

    def wait(self, tokens: float, now: float) -> float | None:
        """Return None when `tokens` fit now, else the seconds until the next minute."""
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0.0

        ceiling = max(self._floor, 1.5 * self._peaks.get(minute // 15 - 1, 0.0))
        return None if self._used + tokens <= ceiling else (minute + 1) * 60 - now

    def take(self, tokens: float) -> None:
        """Count what was admitted."""
        self._used += tokens
        quarter = self._minute // 15
        self._peaks = {known: peak for known, peak in self._peaks.items() if known >= quarter - 1}
        self._peaks[quarter] = max(self._peaks.get(quarter, 0.0), self._used)


class Admission:
    """All limits that one caller's calls have to pass.

    :param families: the buckets of the organisation, and of the project if it has any.
    :param in_flight: most calls at the same time, None for any number.
    """

    def __init__(
        self,
        families: Sequence[FamilyBuckets],
        *,
        in_flight: int | None,
        ramp: RampGuard | None,
        refusals_cost_requests: bool,
    ) -> None:
        self._families = families
        self._cap, self._ramp = in_flight, ramp
        self._refusals_cost_requests = refusals_cost_requests

    def admit(self, cost: Mapping[str, float], now: float) -> Refusal | None:
        """Debit every bucket by its unit's `cost`, or none of them.

        A refusal names the first limit that had too little. A refused call costs no
        tokens; it costs a request when the server counts refusals, and always when it
        is too large.
        """
        refusal = self.check(cost, now)
        if refusal is None:
            self._take(cost, now)
        elif refusal.reason == "too_large" or (refusal.dimension and self._refusals_cost_requests):
            self._take_request(now)

        return refusal

    def check(self, cost: Mapping[str, float], now: float) -> Refusal | None:
        """Return why `admit` would refuse now; change nothing."""
        for family in self._families:
            family.advance(now)

        return self._check(cost, now)

    def end(self, more_tokens: float, now: float) -> None:
        """End a call: settle by `more_tokens`, its usage less its charge."""
        for family in self._families:
            family.in_flight -= 1
            if not more_tokens:
                continue

            for dimension, bucket in family.buckets:
                if dimension.unit == "tokens" and isinstance(bucket, SettledBucket | WindowBucket):
                    bucket.settle(more_tokens, now)

    def readings(self, now: float) -> list[Reading]:
        """Return all limits that this caller's calls pass."""
        return [reading for family in self._families for reading in family.readings(now)]

    def _check(self, cost: Mapping[str, float], now: float) -> Refusal | None:
        in_flight = self._families[0].in_flight
        if self._cap is not None and in_flight >= self._cap:
            return Refusal("in_flight", limit=self._cap, used=in_flight, requested=1)

        for dimension, bucket in self._buckets():
            if cost[dimension.unit] > max(bucket.limit, dimension.largest):
                requested = int(cost[dimension.unit])
                return Refusal("too_large", dimension, int(bucket.limit), requested=requested)

        if self._ramp:
            pause = self._ramp.wait(cost["tokens"], now)
            if pause is not None:
                return Refusal("slow_down", wait=pause)

        for dimension, bucket in self._buckets():
            if dimension.unit == "images" and not cost["images"]:
                continue

            # a call that is charged nothing at admission needs one unit all the same
            needed = max(cost[dimension.unit], 1)
            if dimension.largest:
                needed = min(needed, bucket.limit)

            if not bucket.fits(needed, now):
                return _refusal(dimension, bucket, needed, now)

        return None

    def _take(self, cost: Mapping[str, float], now: float) -> None:
        for family in self._families:
            family.in_flight += 1

        for dimension, bucket in self._buckets():
            bucket.take(cost[dimension.unit], now)

        if self._ramp:
            self._ramp.take(cost["tokens"])

    def _take_request(self, now: float) -> None:
        for dimension, bucket in self._buckets():
            if dimension.unit == "requests" and bucket.fits(1, now):
                bucket.take(1, now)

    def _buckets(self) -> list[tuple[Dimension, Bucket]]:
        return [each for family in self._families for each in family.buckets]


def _refusal(dimension: Dimension, bucket: Bucket, needed: float, now: float) -> Refusal:
    """Describe a refusal in whole units, as the texts do.

    `Used` is clamped at the limit, so in debt the named wait is a lower bound, as
    recorded.
    """
    limit, left = int(bucket.limit), int(max(0.0, bucket.left(now)) + RESIDUE)
    wait = bucket.wait(needed - left, now)
    return Refusal(dimension.unit, dimension, limit, limit - left, int(needed), wait)
