"""Whether the fake server does what the real one was recorded to do.

Owns the comparison of FakeOpenAI with recordings: a table and a JSON come out. Must
never use the limiter, which would judge itself.

    python benchmarks/fidelity.py --json fidelity.json
    python benchmarks/fidelity.py --headers headers.csv --calls calls.jsonl.gz

Headers: for each recorded limit a server is brought to the recorded level and asked
once, on a virtual clock; `remaining` and `reset` have to come out as recorded, letter
by letter. One thing is not recorded, the fraction of a unit that `remaining` cuts off,
so it may be chosen, as may the period out of those that exist (minute, day, month).
The matches are counted apart: with a fraction of 0; with a fraction below 1; and with
the residue of +1 that the real server's truncation adds on some rows. Left out
("unreadable") are rows without limit, remaining or reset.

Charges: each recorded request is sent, body and all, to a fresh server with the
recorded limit, under the rule of its date; `remaining-tokens` has to be as recorded, or
one less (the same residue; within 2 at limits of 150 million and more). Two kinds of
calls are left out for what the recordings say before anything is compared: those of
Azure and those with absent or masked headers ("unreadable"); and those that cannot have
found a full bucket ("in use"), because their own request header shows other calls
beside them, or the call before them in the same recording, for the same model and
limit, took an amount that cannot have flowed back by then. Counted as misses though no
rule could predict them: calls with predecessors that were not recorded, and Responses
with parallel function calls: their usage lacks the tools that the server charged.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
from rich.console import Console
from rich.table import Table

from ratelimit.testing import FakeOpenAI, Latency
from ratelimit.testing.clocks import run_virtual

INPUT_ONLY_SINCE: Final = datetime(2025, 3, 20, tzinfo=UTC)
"""From this day on the server charges no max_tokens at admission (recorded)."""

SETTLED_SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""From this day on the headers of some models' Responses show the level after
settlement (recorded).
"""

LIMITS: Final = {
    "requests": {"rpm": 60, "rpd": 86_400},
    "tokens": {"tpm": 60, "tpd": 86_400, "tpmonth": 2_592_000},
}
"""The fake server's limits on each unit, with their periods in seconds."""

PATHS: Final = {
    "chat.completions": "chat/completions",
    "responses": "responses",
    "embeddings": "embeddings",
    "completions": "completions",
}
LEFT_OUT: Final = {"unreadable", "in use"}
UNITS: Final = {"h": 3_600, "m": 60, "s": 1, "ms": 0.001}
"""Seconds of the units of a recorded reset; read here and not by the limiter's own
parser, which is what is judged elsewhere.
"""

TWO_OFF: Final = 150_000_000
"""Limits from which on `remaining` was recorded up to two units off, not one."""

