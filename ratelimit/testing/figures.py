"""The wrong figures that a fault shows in place of the true ones.

Owns what each "wrong_" kind does to readings, refusals and usage. Must never change a
bucket or the ledger: the server goes on by the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ratelimit.testing.admission import Reading, Refusal
from ratelimit.testing.buckets import refill_seconds
from ratelimit.testing.ledger import Usage
from ratelimit.testing.quotas import Dimension

if TYPE_CHECKING:
    from ratelimit.testing.faults import Fault

__all__ = ["wrong_readings", "wrong_refusal", "wrong_usage"]


def wrong_readings(readings: Sequence[Reading], fault: Fault) -> list[Reading]:
    """Return the readings as `fault` shows them, consistent beside the wrong figure."""
    shown = []
    for reading in readings:
        concerned = fault.unit in {"", reading.dimension.unit}
        shown.append(_wrong(reading, fault.kind, fault.value or 0.0) if concerned else reading)

    return shown


def _wrong(reading: Reading, kind: str, value: float) -> Reading:
    limit, left, period = reading.limit, reading.left, reading.dimension.period
    match kind:
        case "wrong_limit":
            left = min(left, value)
            return replace(
                reading, limit=value, left=left, reset=refill_seconds(value - left, value, period)
            )
        case "wrong_level":
            return replace(reading, left=value, reset=refill_seconds(limit - value, limit, period))
        case "wrong_reset":
            return replace(reading, reset=value)
        case "wrong_period":
            return replace(reading, reset=refill_seconds(limit - left, limit, value))
        case _:
            return reading


def wrong_refusal(readings: Sequence[Reading], fault: Fault, requested: int) -> Refusal:
    """Return a refusal that names `fault.value` as the limit, all of it used.

    Without a unit the first limit that the server has is named; a limit that it has
    not is named as one per minute.

    :param requested: tokens that the call asks for.
    """
    concerned = (each.dimension for each in readings if fault.unit in {"", each.dimension.unit})
    dimension = next(concerned, None) or _per_minute(fault.unit or "requests")
    limit = int(fault.value or 0)
    needed = max(1, requested) if dimension.unit == "tokens" else 1
    wait = refill_seconds(needed, limit, dimension.period)
    return Refusal(dimension.unit, dimension, limit, limit, needed, wait)


def _per_minute(unit: str) -> Dimension:
    label = f"{unit} per min ({unit[0].upper()}PM)"
    return Dimension(f"{unit[0]}pm", unit, 1.0, 60.0, label, unit)


def wrong_usage(usage: Usage, fault: Fault) -> Usage:
    """Return a usage of `fault.value` tokens in all."""
    total = int(fault.value or 0)
    answered = usage.completion_tokens > 0
    prompt = min(usage.prompt_tokens, total) if answered else total
    return Usage(prompt, total - prompt)
