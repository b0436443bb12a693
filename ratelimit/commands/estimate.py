"""`ratelimit estimate`: what a file of calls costs, and how long limits make it take.

Owns their table and their figures. Must never count or send anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from ratelimit import Limits, RateLimiter
from ratelimit.commands import CommandError
from ratelimit.commands.calls import Call, read_calls
from ratelimit.commands.counting import Counted, Sum, count, seconds_of
from ratelimit.commands.figures import check_writable, write_figures
from ratelimit.commands.show import Output, duration, say, table

COLUMNS: Final = ("calls", "prompt", "answer", "both", "charge", "prompt is")
CAPTION: Final = (
    "Tokens. Prompt: what will be billed for the input. Answer: the bound that the body sets, else"
    " what such calls usually need. Charge: what the server's limiter takes at admission, until"
    " the call ends and its usage is known. A prompt is exact; or by a formula, which is a few"
    " tokens off at times or has met no bill of so new a model; or a guess, where the body does not"
    " show all. A sum is as sure as its least sure call."
)


class Line(NamedTuple):
    """One call of the file, counted."""

    call: Call
    counted: Counted


def estimate(
    path: Path, *, rpm: float | None, tpm: float | None, each: bool, json_path: Path | None
) -> int:
    """Show tokens by model or by call, the totals and the time.

    Returns the exit status: 1 when a call can never fit its limit.
    """
    check_writable(json_path, path)
    limits = Limits(rpm=rpm, tpm=tpm)
    limiter = RateLimiter(limits=limits)
    lines = [Line(call, count(limiter, call.body, call.endpoint)) for call in read_calls(path)]
    if not lines:
        raise CommandError(f"{path} holds no requests")

    console = Output()
    total = Sum.of(line.counted for line in lines)
    console.print(_each_call(lines, total) if each else _each_model(lines, total))
    going = _by_model(line for line in lines if line.counted.can_go(limits))
    hopeless = total.calls - sum(found.calls for found in going.values())
    seconds = seconds_of(going, limiter) if len(limits) else None
    if seconds is None:
        say(console, "Give --rpm and --tpm to see how long that takes.")
    else:
        _show_time(console, seconds, lines, hopeless, limits)
    write_figures(json_path, _document(lines, total, hopeless, seconds))
    return 1 if hopeless else 0


def _cells(found: Sum) -> tuple[str, ...]:
    """Return the cells of a row, in the order of `COLUMNS`."""
    both = found.prompt + found.output
    amounts = (found.calls, found.prompt, found.output, both, found.charge)
    return (*(f"{amount:,}" for amount in amounts), found.sure)


def _each_call(lines: Sequence[Line], total: Sum) -> Table:
    rows = [
        (
            call.origin.partition(" of ")[0],
            counted.estimate.model or "?",
            *_cells(Sum.of([counted]))[1:],
        )
        for call, counted in lines
    ]
    columns = ("line", "model", *COLUMNS[1:])
    return table("", columns, [*rows, ("all", "", *_cells(total)[1:])], CAPTION, texts=2)


def _each_model(lines: Sequence[Line], total: Sum) -> Table:
    sums = _by_model(lines)
    rows = [
        (model or "?", *_cells(sums[model]))
        for model in sorted(sums, key=lambda name: -sums[name].calls)
    ]
    return table("", ("model", *COLUMNS), [*rows, ("all", *_cells(total))], CAPTION)


def _by_model(lines: Iterable[Line]) -> dict[str, Sum]:
    sums: defaultdict[str, Sum] = defaultdict(Sum)
    for line in lines:
        sums[line.counted.estimate.model].add(line.counted)
    return sums


def _show_time(
    console: Console, seconds: float, lines: Sequence[Line], hopeless: int, limits: Limits
) -> None:
    if len(lines) > hopeless:
        named = " and ".join(f"{limit.amount:,.12g} {limit.name}" for limit in limits)
        say(
            console,
            f"At {named} per minute, from full buckets: {duration(seconds)} until the last call may"
            " be sent.",
        )
    if hopeless:
        say(
            console,
            f"{hopeless:,} calls are larger than a whole limit and will fail; the time does not"
            " count them.",
        )
    call, counted = max(lines, key=lambda line: line.counted.estimate.prompt_tokens)
    tokens = counted.estimate.prompt_tokens
    if any(limit.name == "tokens" and tokens > limit.amount for limit in limits):
        say(
            console,
            f"The prompt of {call.origin} has {tokens:,} tokens, more than the limit: no wait"
            " helps it.",
        )


def _document(
    lines: Sequence[Line], total: Sum, hopeless: int, seconds: float | None
) -> dict[str, Any]:
    return {
        "calls": [
            {
                "origin": call.origin,
                "model": made.model,
                "endpoint": made.endpoint,
                "prompt_tokens": made.prompt_tokens,
                "output_tokens": made.output_tokens,
                "charge": made.charge,
                "confidence": made.confidence,
            }
            for call, (made, _) in lines
        ],
        "total": {
            "calls": total.calls,
            "prompt_tokens": total.prompt,
            "output_tokens": total.output,
            "charge": total.charge,
        },
        "hopeless": hopeless,
        "seconds": seconds,
    }