TRUTH: Final = Path(__file__).parents[2] / "shared" / "truth"
"""Where the recordings are by default; they do not come with the package."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a CSV of headers, or the recorded calls, one JSON object a line."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    else:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)


async def answer(
    server: FakeOpenAI, path: str, body: object, usage: dict[str, int]
) -> httpx2.Headers:
    """Send one request and return the headers of its answer."""
    async with httpx2.AsyncClient(transport=server.transport(), base_url="http://fake/v1") as http:
        response = await http.post(
            f"/{path}", json=body, headers={"x-fake-usage": json.dumps(usage)}
        )
        if response.status_code != 200:
            raise ValueError(f"the fake server refused a recorded request: {response.text}")
        return response.headers


@dataclass(frozen=True)
class Recorded:
    """One limit of one recorded header set; `seconds` is its reset."""

    unit: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset: str

    @property
    def seconds(self) -> float:
        """The reset in seconds."""
        return sum(
            float(number) * UNITS[unit]
            for number, unit in re.findall(r"([\d.]+)(h|ms|m|s)", self.reset)
        )

    async def shown(self, name: str, period: float, used: float) -> tuple[int, str]:
        """Return what the server shows right after a call: `remaining` and `reset`.

        :param name: the fake server's limit.
        :param period: its period in seconds.
        :param used: units that are missing then.
        """
        cost = 1 if self.unit == "requests" else 0
        # where less is used than the call costs, the headers were written later
        fresh = max(0.0, cost - used)
        server = FakeOpenAI(
            rpm=None,
            tpm=None,
            models={"*": {name: self.limit}},
            level=min(1.0, (self.limit - used + cost) / self.limit),
            latency=fresh * period / self.limit,
            headers_at="settle" if fresh else "admission",
        )
        headers = await answer(
            server, "embeddings", {"model": "m", "input": ""}, {"prompt_tokens": 0}
        )
        return int(headers[f"x-ratelimit-remaining-{self.unit}"]), headers[
            f"x-ratelimit-reset-{self.unit}"
        ]

    async def verdict(self) -> str:
        """Return how the server comes to the recorded pair.

        "whole", "fraction" or "residue", as the module's docstring counts them; else
        "miss".
        """
        used = self.limit - self.remaining
        for name, period in LIMITS[self.unit].items():
            if await self.shown(name, period, used) == (self.remaining, self.reset):
                return "whole"

        for residue, word in ((0, "fraction"), (1, "residue")):
            for name, period in LIMITS[self.unit].items():
                by_reset = (self.seconds + 0.0005) * self.limit / period
                real = max(0.0, min(used - residue, max(by_reset, used - residue - 0.999)))
                if await self.shown(name, period, real) == (self.remaining + residue, self.reset):
                    return word
        return "miss"


async def judge_headers(path: Path) -> Counter[tuple[str, str]]:
    """Count the verdicts on every limit of every recorded header set."""
    verdicts: Counter[tuple[str, str]] = Counter()
    known: dict[Recorded, str] = {}
    for row in rows(path):
        for unit in ("requests", "tokens"):
            limit, remaining, reset = (
                row[f"{kind}_{unit}"] for kind in ("limit", "remaining", "reset")
            )
            if not (limit.isdigit() and remaining.isdigit() and reset):
                verdicts[unit, "unreadable"] += 1
                continue

            recorded = Recorded(unit, int(limit), int(remaining), reset)
            if recorded not in known:
                known[recorded] = await recorded.verdict()
            verdicts[unit, known[recorded]] += 1
    return verdicts


def number(call: dict[str, Any], kind: str, unit: str) -> int:
    """Return one number of a recorded call's headers, -1 where there is none."""
    text = call["ratelimit"].get(f"x-ratelimit-{kind}-{unit}", "")
    return int(text) if text.isdigit() else -1


def left_out(calls: list[dict[str, Any]]) -> dict[str, str]:
    """Return why calls cannot be compared, by their id, from the recordings alone."""
    reasons = {call["id"]: "unreadable" for call in calls if not call["date"]}
    before: dict[tuple[str, str, int], dict[str, Any]] = {}
    dated = [call for call in calls if call["date"]]
    for call in sorted(dated, key=lambda call: parsedate_to_datetime(call["date"])):
        limit, remaining = number(call, "limit", "tokens"), number(call, "remaining", "tokens")
        if call["azure"] or limit <= 0 or remaining < 0:
            reasons[call["id"]] = "unreadable"
            continue

        beside = number(call, "limit", "requests") - number(call, "remaining", "requests")
        key = (call["repo"], call["model"], limit)
        earlier = before.get(key)
        if beside > 1 or (earlier is not None and missing(earlier, call, limit) > 0):
            reasons[call["id"]] = "in use"
        before[key] = call
    return reasons


def missing(earlier: dict[str, Any], call: dict[str, Any], limit: int) -> float:
    """Return the tokens of an earlier call that have not flowed back at a later one."""
    since = parsedate_to_datetime(call["date"]) - parsedate_to_datetime(earlier["date"])
    seconds = since.total_seconds() + 1  # dates are cut to seconds
    return limit - number(earlier, "remaining", "tokens") - seconds * limit / 60


