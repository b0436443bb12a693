"""`ratelimit estimate`: what a file of calls costs, and how long limits make it take.

Owns the sums and their table. Must never come in: counting tokens (`ratelimit.estimate`
does), sending anything.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ratelimit.commands import CommandError, check_writable
from ratelimit.commands.calls import Call, read_calls
from ratelimit.commands.plan import least_seconds
from ratelimit.commands.show import duration, table
from ratelimit.estimate import Estimate, Estimator

COLUMNS = ("calls", "prompt", "answer", "both", "charge")
CAPTION = (
    "Tokens. Prompt: what will be billed for the input. Answer: the bound that the body sets, else what such calls usually need. Charge: what"
    " the server's limiter takes at admission, until the call ends and its usage is known."
)


def estimate(
    path: Path, *, rpm: float | None, tpm: float | None, each: bool, json_path: Path | None
) -> int:
    """Show tokens by model or by call, the totals and the time; return 0."""
    check_writable(json_path)
    estimator = Estimator()
    found = [
        (call, estimator.estimate(call.body, endpoint=call.endpoint)) for call in read_calls(path)
    ]
    if not found:
        raise CommandError(f"{path} holds no requests")
    console = Console()
    total = _sums([made for _, made in found])
    if each:
        rows = [
            (call.origin.partition(" of ")[0], made.model or "?", *_figures(_sums([made]))[1:])
            for call, made in found
        ]
        console.print(
            table(
                "",
                ("line", "model", *COLUMNS[1:]),
                [*rows, ("all", "", *_figures(total)[1:])],
                CAPTION,
                texts=2,
            )
        )
    else:
        console.print(
            table("", ("model", *COLUMNS), [*_by_model(found), ("all", *_figures(total))], CAPTION)
        )
    _tell_time(console, total, found, rpm, tpm)
    if json_path is not None:
        json_path.write_text(
            json.dumps(_document(found, total, rpm, tpm), indent=2) + "\n", encoding="utf-8"
        )
    return 0


def _sums(made: Sequence[Estimate]) -> tuple[int, int, int, int]:
    """Calls, prompt tokens, answer tokens, charge."""
    return (
        len(made),
        sum(one.prompt_tokens for one in made),
        sum(one.output_tokens for one in made),
        sum(one.charge for one in made),
    )


def _figures(sums: tuple[int, int, int, int]) -> tuple[str, ...]:
    calls, prompt, answer, charge = sums
    return tuple(f"{amount:,}" for amount in (calls, prompt, answer, prompt + answer, charge))


def _by_model(found: Sequence[tuple[Call, Estimate]]) -> list[tuple[str, ...]]:
    models: defaultdict[str, list[Estimate]] = defaultdict(list)
    for _, made in found:
        models[made.model or "?"].append(made)
    return [
        (model, *_figures(_sums(models[model])))
        for model in sorted(models, key=lambda name: -len(models[name]))
    ]


def _tell_time(
    console: Console,
    total: tuple[int, int, int, int],
    found: Sequence[tuple[Call, Estimate]],
    rpm: float | None,
    tpm: float | None,
) -> None:
    if rpm is None and tpm is None:
        console.print("Give --rpm and --tpm to hear how long that takes.", soft_wrap=True)
        return
    calls, prompt, answer, _ = total
    limits = " and ".join(
        f"{amount:,.12g} {name}"
        for amount, name in ((rpm, "requests"), (tpm, "tokens"))
        if amount is not None
    )
    time = duration(least_seconds(prompt + answer, tpm, calls, rpm))
    console.print(
        f"At {limits} per minute, from full buckets: {time} until the last call may be sent.",
        highlight=False,
        soft_wrap=True,
    )
    largest = max(found, key=lambda pair: pair[1].prompt_tokens + pair[1].output_tokens)
    tokens = largest[1].prompt_tokens + largest[1].output_tokens
    if tpm is not None and tokens > tpm:
        console.print(
            f"{largest[0].origin} needs {tokens:,} tokens, more than the limit: it is refused for ever.",
            highlight=False,
            soft_wrap=True,
        )


def _document(
    found: Sequence[tuple[Call, Estimate]],
    total: tuple[int, int, int, int],
    rpm: float | None,
    tpm: float | None,
) -> dict[str, Any]:
    calls, prompt, answer, charge = total
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
            "calls": calls,
            "prompt_tokens": prompt,
            "output_tokens": answer,
            "charge": charge,
        },
        "seconds": least_seconds(prompt + answer, tpm, calls, rpm),
    }
