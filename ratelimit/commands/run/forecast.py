"""`ratelimit run --dry-run`: what a file of requests will cost, without sending any.

Owns their table and their figures. Must never send, or keep a file in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ratelimit import Prices, RateLimiter
from ratelimit.batch.survey import Source
from ratelimit.commands.counting import Sum, count, seconds_of
from ratelimit.commands.figures import write_figures
from ratelimit.commands.show import Output, duration, money, say, table

CAPTION: Final = (
    "output: what each body allows, or what 95 of 100 answers stay within where it sets no bound.\n"
    "time: what exceeds a full bucket, at the rate of the slowest limit; answers take their own"
    " time besides."
)


def show_forecast(
    source: Source, limiter: RateLimiter, prices: Prices | None, json_path: Path | None
) -> int:
    """Count, show, and write the figures.

    Returns the exit status: 1 when a request can never fit its limit.
    """
    sums, hopeless = _count(source, limiter)
    seconds = seconds_of(sums, limiter)
    whole = Sum()
    for found in sums.values():
        whole.merge(found)
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
    elif whole.calls or not hopeless:
        say(console, f"At least {duration(seconds)}.")
    if hopeless:
        say(
            console,
            f"{hopeless:,} requests are larger than a whole limit and will fail; they are not"
            " counted here.",
        )
    write_figures(json_path, _figures(whole, hopeless, seconds, prices))
    return 1 if hopeless else 0


def _figures(
    whole: Sum, hopeless: int, seconds: float | None, prices: Prices | None
) -> dict[str, Any]:
    return {
        "requests": whole.calls,
        "prompt_tokens": whole.prompt,
        "output_tokens": whole.output,
        "hopeless": hopeless,
        "seconds": seconds,
        "cost": prices.of(whole.prompt, whole.output) if prices else None,
    }


def _count(source: Source, limiter: RateLimiter) -> tuple[dict[str, Sum], int]:
    """Return what can be sent, by model, and how many requests can never be."""
    sums: dict[str, Sum] = {}
    hopeless = 0
    for request in source:
        counted = count(limiter, request.body, request.endpoint)
        found = sums.setdefault(request.model, Sum())
        if counted.can_go(limiter.limits(request.model)):
            found.add(counted)
        else:
            hopeless += 1
    return sums, hopeless


def _row(name: str, found: Sum, prices: Prices | None) -> tuple[str, ...]:
    cost = (money(prices.of(found.prompt, found.output), up=True),) if prices else ()
    return (name, f"{found.calls:,}", f"{found.prompt:,}", f"{found.output:,}", *cost)
