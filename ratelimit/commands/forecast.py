"""`ratelimit run --dry-run`: what a file of requests will cost, in tokens, money and
time, without sending any.

Owns the sums and their table. Must never come in: sending; a file in memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ratelimit.batch.survey import Source
from ratelimit.commands.plan import least_seconds
from ratelimit.commands.progress import Prices
from ratelimit.commands.show import duration, table
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limits

CAPTION = (
    "output: what each body allows, or what 95 of 100 answers stay within where it sets no bound.\n"
    "time: what exceeds a full bucket, at the rate of the slowest limit; answers take their own time besides."
)


@dataclass(slots=True)
class Sum:
    """Of one model: requests, and tokens of prompts and answers; `reserved` is what the
    limiter takes, `hopeless` how many exceed a limit.
    """

    requests: int = 0
    prompt: int = 0
    output: int = 0
    reserved: float = 0
    hopeless: int = 0


def show_forecast(
    source: Source, limiter: RateLimiter, prices: Prices, json_path: Path | None
) -> int:
    """Count, show, and write the figures; return the exit status: 1 when a request can
    never fit its limit.
    """
    sums = _count(source, limiter)
    seconds = _seconds(sums, limiter)
    rows = [_row(model or "(none)", found, prices) for model, found in sorted(sums.items())]
    whole = Sum(*(sum(getattr(found, name) for found in sums.values()) for name in Sum.__slots__))
    if len(rows) != 1:
        rows.append(_row("all", whole, prices))
    console = Console()
    columns = (
        "model",
        "requests",
        "prompt tokens",
        "output tokens",
        *(("cost, up to",) if prices else ()),
    )
    console.print(table("nothing is sent", columns, rows, CAPTION))
    unknown = "The time depends on your limits: give --rpm and --tpm, or --tier."
    console.print(unknown if seconds is None else f"At least {duration(seconds)}.", highlight=False)
    if whole.hopeless:
        console.print(
            f"{whole.hopeless} requests are larger than a whole limit and will fail.",
            highlight=False,
        )
    if json_path is not None:
        figures = {
            "requests": whole.requests,
            "prompt_tokens": whole.prompt,
            "output_tokens": whole.output,
            "hopeless": whole.hopeless,
            "seconds": seconds,
            "cost": prices.of(whole.prompt, whole.output) if prices else None,
        }
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if whole.hopeless else 0


def _count(source: Source, limiter: RateLimiter) -> dict[str, Sum]:
    sums: dict[str, Sum] = {}
    for request in source:
        estimate = limiter.estimate(request.body, endpoint=request.endpoint)
        cost = limiter.price(request.body, endpoint=request.endpoint)
        found = sums.setdefault(request.model, Sum())
        found.requests += 1
        found.prompt += estimate.prompt_tokens
        found.output += estimate.output_tokens
        found.reserved += cost["tokens"]
        found.hopeless += any(
            cost.get(limit.name, 0) > limit.amount for limit in limiter.limits(request.model)
        )
    return sums


def _seconds(sums: dict[str, Sum], limiter: RateLimiter) -> float | None:
    """The least time, of the slowest family; None where limits are to be learned."""
    families: dict[int, tuple[Limits, Sum]] = {}
    for model, found in sums.items():
        limits = limiter.limits(model)
        _, whole = families.setdefault(id(limits), (limits, Sum()))
        whole.requests += found.requests
        whole.reserved += found.reserved
    if not all(len(limits) for limits, _ in families.values()):
        return None
    times = [0.0]
    for limits, whole in families.values():
        for limit in limits:
            amount = {"requests": whole.requests, "tokens": whole.reserved}.get(limit.name, 0)
            times.append(least_seconds(amount, limit.amount, 0, None) * limit.per / 60)
    return max(times)


def _row(name: str, found: Sum, prices: Prices) -> tuple[str, ...]:
    cost = (f"{prices.of(found.prompt, found.output):,.2f}",) if prices else ()
    return (name, f"{found.requests:,}", f"{found.prompt:,}", f"{found.output:,}", *cost)
