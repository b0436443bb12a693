"""How near do the estimates come to the bill? Recorded calls in, a table and a JSON
out.

Each recorded call (request, usage, rate-limit headers, date) is estimated by
`ratelimit.estimate` and by the function of the OpenAI cookbook that most clients copy,
and both are compared with `usage`; the predicted charge is compared with what the
server's headers say was taken. Nothing is fitted here and no call is known to the
estimator beforehand.

    python benchmarks/accuracy.py --calls ../shared/truth/calls.jsonl.gz --json accuracy.json
"""

from __future__ import annotations

import argparse
import datetime as dt
import email.utils
import gzip
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

# As a script it sees its own folder only.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.past_charges import charge_on
from ratelimit.estimate import Estimator
from ratelimit.estimate.models import traits_of
from ratelimit.estimate.responses import is_divided
from ratelimit.estimate.tokenizer import count, encoding_for

HIDDEN_BILLED: Final = dt.date(2025, 3, 1), dt.date(2025, 4, 6)
"""First and last day on which Responses billed the prompt that the server adds."""

SELF_CONTAINED: Final = {None, "message", "function_call", "function_call_output", "reasoning"}
"""Types of input items that show all they cost."""

PROMISED: Final = {
    "chat plain": 0.985,
    "chat plain (reasoning)": 0.93,
    "chat tools": 0.93,
    "chat tools (reasoning)": 0.85,
    "chat json_schema": 0.90,
    "chat images": 0.93,
    "chat tool results": 0.80,
    "chat tool results (reasoning)": 0.60,
    "responses plain": 0.95,
    "responses tools": 0.90,
    "responses json_schema": 0.90,
    "embeddings": 0.997,
}
"""The least share of exact estimates per bucket."""


