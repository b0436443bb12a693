"""How near the estimates come to the bill.

Owns the comparison of recorded calls (request, usage, rate-limit headers, date) with
what `ratelimit.estimate` makes of them, and with the function of the OpenAI cookbook
that most clients copy. The predicted charge is compared with what the server's headers
show. Must never fit anything: no call is known to the estimator beforehand, and what it
learns from the calls before is a figure of its own.

    python benchmarks/accuracy.py --calls calls.jsonl.gz more.jsonl.gz --json out.json
    python benchmarks/accuracy.py --second  # and how near after one bill of a kind
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

# As a script it sees its own folder only.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.past_charges import charge_on
from benchmarks.recordings import (
    beside_another_body,
    billed,
    bucket,
    calls,
    charged,
    day,
    estimable,
)
from benchmarks.second_calls import figures, second_calls
from ratelimit.estimate import Estimator
from ratelimit.estimate.encodings import encoding_for
from ratelimit.estimate.responses import is_divided
from ratelimit.estimate.tokenizer import count

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

AMBIGUOUS: Final = "answers recorded beside another body"
"""The bucket of calls with an answer that was recorded for another body as well."""


def cookbook(call: dict[str, Any]) -> int:
    """Count a body the way most clients do.

    A message has 3 tokens, a name 1, the answer 3, and every text of a message its own.
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


class Triple(NamedTuple):
    """Our estimate of one call, the cookbook's, and the bill."""

    body: str
    ours: int
    cookbook: int
    billed: int


@dataclass
class Row:
    """What one bucket's estimates were beside the bills."""

    triples: list[Triple] = field(default_factory=list)

    def figures(self, which: Literal["ours", "cookbook"] = "ours") -> dict[str, float]:
        """Return the figures of an estimator as the JSON shows them."""
        pairs = [(int(getattr(triple, which)), triple.billed) for triple in self.triples]
        errors = sorted(abs(estimate - bill) for estimate, bill in pairs)
        number = len(pairs)
        if not pairs:
            return {"n": 0}

        undivided = [pair for pair in pairs if not is_divided(*pair)]
        return {
            "n": number,
            "exact": round(sum(error == 0 for error in errors) / number, 4),
            "exact_by_body": round(self._exact_by_body(which), 4),
            "within_1": round(sum(error <= 1 for error in errors) / number, 4),
            "within_1pct": _within(0.01, pairs),
            "within_2pct": _within(0.02, pairs),
            "p99_abs": errors[min(number - 1, int(0.99 * number))],
            "divided": number - len(undivided),
            "within_2pct_undivided": _within(0.02, undivided),
        }

    def _exact_by_body(self, which: str) -> float:
        """Return the share of exact estimates where each distinct body counts once."""
        bodies: defaultdict[str, list[bool]] = defaultdict(list)
        for triple in self.triples:
            bodies[triple.body].append(getattr(triple, which) == triple.billed)

        return sum(sum(exact) / len(exact) for exact in bodies.values()) / len(bodies)


def _within(share: float, pairs: list[tuple[int, int]]) -> float:
    near = sum(abs(estimate - bill) <= share * bill for estimate, bill in pairs)
    return round(near / len(pairs), 4) if pairs else 0.0


def measure(*paths: Path) -> dict[str, Any]:
    """Estimate every recorded call of these files and compare."""
    rows: defaultdict[str, Row] = defaultdict(Row)
    whole, taught = Row(), Row()
    comparable: list[dict[str, Any]] = []
    charges: defaultdict[str, list[bool]] = defaultdict(list)
    estimator = Estimator()
    learners: defaultdict[tuple[str, bool], Estimator] = defaultdict(Estimator)
    recorded = sorted(calls(*paths), key=day)
    ambiguous = beside_another_body(recorded)
    for call in recorded:
        body = {"model": call["model"], **call["request"]}
        estimate = estimator.estimate(body, endpoint=call["endpoint"])
        name = bucket(call)
        if call["response_id"] in ambiguous:
            name = AMBIGUOUS

        triple = Triple(
            body=json.dumps([call["endpoint"], body], sort_keys=True),
            ours=estimate.prompt_tokens,
            cookbook=cookbook(call),
            billed=billed(call) or 0,
        )
        rows[name].triples.append(triple)
        learner = learners[call["repo"], call["azure"]]
        learned = learner.estimate(body, endpoint=call["endpoint"])
        if name != AMBIGUOUS:
            learner.learn(learned, prompt_tokens=triple.billed, output_tokens=None)

        if not estimable(name):
            continue

        comparable.append(call)
        whole.triples.append(triple)
        taught.triples.append(triple._replace(ours=learned.prompt_tokens))
        taken = charged(call)
        if taken is not None:
            predicted = charge_on(day(call), estimate, call["request"])
            charges[call["endpoint"]].append(taken - predicted in {0, 1})

    return {
        "buckets": {
            name: {
                **row.figures(),
                "promised": PROMISED.get(name),
                "estimable": estimable(name),
                "cookbook": row.figures("cookbook"),
            }
            for name, row in sorted(rows.items())
        },
        "estimable": {**whole.figures(), "cookbook": whole.figures("cookbook")},
        "learned": taught.figures(),
        "second": figures(second_calls(comparable)),
        "charge": _charge_figures(charges),
    }


