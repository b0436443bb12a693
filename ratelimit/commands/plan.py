"""What a race is run under: the limits, the accounting that fits the server, and how
long the limits make it take.

Owns the plain arithmetic, which no bucket has a part in. Must never come in: sending,
showing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ratelimit.commands.calls import Call
from ratelimit.control.pricing import Accounting
from ratelimit.limiter import RateLimiter

ACCOUNTING: Final[dict[str, Accounting]] = {"P": "reconcile", "I": "charge", "A": "never_refund"}
# how many full buckets of tokens the calls need, where the limits are ours to choose
TOKENS_PER_BUCKET: Final = 1.25
REQUESTS_PER_BUCKET: Final = 1.15  # likewise of requests, so that both limits have a say


@dataclass(frozen=True, slots=True)
class Plan:
    """`tokens`: what the calls take from the bucket in all; `hopeless`: those dearer
    than it; `seconds`: what the excess takes to refill.
    """

    variant: str
    accounting: Accounting
    rpm: float
    tpm: float
    tokens: int
    hopeless: tuple[str, ...]
    seconds: float


def make_plan(calls: Sequence[Call], variant: str, rpm: float | None, tpm: float | None) -> Plan:
    """Choose what was not given: limits that the calls exceed, so that somebody has to
    wait, and that each single call fits.
    """
    accounting = ACCOUNTING[variant]
    limiter = RateLimiter(accounting=accounting)
    total, reserves = 0, []
    for call in calls:
        estimate = limiter.estimate(call.body, endpoint=call.endpoint)
        reserve = round(limiter.price(call.body, endpoint=call.endpoint)["tokens"])
        reserves.append(reserve)
        if accounting == "reconcile":
            usage = call.usage or {}
            billed = usage.get("prompt_tokens", estimate.prompt_tokens) + usage.get(
                "completion_tokens", estimate.output_tokens
            )
            total += max(billed, estimate.charge)
        else:
            total += reserve
    if tpm is None:
        tpm = _round_up(max(total / TOKENS_PER_BUCKET, max(reserves) * 1.1, 1))
    if rpm is None:
        rpm = math.ceil(len(calls) / REQUESTS_PER_BUCKET)
    hopeless = tuple(
        f"{call.origin}: {reserve:,} tokens"
        for call, reserve in zip(calls, reserves, strict=True)
        if reserve > tpm
    )
    seconds = least_seconds(total, tpm, len(calls), rpm)
    return Plan(variant, accounting, rpm, tpm, total, hopeless, seconds)


def least_seconds(tokens: float, tpm: float | None, requests: float, rpm: float | None) -> float:
    """The time until the last call may be sent: what exceeds a full bucket, at the rate
    of the slower limit.
    """
    excess = [
        max(amount - limit, 0) / limit
        for amount, limit in ((tokens, tpm), (requests, rpm))
        if limit is not None
    ]
    return 60 * max(excess, default=0)


def _round_up(amount: float) -> float:
    """To three figures."""
    step = 10.0 ** max(math.floor(math.log10(amount)) - 2, 0)
    return math.ceil(amount / step) * step
