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
from ratelimit.commands.show import Output, duration, say, table

COLUMNS: Final = ("calls", "prompt", "answer", "both", "charge", "prompt is")
SURENESS: Final = ("exact", "formula", "learned", "guess")
"""What `Estimate.confidence` says, the surest first."""

CAPTION: Final = (
    "Tokens. Prompt: what will be billed for the input. Answer: the bound that the body sets, else"
    " what such calls usually need. Charge: what the server's limiter takes at admission, until"
    " the call ends and its usage is known. A prompt is exact; or by a formula, which is a few"
    " tokens off at times; or a guess, where the body does not show all. A sum is as sure as its"
    " least sure call."
)


class Sums(NamedTuple):
    """What several calls come to, in tokens."""

    calls: int
    prompt: int
    answer: int
    charge: int
    sure: str
    """How sure the least sure prompt is."""

    @classmethod
    def of(cls, made: Sequence[Estimate]) -> Sums:
        """Add up estimates."""
        return cls(
            len(made),
            sum(one.prompt_tokens for one in made),
            sum(one.output_tokens for one in made),
            sum(one.charge for one in made),
            max((one.confidence for one in made), key=SURENESS.index, default=SURENESS[0]),
        )

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its row, in the order of `COLUMNS`."""
        amounts = (self.calls, self.prompt, self.answer, self.prompt + self.answer, self.charge)
        return (*(f"{amount:,}" for amount in amounts), self.sure)


def estimate(
    path: Path, *, rpm: float | None, tpm: float | None, each: bool, json_path: Path | None
) -> int:
    """Show tokens by model or by call, the totals and the time.

    Returns the exit status: 1 when a call can never fit its limit.
    """
    check_writable(json_path, path)
    limiter = RateLimiter()
    found = [
        (call, limiter.estimate(call.body, endpoint=call.endpoint)) for call in read_calls(path)
    ]
    if not found:
        raise CommandError(f"{path} holds no requests")

    console = Output()
    total = Sums.of([made for _, made in found])
    console.print(_each_call(found, total) if each else _each_model(found, total))
    possible = [(call, made) for call, made in found if _can_go(made, rpm, tpm)]
    going = Sums.of([made for _, made in possible])
    _show_time(console, going, found, rpm, tpm)
    write_figures(json_path, _document(found, total, going, rpm, tpm))
    return 1 if going.calls < total.calls else 0


def _can_go(made: Estimate, rpm: float | None, tpm: float | None) -> bool:
    """Return whether a full bucket is enough for a call."""
    tokens = max(made.prompt_tokens, made.charge)
    return not (rpm is not None and rpm < 1) and not (tpm is not None and tokens > tpm)


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
    going: Sums,
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
    time = duration(_seconds(going, rpm, tpm))
    if going.calls:
        say(
            console,
            f"At {limits} per minute, from full buckets: {time} until the last call may be sent.",
        )
    hopeless = len(found) - going.calls
    if hopeless:
        say(
            console,
            f"{hopeless:,} calls are larger than a whole limit and will fail; the time does not"
            " count them.",
        )
    call, largest = max(found, key=lambda pair: pair[1].prompt_tokens)
    tokens = largest.prompt_tokens
    if tpm is not None and tokens > tpm:
        say(
            console,
            f"The prompt of {call.origin} has {tokens:,} tokens, more than the limit: no wait"
            " helps it.",
        )


def _seconds(going: Sums, rpm: float | None, tpm: float | None) -> float:
    return least_seconds(going.prompt + going.answer, tpm, going.calls, rpm)


def _document(
    found: Sequence[tuple[Call, Estimate]],
    total: Sums,
    going: Sums,
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
        "seconds": _seconds(going, rpm, tpm),
    }
