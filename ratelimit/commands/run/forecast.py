"""`ratelimit run --dry-run`: what a file of requests will cost, without sending any.

Owns the sums of tokens, money and time, and their table. Must never send, or keep a
file in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ratelimit import Limits, RateLimiter
from ratelimit.batch.survey import Source
from ratelimit.commands.families import family_of
from ratelimit.commands.figures import write_figures
from ratelimit.commands.refill import least_seconds
from ratelimit.commands.run.meter import Prices
from ratelimit.commands.show import Output, duration, money, say, table

CAPTION: Final = (
    "output: what each body allows, or what 95 of 100 answers stay within where it sets no bound.\n"
    "time: what exceeds a full bucket, at the rate of the slowest limit; answers take their own"
    " time besides."
)


@dataclass(slots=True)
class Sum:
    """What the requests of one model come to, in tokens."""

    requests: int = 0
    """Those that can be sent; the tokens are theirs."""
    prompt: int = 0
    output: int = 0
    reserved: float = 0
    """What the limiter takes."""
    hopeless: int = 0
    """Requests that exceed a whole limit, and are never sent."""

    def add(self, other: Sum) -> None:
        """Add what other requests come to."""
        self.requests += other.requests
        self.prompt += other.prompt
        self.output += other.output
        self.reserved += other.reserved
        self.hopeless += other.hopeless


def show_forecast(
    source: Source, limiter: RateLimiter, prices: Prices | None, json_path: Path | None
) -> int:
    """Count, show, and write the figures.

    Returns the exit status: 1 when a request can never fit its limit.
    """
    sums = _count(source, limiter)
    seconds = _seconds(sums, limiter)
    whole = Sum()
    for found in sums.values():
        whole.add(found)
    rows = [_row(model or "(none)", found, prices) for model, found in sorted(sums.items())]
    if len(rows) != 1:
        rows.append(_row("all", whole, prices))

    columns = ["model", "requests", "prompt tokens", "output tokens"]
    if prices:
        columns.append("cost, up to")
    console = Output()
    console.print(table("nothing is sent", columns, rows, CAPTION))
    if seconds is None:
        say(console, "The time depends on your limits: give --rpm and --tpm, or --tier.")
    elif whole.requests or not whole.hopeless:
        say(console, f"At least {duration(seconds)}.")
    if whole.hopeless:
        say(
            console,
            f"{whole.hopeless:,} requests are larger than a whole limit and will fail; they are not"
            " counted here.",
        )
    write_figures(json_path, _figures(whole, seconds, prices))
    return 1 if whole.hopeless else 0


def _figures(whole: Sum, seconds: float | None, prices: Prices | None) -> dict[str, Any]:
    return {
        "requests": whole.requests,
        "prompt_tokens": whole.prompt,
        "output_tokens": whole.output,
        "hopeless": whole.hopeless,
        "seconds": seconds,
        "cost": prices.of(whole.prompt, whole.output) if prices else None,
    }


def _count(source: Source, limiter: RateLimiter) -> dict[str, Sum]:
    sums: dict[str, Sum] = {}
    for request in source:
        estimate = limiter.estimate(request.body, endpoint=request.endpoint)
        cost = limiter.price(request.body, endpoint=request.endpoint)
        # Output beyond a limit is no reason to refuse: the call goes from a full
        # bucket.
        least = cost | {"tokens": max(estimate.prompt_tokens, estimate.charge)}
        limits = limiter.limits(request.model)
        is_hopeless = any(least.get(limit.name, 0) > limit.amount for limit in limits)
        found = sums.setdefault(request.model, Sum())
        if is_hopeless:
            found.hopeless += 1
            continue

        found.add(
            Sum(
                requests=1,
                prompt=estimate.prompt_tokens,
                output=estimate.output_tokens,
                reserved=cost["tokens"],
            )
        )
    return sums


def _seconds(sums: dict[str, Sum], limiter: RateLimiter) -> float | None:
    """Return the least time, of the slowest family; None where limits are unknown."""
    families: dict[str, tuple[Limits, Sum]] = {}
    for model, found in sums.items():
        family = family_of(limiter, model)
        _, whole = families.setdefault(family, (limiter.limits(model), Sum()))
        whole.add(found)
    if not all(len(limits) for limits, _ in families.values()):
        return None

    times = [0.0]
    for limits, whole in families.values():
        for limit in limits:
            amount = {"requests": whole.requests, "tokens": whole.reserved}.get(limit.name, 0)
            times.append(least_seconds(amount, limit.amount, 0, None) * limit.per / 60)
    return max(times)


def _row(name: str, found: Sum, prices: Prices | None) -> tuple[str, ...]:
    cost = (money(prices.of(found.prompt, found.output), up=True),) if prices else ()
    return (name, f"{found.requests:,}", f"{found.prompt:,}", f"{found.output:,}", *cost)