def _charge_figures(charges: Mapping[str, list[bool]]) -> dict[str, Any]:
    every = [within for endpoint in charges.values() for within in endpoint]
    return {
        "within_0_1": round(sum(every) / len(every), 4) if every else None,
        "n": len(every),
        "endpoints": {
            name: {"n": len(got), "within_0_1": round(sum(got) / len(got), 4)}
            for name, got in sorted(charges.items())
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    table = Table(
        title="Estimates beside the bill, in shares of the calls",
        caption="dim: not shown by the body alone, so not promised",
    )
    table.add_column("bucket")
    for heading in (
        *("n", "exact", "by body", "promised", "within 1", "within 1 %", "p99"),
        *("cookbook exact", "cookbook p99"),
    ):
        table.add_column(heading, justify="right")

    for name, row in [*result["buckets"].items(), ("all that is estimable", result["estimable"])]:
        promised = row.get("promised")
        exact = f"{row['exact']:.3f}"
        if promised is not None:
            colour = "green" if row["exact"] >= promised else "red"
            exact = f"[{colour}]{exact}[/]"

        table.add_row(
            name,
            str(row["n"]),
            exact,
            f"{row['exact_by_body']:.3f}",
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
        "within 2 % of the bill over all that is estimable:"
        f" {result['estimable']['within_2pct']:.3f} (promised 0.970)"
    )
    console.print(
        "with the bills before it learned, server by server: exact"
        f" {result['learned']['exact']:.3f}, within 2 % {result['learned']['within_2pct']:.3f}"
    )
    console.print(
        f"{result['estimable']['divided']} are billed the estimate divided by 2 to 8, rounded down:"
        " by the calls of a parallel answer, which no body shows; within 2 % without them:"
        f" {result['estimable']['within_2pct_undivided']:.3f}"
    )
    charge = result["charge"]
    shares = ", ".join(
        f"{name} {row['within_0_1']:.3f} of {row['n']}" for name, row in charge["endpoints"].items()
    )
    console.print(
        f"charge within {{0, +1}} of what the server took: {charge['within_0_1']} of"
        f" {charge['n']} (promised 0.980): {shares}"
    )


def show_second(second: dict[str, Any]) -> None:
    """Print what one bill of a server, model and kind teaches."""
    Console(width=140).print(
        f"the second call of the same server, model and kind, after one bill: {second['n']} pairs,"
        f" within 1 {second['within_1']:.3f} (promised 0.990), exact {second['exact']:.3f},"
        f" before it {second['first_exact']:.3f}; of the {second['undivided']} that are not divided"
        f" by the calls of a parallel answer, within 1 {second['within_1_undivided']:.3f}"
    )


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    recorded = Path(__file__).parents[2] / "shared" / "truth" / "calls.jsonl.gz"
    parser.add_argument("--calls", type=Path, nargs="+", default=[recorded])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--second", action="store_true", help="show what one bill teaches the second call"
    )
    options = parser.parse_args()
    missing = [str(path) for path in options.calls if not path.exists()]
    if missing:
        names = ", ".join(missing)
        parser.exit(0, f"no recorded calls at {names}: nothing to compare with (--calls FILE)\n")

    result = measure(*options.calls)
    if not result["estimable"]["n"]:
        parser.exit(0, "no call of a kind that an estimate is for: nothing to compare with\n")

    show(result)
    if options.second:
        show_second(result["second"])

    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
