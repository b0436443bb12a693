"""`ratelimit estimate`: what a file of calls costs, and how long limits make it take.

Owns the sums and their table. Must never count tokens (the limiter does) or send
anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from ratelimit import Estimate, RateLimiter
from ratelimit.commands import CommandError
from ratelimit.commands.calls import Call, read_calls
from ratelimit.commands.figures import check_writable, write_figures
from ratelimit.commands.refill import least_seconds
from ratelimit.commands.show import duration, say, table

COLUMNS: Final = ("calls", "prompt", "answer", "both", "charge")
CAPTION: Final = (
    "Tokens. Prompt: what will be billed for the input. Answer: the bound that the body sets, else"
    " what such calls usually need. Charge: what the server's limiter takes at admission, until"
    " the call ends and its usage is known."
)


class Sums(NamedTuple):
    """What several calls come to, in tokens."""

    calls: int
    prompt: int
    answer: int
    charge: int

    @classmethod
    def of(cls, made: Sequence[Estimate]) -> Sums:
        """Add up estimates."""
        return cls(
            len(made),
            sum(one.prompt_tokens for one in made),
            sum(one.output_tokens for one in made),
            sum(one.charge for one in made),
        )

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its row, in the order of `COLUMNS`."""
        amounts = (self.calls, self.prompt, self.answer, self.prompt + self.answer, self.charge)
        return tuple(f"{amount:,}" for amount in amounts)


def estimate(
    path: Path, *, rpm: float | None, tpm: float | None, each: bool, json_path: Path | None
) -> int:
    """Show tokens by model or by call, the totals and the time; return 0."""
    check_writable(json_path, path)
    limiter = RateLimiter()
    found = [
        (call, limiter.estimate(call.body, endpoint=call.endpoint)) for call in read_calls(path)
    ]
    if not found:
        raise CommandError(f"{path} holds no requests")

    console = Console()
    total = Sums.of([made for _, made in found])
    console.print(_each_call(found, total) if each else _each_model(found, total))
    _show_time(console, total, found, rpm, tpm)
    write_figures(json_path, _document(found, total, rpm, tpm))
    return 0


def _each_call(found: Sequence[tuple[Call, Estimate]], total: Sums) -> Table:
    rows = [
        (call.origin.partition(" of ")[0], made.model or "?", *Sums.of([made]).cells()[1:])
        for call, made in found
    ]
    columns = ("line", "model", *COLUMNS[1:])
    return table("", columns, [*rows, ("all", "", *total.cells()[1:])], CAPTION, texts=2)


def _each_model(found: Sequence[tuple[Call, Estimate]], total: Sums) -> Table:
    return table("", ("model", *COLUMNS), [*_by_model(found), ("all", *total.cells())], CAPTION)


def _by_model(found: Sequence[tuple[Call, Estimate]]) -> list[tuple[str, ...]]:
    models: defaultdict[str, list[Estimate]] = defaultdict(list)
    for _, made in found:
        models[made.model or "?"].append(made)
    return [
        (model, *Sums.of(models[model]).cells())
        for model in sorted(models, key=lambda name: -len(models[name]))
    ]


def _show_time(
    console: Console,
    total: Sums,
    found: Sequence[tuple[Call, Estimate]],
    rpm: float | None,
    tpm: float | None,
) -> None:
    if rpm is None and tpm is None:
        say(console, "Give --rpm and --tpm to see how long that takes.")
        return

    limits = " and ".join(
        f"{amount:,.12g} {name}"
        for amount, name in ((rpm, "requests"), (tpm, "tokens"))
        if amount is not None
    )
    time = duration(least_seconds(total.prompt + total.answer, tpm, total.calls, rpm))
    say(
        console,
        f"At {limits} per minute, from full buckets: {time} until the last call may be sent.",
    )
    call, largest = max(found, key=lambda pair: pair[1].prompt_tokens)
    tokens = largest.prompt_tokens
    if tpm is not None and tokens > tpm:
        say(
            console,
            f"The prompt of {call.origin} has {tokens:,} tokens, more than the limit: no wait"
            " helps it.",
        )


def _document(
    found: Sequence[tuple[Call, Estimate]],
    total: Sums,
    rpm: float | None,
    tpm: float | None,
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
            for call, made in found
        ],
        "total": {
            "calls": total.calls,
            "prompt_tokens": total.prompt,
            "output_tokens": total.answer,
            "charge": total.charge,
        },
        "seconds": least_seconds(total.prompt + total.answer, tpm, total.calls, rpm),
    }
