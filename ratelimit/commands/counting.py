"""What calls come to before they are sent: tokens, which can never go, and the time.

Owns these sums, for every command that foretells something. Must never count tokens or
price a call (the limiter does), send or show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ratelimit import Estimate, Limits, RateLimiter
from ratelimit.commands.families import family_of

SURENESS: Final = ("exact", "formula", "learned", "guess")
"""What `Estimate.confidence` says, the surest first."""


class Counted(NamedTuple):
    """One call, and what it takes."""

    estimate: Estimate
    reserved: float
    """Tokens that the limiter takes."""

    @property
    def least(self) -> int:
        """Tokens for which a limit has to have room.

        Output beyond a limit is no reason to refuse: the call goes from a full bucket.
        """
        return max(self.estimate.prompt_tokens, self.estimate.charge)

    def can_go(self, limits: Limits) -> bool:
        """Return whether full buckets are enough for the call."""
        need = {"requests": 1, "tokens": self.least}
        return all(need.get(limit.name, 0) <= limit.amount for limit in limits)


def count(limiter: RateLimiter, body: Mapping[str, Any], endpoint: str | None = None) -> Counted:
    """Count one call."""
    estimate = limiter.estimate(body, endpoint=endpoint)
    return Counted(estimate, limiter.price(estimate)["tokens"])


@dataclass(slots=True)
class Sum:
    """What several calls come to, in tokens."""

    calls: int = 0
    prompt: int = 0
    output: int = 0
    charge: int = 0
    reserved: float = 0
    sure: str = SURENESS[0]
    """How sure the least sure prompt is."""

    @classmethod
    def of(cls, counted: Iterable[Counted]) -> Sum:
        """Add up calls."""
        found = cls()
        for one in counted:
            found.add(one)
        return found

    def add(self, counted: Counted) -> None:
        """Add one call."""
        self.calls += 1
        self.prompt += counted.estimate.prompt_tokens
        self.output += counted.estimate.output_tokens
        self.charge += counted.estimate.charge
        self.reserved += counted.reserved
        self._weaken(counted.estimate.confidence)

    def merge(self, other: Sum) -> None:
        """Add what other calls come to."""
        self.calls += other.calls
        self.prompt += other.prompt
        self.output += other.output
        self.charge += other.charge
        self.reserved += other.reserved
        self._weaken(other.sure)

    def _weaken(self, sure: str) -> None:
        self.sure = max(self.sure, sure, key=SURENESS.index)


def seconds_of(sums: Mapping[str, Sum], limiter: RateLimiter) -> float | None:
    """Return the seconds until the last call may be sent, from full buckets.

    Those of the slowest family count; None where the limits of one are not known.

    :param sums: by model.
    """
    families: dict[str, tuple[Limits, Sum]] = {}
    for model, found in sums.items():
        family = family_of(limiter, model)
        _, whole = families.setdefault(family, (limiter.limits(model), Sum()))
        whole.merge(found)
    if not all(len(limits) for limits, _ in families.values()):
        return None

    times = [0.0]
    for limits, whole in families.values():
        for limit in limits:
            amount = {"requests": whole.calls, "tokens": whole.reserved}.get(limit.name, 0)
            times.append(least_seconds(amount, limit.amount, 0, None) * limit.per / 60)
    return max(times)


def least_seconds(tokens: float, tpm: float | None, requests: float, rpm: float | None) -> float:
    """Return the seconds until the last call may be sent, from full buckets.

    That is what exceeds a full bucket, at the rate of the slower limit.
    """
    excess = [
        max(amount - limit, 0) / limit
        for amount, limit in ((tokens, tpm), (requests, rpm))
        if limit is not None
    ]
    return 60 * max(excess, default=0)