async def judge_calls(path: Path) -> Counter[tuple[str, str]]:
    """Count the verdicts on the admission charge of every recorded call."""
    calls = list(rows(path))
    reasons = left_out(calls)
    verdicts: Counter[tuple[str, str]] = Counter()
    for call in calls:
        if call["id"] in reasons:
            verdicts[call["endpoint"], reasons[call["id"]]] += 1
            continue

        limit = number(call, "limit", "tokens")
        more = await charged(call, limit) - number(call, "remaining", "tokens")
        match = more in {0, 1} or (limit >= TWO_OFF and abs(more) <= 2)
        verdicts[call["endpoint"], "match" if match else "miss"] += 1
    return verdicts


async def charged(call: dict[str, Any], limit: int) -> int:
    """Return what a fresh server with this limit has left after the call."""
    date = parsedate_to_datetime(call["date"])
    newer = call["model"].startswith("gpt-5") or re.fullmatch(r"gpt-4\.1(-\d.*)?", call["model"])
    settled = call["endpoint"] == "responses" and date >= SETTLED_SINCE and newer
    server = FakeOpenAI(
        "P" if date >= INPUT_ONLY_SINCE else "A",
        rpm=None,
        tpm=limit,
        latency=Latency(spread=0),
        headers_at="settle" if settled else "admission",
    )
    usage = call["usage"]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    output = usage.get("completion_tokens", usage.get("output_tokens", 0))
    body = call["request"] | {"model": call["model"], "stream": False}
    headers = await answer(
        server,
        PATHS[call["endpoint"]],
        body,
        {"prompt_tokens": prompt, "completion_tokens": output},
    )
    return int(headers["x-ratelimit-remaining-tokens"])


def report(
    title: str, verdicts: Counter[tuple[str, str]], words: list[str], console: Console
) -> dict[str, Any]:
    """Print one table and return its figures.

    What is neither a miss nor left out is a match.
    """
    table = Table("", *words, "share", title=title)
    figures: dict[str, Any] = {}
    total: Counter[str] = Counter()
    for name in sorted({name for name, _ in verdicts}):
        counts = Counter({word: verdicts[name, word] for word in words})
        total += counts
        table.add_row(name, *(f"{counts[word]:,}" for word in words), f"{share(counts):.1%}")
        figures[name] = dict(counts) | {"share": round(share(counts), 4)}
    table.add_section()
    table.add_row("all", *(f"{total[word]:,}" for word in words), f"{share(total):.1%}")
    figures["all"] = {word: total[word] for word in words} | {"share": round(share(total), 4)}
    console.print(table)
    return figures


def share(counts: Counter[str]) -> float:
    """Return the share of matches among what can be compared."""
    compared = sum(count for word, count in counts.items() if word not in LEFT_OUT)
    return 1 - counts["miss"] / compared if compared else 0.0


def main() -> None:
    """Read the arguments, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--headers", type=Path, default=TRUTH / "headers.csv")
    parser.add_argument("--calls", type=Path, default=TRUTH / "calls.jsonl.gz")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    absent = [path for path in (arguments.headers, arguments.calls) if not path.exists()]
    if absent:
        names = ", ".join(map(str, absent))
        print(f"fidelity: nothing to compare with, no recordings at {names}", file=sys.stderr)
        # without the recordings there is nothing to do; a wrong path is a mistake
        sys.exit(0 if all(path.parent == TRUTH for path in absent) else 2)

    console = Console()
    headers = report(
        "Recorded headers that the fake server shows",
        run_virtual(judge_headers, arguments.headers),
        ["whole", "fraction", "residue", "miss", "unreadable"],
        console,
    )
    calls = report(
        "Recorded calls that the fake server charges alike",
        run_virtual(judge_calls, arguments.calls),
        ["match", "miss", "unreadable", "in use"],
        console,
    )
    result = {
        "reset_match": headers["all"]["share"],
        "charge_match": calls["all"]["share"],
        "headers": headers,
        "calls": calls,
    }
    console.print(
        f"reset_match {result['reset_match']:.4f}   charge_match {result['charge_match']:.4f}"
        "   (at least 0.98 each)"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
