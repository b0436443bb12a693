"""What a race is run under: limits, the accounting that fits, and the time it takes.

Owns the choice of limits that the calls exceed. Must never send or show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ratelimit import RateLimiter
from ratelimit.commands.calls import Call
from ratelimit.commands.counting import count, least_seconds

Accounting = Literal["reconcile", "charge", "never_refund"]

ACCOUNTING: Final[dict[str, Accounting]] = {"P": "reconcile", "I": "charge", "A": "never_refund"}
"""The limiter's accounting that fits each variant of the server."""

TOKENS_PER_BUCKET: Final = 1.25
"""Full buckets of tokens that the calls need, where the limits are chosen here."""

REQUESTS_PER_BUCKET: Final = 1.15
"""Full buckets of requests that the calls need, so that both limits matter."""

LONGEST_RACE: Final = 1_800.0
"""Seconds of refill beyond which a demo is refused."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a race, and what they lead to."""

    variant: str
    accounting: Accounting
    rpm: float
    tpm: float
    tokens: int
    """What the calls take from the bucket in all."""
    hopeless: tuple[str, ...]
    """Calls dearer than a whole limit, in words."""
    seconds: float
    """What exceeds the full buckets takes so long to refill."""


def make_plan(calls: Sequence[Call], variant: str, rpm: float | None, tpm: float | None) -> Plan:
    """Choose the limits that were not given.

    The calls exceed them, so that there is something to wait for, and each single call
    fits.
    """
    accounting = ACCOUNTING[variant]
    limiter = RateLimiter(accounting=accounting)
    total = 0
    reserves = []
    least = []
    for call in calls:
        counted = count(limiter, call.body, call.endpoint)
        estimate, reserve = counted.estimate, round(counted.reserved)
        reserves.append(reserve)
        # A server that settles admits output beyond its limit, from a full bucket.
        least.append(counted.least if accounting == "reconcile" else reserve)
        if accounting == "reconcile":
            usage = call.usage or {}
            prompt = usage.get("prompt_tokens", estimate.prompt_tokens)
            output = usage.get("completion_tokens", estimate.output_tokens)
            total += max(prompt + output, estimate.charge)
        else:
            total += reserve

    if tpm is None:
        tpm = _round_up(max(total / TOKENS_PER_BUCKET, max(reserves) * 1.1, 1))
    if rpm is None:
        rpm = math.ceil(len(calls) / REQUESTS_PER_BUCKET)
    hopeless = tuple(
        f"{call.origin}: {tokens:,} tokens"
        for call, tokens in zip(calls, least, strict=True)
        if tokens > tpm
    )
    seconds = least_seconds(total, tpm, len(calls), rpm)
    return Plan(variant, accounting, rpm, tpm, total, hopeless, seconds)


def _round_up(amount: float) -> float:
    """Round to three figures."""
    step = 10.0 ** max(math.floor(math.log10(amount)) - 2, 0)
    return math.ceil(amount / step) * step
