"""The three kinds of bucket that the fake server enforces with.

Owns levels and their refill. Must never share a line with `ratelimit.stores.bucket`,
because the limiter is judged by these buckets, and must never compute what a call
costs or write a header.

`LeakyBucket` is aiolimiter's, the independent judge, wherever nothing is settled
afterwards. `SettledBucket` is the plain form "level, last seen" for servers that settle
and may owe. `WindowBucket` counts in fixed windows.

A limit is a number of units in `period` seconds, and a level is in the same units.
`now` is the loop's time in seconds; aiolimiter reads the same loop by itself.
"""

from __future__ import annotations

from typing import Final, Protocol

from aiolimiter import AsyncLimiter

__all__ = ["RESIDUE", "Bucket", "LeakyBucket", "SettledBucket", "WindowBucket"]

RESIDUE: Final = 1e-6
"""Units. A call that arrives at the computed moment and lacks less than this is
admitted: it lacks only what floats have rounded off.
"""


class Bucket(Protocol):
    """The state of one limit."""

    limit: float
    period: float

    def left(self, now: float) -> float:
        """Return the units that would be admitted at `now`; below zero in debt."""

    def fits(self, amount: float, now: float) -> bool:
        """Return whether `amount` is admitted at `now`; ignore a rounding residue."""

    def take(self, amount: float, now: float) -> None:
        """Debit `amount`, which `fits` has found to fit at `now`."""

    def reset(self, left: float, now: float) -> float:
        """Return the seconds until the bucket is full, when `left` is left at `now`."""

    def wait(self, missing: float, now: float) -> float:
        """Return the seconds until `missing` more units are left."""

    def resize(self, limit: float, now: float) -> None:
        """Change the limit and keep what is used, at most the whole new limit."""


def refill_seconds(units: float, limit: float, period: float) -> float:
    """Return the seconds in which `units` are refilled."""
    return max(0.0, units) * period / limit


class LeakyBucket:
    """aiolimiter's leaky bucket; it gives nothing back."""

    def __init__(self, limit: float, period: float, level: float) -> None:
        self.limit, self.period = limit, period
        self._judge = AsyncLimiter(limit, period)
        self._debit(limit * (1 - level))

    def left(self, now: float) -> float:  # noqa: ARG002  # the judge reads its loop's time
        """Return what is left, found by bisection of what the judge admits.

        Whole units come first, then the fraction that a millisecond of reset shows.
        """
        fits = self._judge.has_capacity
        low, high = 0, int(self.limit)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle - RESIDUE) else (low, middle - 1)

        below, above = float(low), min(low + 1.0, self.limit)
        if above <= below or not fits(below + RESIDUE):
            return below

        resolution = max(RESIDUE, self.limit / self.period / 2000)
        while above - below > resolution:
            half = (below + above) / 2
            below, above = (half, above) if fits(half) else (below, half)

        return below

    def fits(self, amount: float, now: float) -> bool:  # noqa: ARG002  # see left
        """Ask the judge."""
        return self._judge.has_capacity(max(0.0, amount - RESIDUE))

    def take(self, amount: float, now: float) -> None:  # noqa: ARG002  # see left
        """Debit without waiting."""
        self._debit(amount)

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002  # the rate is constant
        """Return the seconds in which everything used is refilled."""
        return refill_seconds(self.limit - left, self.limit, self.period)

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002  # the rate is constant
        """Return the seconds in which `missing` is refilled."""
        return refill_seconds(missing, self.limit, self.period)

    def resize(self, limit: float, now: float) -> None:
        """Go on with a judge of the new size and the same use."""
        used = self.limit - self.left(now)
        self.limit, self._judge = limit, AsyncLimiter(limit, self.period)
        self._debit(min(used, limit))

    def _debit(self, amount: float) -> None:
        # acquire() suspends only when there is no room. The residue is subtracted only
        # where it alone would make acquire() wait.
        if not self._judge.has_capacity(amount):
            amount -= RESIDUE

        acquiring = self._judge.acquire(max(0.0, amount))
        try:
            acquiring.send(None)
        except StopIteration:
            return

        acquiring.close()
        raise RuntimeError("a debit does not fit: the server must call fits before take")


class SettledBucket:
    """A bucket that is settled: it takes late debits and refunds, and may owe."""

    def __init__(self, limit: float, period: float, level: float, now: float) -> None:
        self.limit, self.period = limit, period
        self._level, self._seen = limit * level, now

    def left(self, now: float) -> float:
        """Return the level after the refill since it was last seen."""
        refilled = (now - self._seen) * self.limit / self.period
        self._level = min(self.limit, self._level + refilled)
        self._seen = now
        return self._level

    def fits(self, amount: float, now: float) -> bool:
        """Compare with the level."""
        return self.left(now) + RESIDUE >= amount

    def take(self, amount: float, now: float) -> None:
        """Debit; the level may fall below zero."""
        self._level = self.left(now) - amount

    def settle(self, more: float, now: float) -> None:
        """Debit `more`, or refund it when it is negative, never above the limit."""
        self._level = self.left(now) - more

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002  # the rate is constant
        """Return the seconds in which everything used is refilled.

        `remaining` never shows debt, and neither does this.
        """
        return refill_seconds(self.limit - max(0.0, left), self.limit, self.period)

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002  # the rate is constant
        """Return the seconds in which `missing` is refilled."""
        return refill_seconds(missing, self.limit, self.period)

    def resize(self, limit: float, now: float) -> None:
        """Keep what is used."""
        used = self.limit - self.left(now)
        self.limit, self._level = limit, limit - min(used, limit)


class WindowBucket:
    """A fixed window, which counts and is empty again when its time is over.

    :param start: the moment at which the first window begins.
    """

    def __init__(self, limit: float, period: float, level: float, start: float) -> None:
        self.limit, self.period = limit, period
        self._start, self._used = start, limit * (1 - level)

    def left(self, now: float) -> float:
        """Return what the current window still has."""
        if now - self._start >= self.period:
            self._start += (now - self._start) // self.period * self.period
            self._used = 0.0

        return self.limit - self._used

    def fits(self, amount: float, now: float) -> bool:
        """Compare with the count."""
        return self.left(now) + RESIDUE >= amount

    def take(self, amount: float, now: float) -> None:
        """Count into the current window."""
        self.left(now)
        self._used += amount

    def settle(self, more: float, now: float) -> None:
        """Count late, in the window in which the call ends."""
        self.left(now)
        self._used = max(0.0, self._used + more)

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002  # all comes back at once
        """Return the seconds until the window ends."""
        self.left(now)
        return self._start + self.period - now

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002  # all comes back at once
        """Return the seconds until the window ends."""
        return self.reset(0.0, now)

    def resize(self, limit: float, now: float) -> None:
        """Keep the count."""
        self.left(now)
        self.limit = limit