def calls(path: Path) -> Iterator[dict[str, Any]]:
    """Read the recorded calls, one JSON object a line."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def day(call: dict[str, Any]) -> dt.date:
    """Return the day a call was recorded: by its date, or by the second a response's id
    begins with; else it is of today's kind.
    """
    try:
        return email.utils.parsedate_to_datetime(call["date"]).date()
    except (TypeError, ValueError):
        second = re.match(r"resp_(6[0-9a-f]{7})", call["response_id"] or "")
        return (
            dt.datetime.fromtimestamp(int(second[1], 16), dt.UTC).date() if second else dt.date.max
        )


def beside_another_body(recorded: list[dict[str, Any]]) -> set[str]:
    """Return the ids of answers that were recorded with several bodies: they answered
    one of them at most.
    """
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    for call in recorded:
        if call["response_id"]:
            bodies[call["response_id"]].add(json.dumps(call["request"], sort_keys=True))
    return {name for name, different in bodies.items() if len(different) > 1}


def billed(call: dict[str, Any]) -> int:
    """Return the prompt tokens of `usage`."""
    usage = call["usage"]
    return int(usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"])


def bucket(call: dict[str, Any]) -> str:
    """Name the kind of call, by what its body holds; "(reasoning)" when the model
    thinks first.
    """
    has, endpoint = call["has"], call["endpoint"]
    if endpoint in {"embeddings", "completions"}:
        return str(endpoint)
    short = "chat" if endpoint == "chat.completions" else "responses"
    apart = _apart(call)
    if apart:
        return f"{short} {apart}"
    reasoning = " (reasoning)" if traits_of(call["model"]).reasoning else ""
    tools = has["n_tools"] or "functions" in call["request"]
    if has["images"]:
        return f"{short} images" + ("" if inline(call["request"]) else " (remote)")
    if has["tool_msgs"]:
        return f"{short} tool results{reasoning}"
    if has["response_format"] == "json_schema":
        return f"{short} json_schema" + (" + tools" if tools else "")
    return f"{short} {'tools' if tools else 'plain'}{reasoning}"


def _apart(call: dict[str, Any]) -> str:
    """Name what makes a bill depend on more than the body, "" when nothing does."""
    has, request = call["has"], call["request"]
    given = request.get("input")
    kinds = (
        {item.get("type") for item in given if isinstance(item, dict)}
        if isinstance(given, list)
        else set()
    )
    told = {
        "kept by the server": has["prompt_template"]
        or has["conversation"]
        or has["previous_response_id"]
        or has["item_reference"],
        "files and audio": has["files"] or has["audio"],
        "of March 2025 (hidden prompt billed)": call["endpoint"] == "responses"
        and HIDDEN_BILLED[0] <= day(call) <= HIDDEN_BILLED[1],
        "reasoning sent back": has["reasoning_items"],
        "built-in tools": set(has["tools"]) - {"function"},
        "sealed items": kinds - SELF_CONTAINED or "context_management" in request,
    }
    return next((name for name, holds in told.items() if holds), "")


def estimable(name: str) -> bool:
    """Tell whether the body alone decides the bill: no server-side state, no content
    that only the server sees.
    """
    return not re.search(r"kept|files|March|sent back|built-in|sealed|remote|another body", name)


def inline(request: dict[str, Any]) -> bool:
    """Tell whether every picture of the body comes with its data, so that its size can
    be known.
    """
    return not re.search(
        r'"(?:url|image_url)": ?"(?!data:)|"file_id"',
        json.dumps(request.get("messages", request.get("input"))),
    )


def cookbook(call: dict[str, Any]) -> int:
    """Count a body the way most clients do: 3 a message, 1 a name, every text of a
    message, 3 for the answer.
    """
    request, encoding = call["request"], encoding_for(call["model"])
    if call["endpoint"] in {"embeddings", "completions"}:
        texts = request.get("input" if call["endpoint"] == "embeddings" else "prompt", "")
        return sum(
            count(text, encoding) if isinstance(text, str) else 1
            for text in (texts if isinstance(texts, list) else [texts])
        )
    messages = request.get("messages", request.get("input", ""))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if request.get("instructions"):
        messages = [{"role": "system", "content": request["instructions"]}, *messages]
    return 3 + sum(3 + _cookbook_message(message, encoding) for message in messages)


def _cookbook_message(message: dict[str, Any], encoding: str) -> int:
    total = 0
    for key, value in message.items():
        if isinstance(value, str):
            total += count(value, encoding) + (key == "name")
        elif key == "content" and isinstance(value, list):
            total += sum(
                count(part.get("text") or "", encoding) for part in value if isinstance(part, dict)
            )
    return total


def charged(call: dict[str, Any]) -> int | None:
    """Return what the server took at admission by its own headers, limit - remaining;
    None where they do not tell.

    They do not above 50M tokens per minute (the refill is faster than the reading), on
    Azure (which limits by other rules), and on Responses whose charge was replaced by
    the bill before the headers were written: used 0, or the reasoning models.
    """
    limits = call["ratelimit"] or {}
    try:
        limit, remaining = (
            int(limits["x-ratelimit-limit-tokens"]),
            int(limits["x-ratelimit-remaining-tokens"]),
        )
    except (KeyError, ValueError):
        return None
    settled = call["endpoint"] == "responses" and (
        remaining == limit or traits_of(call["model"]).reasoning
    )
    return None if settled or call["azure"] or not 0 < limit <= 50_000_000 else limit - remaining


@dataclass
class Row:
    """What one bucket's estimates were, beside the bills: (ours, the cookbook's,
    billed).
    """

    triples: list[tuple[int, int, int]] = field(default_factory=list)

    def figures(self, which: int = 0) -> dict[str, float]:
        """Return the figures of an estimator, ours (0) or the cookbook's (1), as the
        JSON shows them.
        """
        pairs = [(triple[which], triple[2]) for triple in self.triples]
        errors = sorted(abs(estimate - bill) for estimate, bill in pairs)
        count_ = len(pairs)
        return {
            "n": count_,
            "exact": round(sum(error == 0 for error in errors) / count_, 4),
            "within_1": round(sum(error <= 1 for error in errors) / count_, 4),
            "within_1pct": round(
                sum(abs(estimate - bill) <= 0.01 * bill for estimate, bill in pairs) / count_, 4
            ),
            "within_2pct": round(
                sum(abs(estimate - bill) <= 0.02 * bill for estimate, bill in pairs) / count_, 4
            ),
            "p99_abs": errors[min(count_ - 1, int(0.99 * count_))],
            "divided": sum(is_divided(estimate, bill) for estimate, bill in pairs),
        }


def measure(path: Path) -> dict[str, Any]:
    """Estimate every recorded call at `path` and compare."""
    rows: defaultdict[str, Row] = defaultdict(Row)
    whole = Row()
    charges: defaultdict[str, list[bool]] = defaultdict(list)
    estimator = Estimator()
    recorded = [call for call in calls(path) if call["usage"]]
    doubtful = beside_another_body(recorded)
    for call in recorded:
        estimate = estimator.estimate(
            {"model": call["model"], **call["request"]}, endpoint=call["endpoint"]
        )
        name = (
            "answers recorded beside another body"
            if call["response_id"] in doubtful
            else bucket(call)
        )
        triple = (estimate.prompt_tokens, cookbook(call), billed(call))
        rows[name].triples.append(triple)
        if estimable(name):
            whole.triples.append(triple)
            taken = charged(call)
            if taken is not None:
                predicted = charge_on(day(call), estimate, call["request"])
                charges[call["endpoint"]].append(taken - predicted in {0, 1})
    every = [within for endpoint in charges.values() for within in endpoint]
    return {
        "buckets": {
            name: {
                **row.figures(),
                "promised": PROMISED.get(name),
                "estimable": estimable(name),
                "cookbook": row.figures(1),
            }
            for name, row in sorted(rows.items())
        },
        "estimable": {**whole.figures(), "cookbook": whole.figures(1)},
        "charge": {
            "within_0_1": round(sum(every) / len(every), 4) if every else None,
            "n": len(every),
            "endpoints": {
                name: {"n": len(got), "within_0_1": round(sum(got) / len(got), 4)}
                for name, got in sorted(charges.items())
            },
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    table = Table(
        title="Estimates beside the bill, in shares of the calls",
        caption="dim: not told by the body alone, so not promised",
    )
    for heading in (
        "bucket",
        "n",
        "exact",
        "promised",
        "within 1",
        "within 1 %",
        "p99",
        "cookbook exact",
        "cookbook p99",
    ):
        table.add_column(heading, justify="left" if heading == "bucket" else "right")
    for name, row in [*result["buckets"].items(), ("all that is estimable", result["estimable"])]:
        promised = row.get("promised")
        colour = "" if promised is None else "green" if row["exact"] >= promised else "red"
        table.add_row(
            name,
            str(row["n"]),
            f"[{colour}]{row['exact']:.3f}[/]" if colour else f"{row['exact']:.3f}",
            "" if promised is None else f"{promised:.3f}",
            f"{row['within_1']:.3f}",
            f"{row['within_1pct']:.3f}",
            str(row["p99_abs"]),
            f"{row['cookbook']['exact']:.3f}",
            str(row["cookbook"]["p99_abs"]),
            style="" if row.get("estimable", True) else "dim",
        )
    console = Console(width=140)
    console.print(table)
    console.print(
        f"within 2 % of the bill over all that is estimable: {result['estimable']['within_2pct']:.3f} (promised 0.970)"
    )
    tools = result["buckets"].get("responses tools")
    if tools:
        missed = tools["n"] - round(tools["exact"] * tools["n"])
        console.print(
            f"responses tools: {tools['divided']} of the {missed} that are not exact are billed the estimate divided by 2 to 8, rounded down:"
            " by the calls of a parallel answer, which no body tells"
        )
    charge = result["charge"]
    shares = ", ".join(
        f"{name} {row['within_0_1']:.3f} of {row['n']}" for name, row in charge["endpoints"].items()
    )
    console.print(
        f"charge within {{0, +1}} of what the server took: {charge['within_0_1']} of {charge['n']} (promised 0.980): {shares}"
    )


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--calls",
        type=Path,
        default=Path(__file__).parents[2] / "shared" / "truth" / "calls.jsonl.gz",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if not options.calls.exists():
        parser.exit(
            0, f"no recorded calls at {options.calls}: nothing to compare with (--calls FILE)\n"
        )
    result = measure(options.calls)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
