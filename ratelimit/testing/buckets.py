"""The three kinds of bucket the fake server enforces with.

Owns: levels. What must never come in: what a call costs, headers, HTTP, anything of
`ratelimit.stores.bucket`; the limiter is judged by these buckets, so they share no line with
it. `LeakyMeter` is aiolimiter's bucket, the independent judge, wherever nothing is
settled afterwards. `LevelMeter` is the plain "level, last seen" form for servers that
settle and may owe. `WindowMeter` counts in fixed windows.

Every meter answers in whole units and fractions of its own limit per `period` seconds.
`now` is the loop's time in seconds; aiolimiter reads the same loop by itself. A
millionth of a unit is forgiven: a caller who comes at the computed moment must not be
refused for a rounding residue.
"""

from __future__ import annotations

from typing import Protocol

from aiolimiter import AsyncLimiter

__all__ = ["LeakyMeter", "LevelMeter", "Meter", "WindowMeter"]

RESIDUE = 1e-6


class Meter(Protocol):
    """One limit's state."""

    limit: float
    period: float

    def left(self, now: float) -> float:
        """Units that would be admitted at `now`; below zero in debt."""

    def fits(self, amount: float, now: float) -> bool:
        """Whether `amount` would be admitted at `now`, a rounding residue forgiven."""

    def take(self, amount: float, now: float) -> None:
        """Debit `amount`, which was seen to fit at `now`."""

    def reset(self, left: float, now: float) -> float:
        """Seconds until the limit is whole again, when `left` units are left at `now`."""

    def wait(self, missing: float, now: float) -> float:
        """Seconds until `missing` more units are left, as a refusal names them."""

    def resize(self, limit: float, now: float) -> None:
        """Go on with another limit; what is used stays used, at most the whole new
        limit.
        """


def drip(units: float, limit: float, period: float) -> float:
    """Seconds in which `units` flow back."""
    return max(0.0, units) * period / limit


class LeakyMeter:
    """aiolimiter's leaky bucket; nothing is ever given back."""

    def __init__(self, limit: float, period: float, level: float) -> None:
        self.limit, self.period = limit, period
        self._judge = AsyncLimiter(limit, period)
        self._debit(limit * (1 - level))

    def left(self, now: float) -> float:  # noqa: ARG002 - the judge reads its loop
        """By bisection of what the judge admits: whole units first, then the fraction
        that a millisecond of reset shows.
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

    def fits(self, amount: float, now: float) -> bool:  # noqa: ARG002
        """Ask the judge."""
        return self._judge.has_capacity(max(0.0, amount - RESIDUE))

    def take(self, amount: float, now: float) -> None:  # noqa: ARG002
        """Debit without waiting."""
        self._debit(amount)

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002
        """Everything used drips back."""
        return drip(self.limit - left, self.limit, self.period)

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002
        """What is missing drips back."""
        return drip(missing, self.limit, self.period)

    def resize(self, limit: float, now: float) -> None:
        """A judge of the new size, filled as far as the old one."""
        used = self.limit - self.left(now)
        self.limit, self._judge = limit, AsyncLimiter(limit, self.period)
        self._debit(min(used, limit))

    def _debit(self, amount: float) -> None:
        # acquire() suspends only when there is no room. The residue is taken off where
        # it alone would make it wait.
        if not self._judge.has_capacity(amount):
            amount -= RESIDUE
        acquiring = self._judge.acquire(max(0.0, amount))
        try:
            acquiring.send(None)
        except StopIteration:
            return
        acquiring.close()
        raise RuntimeError(
            "a debit was asked for that does not fit: the server must look before it takes"
        )


class LevelMeter:
    """A bucket that is settled: it takes late debits, gives back, and may owe."""

    def __init__(self, limit: float, period: float, level: float, now: float) -> None:
        self.limit, self.period = limit, period
        self._level, self._seen = limit * level, now

    def left(self, now: float) -> float:
        """The level after what has dripped in since it was last seen."""
        self._level = min(self.limit, self._level + (now - self._seen) * self.limit / self.period)
        self._seen = now
        return self._level

    def fits(self, amount: float, now: float) -> bool:
        """Look at the level."""
        return self.left(now) + RESIDUE >= amount

    def take(self, amount: float, now: float) -> None:
        """Debit; below zero is allowed."""
        self._level = self.left(now) - amount

    def settle(self, more: float, now: float) -> None:
        """Debit `more`, or give back when it is negative; what would be above full runs
        over.
        """
        self._level = self.left(now) - more

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002
        """Everything used drips back; `remaining` never shows debt, and neither does
        this.
        """
        return drip(self.limit - max(0.0, left), self.limit, self.period)

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002
        """What is missing drips back."""
        return drip(missing, self.limit, self.period)

    def resize(self, limit: float, now: float) -> None:
        """Keep what is used."""
        used = self.limit - self.left(now)
        self.limit, self._level = limit, limit - min(used, limit)


class WindowMeter:
    """A fixed window: counts, and forgets everything when its time is over."""

    def __init__(self, limit: float, period: float, level: float, now: float) -> None:
        self.limit, self.period = limit, period
        self._start, self._used = now, limit * (1 - level)

    def left(self, now: float) -> float:
        """What the current window still has."""
        if now - self._start >= self.period:
            self._start += (now - self._start) // self.period * self.period
            self._used = 0.0
        return self.limit - self._used

    def fits(self, amount: float, now: float) -> bool:
        """Look at the count."""
        return self.left(now) + RESIDUE >= amount

    def take(self, amount: float, now: float) -> None:
        """Count into the current window."""
        self.left(now)
        self._used += amount

    def settle(self, more: float, now: float) -> None:
        """Count late, in the window in which the call ends."""
        self.left(now)
        self._used = max(0.0, self._used + more)

    def reset(self, left: float, now: float) -> float:  # noqa: ARG002
        """Until the window ends."""
        self.left(now)
        return self._start + self.period - now

    def wait(self, missing: float, now: float) -> float:  # noqa: ARG002
        """Until the window ends."""
        return self.reset(0.0, now)

    def resize(self, limit: float, now: float) -> None:
        """Keep the count."""
        self.left(now)
        self.limit = limit
