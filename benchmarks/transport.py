"""Measure whether a wrapped client counts every attempt, and what that costs.

Real openai clients, wrapped, against FakeOpenAI over loopback HTTP. Four questions;
without a name all of them are answered:

    attempts   500s, cut connections and 429s are injected, from threads, asyncio and
               trio: did the limiter admit exactly what the server saw
               (`uncounted_attempts` 0), and did a call through decorator and wrapped
               client at once pay once (`duplicate_charges` 0)?
    learn      `RateLimiter()` without limits before servers of several dialects: are
               limit and period right (`learned_wrong` 0), was at most one call under
               way before the first headers (`first_in_flight` 1), and was nothing
               refused (`rejected` 0)?
    quota      how many attempts does a hopeless 429 cost (`attempts` 1; the bare SDK
               makes 3)?
    overhead   CPU of the calling thread per call, beside the same client unwrapped in
               the same run, call by call in turns, each prompt of 1 KB new: the median
               ratio of neighbours (`overhead_ratio`). And beside a client that does
               only what cannot be left out: read the body, count the prompt, find the
               usage in the answer (`least_ratio`; no limiter can cost less).

    python benchmarks/transport.py --json transport.json
    python benchmarks/transport.py learn quota

Owns the four questions and their tables. Must never contain the limiter's inside.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import openai
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

from benchmarks.wrapped.asking import ENTRY_POINTS, ask_decorated, ask_tasks
from benchmarks.wrapped.cost import MODEL, overhead, request
from ratelimit import Limit, RateLimiter
from ratelimit.events.sentences import label_of
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.faults import FaultKind

FAULTS: Final[tuple[FaultKind, ...]] = ("500", "drop", "429")
"""Faults that are injected into one call of five."""


def attempts(console: Console, calls: int) -> dict[str, Any]:
    """Count what the server saw and what the limiter admitted, fault by fault."""
    table = Table(
        "through", "fault", "answered", "attempts seen", "admitted", "refused", title="attempts"
    )
    rows: list[dict[str, Any]] = []
    for entry_point, ask in ENTRY_POINTS.items():
        for fault in (None, *FAULTS):
            server = FakeOpenAI(rpm=1_000_000, tpm=100_000_000, latency=0.01, output=20)
            if fault is not None:
                server.inject(fault, probability=0.2)
            limiter = RateLimiter(rpm=1_000_000, tpm=100_000_000)
            with server.serve() as url:
                answered = ask(limiter, url, calls)
            family = limiter.statistics().families["*"]
            seen = len(server.ledger)
            refused = sum(entry.status == 429 for entry in server.ledger)
            row = {
                "through": entry_point,
                "fault": fault or "",
                "answered": answered,
                "seen": seen,
                "admitted": family.admitted,
                "in_flight": family.in_flight,
            }
            rows.append(row | {"refused": refused, "refused_counted": family.refused})
            table.add_row(
                entry_point,
                fault or "-",
                f"{answered}/{calls}",
                str(seen),
                str(family.admitted),
                f"{refused} (counted {family.refused})",
            )
    console.print(table)
    twice = [row for row in rows if row["through"] == "decorator + wrap"]
    return {
        "attempts_rows": rows,
        "uncounted_attempts": sum(max(row["seen"] - row["admitted"], 0) for row in rows),
        "duplicate_charges": sum(max(row["admitted"] - row["seen"], 0) for row in twice)
        + overpaid(),
        "never_ended": sum(row["in_flight"] for row in rows),
    }


def overpaid() -> int:
    """Count the calls of ten through decorator and wrapped client that paid twice."""
    server = FakeOpenAI(rpm=1_000_000, tpm=100_000_000, latency=0.0, output=20)
    limiter = RateLimiter(tpd=50_000, arrival_slack=0)  # refills half a token while this runs
    with server.serve() as url:
        ask_decorated(limiter, url, 10)
    billed = sum(entry.usage.total_tokens for entry in server.ledger if entry.usage)
    spent = 50_000 - limiter.statistics().families["*"].levels["tokens/86400s"]
    return round(max(spent - billed, 0) / (billed / 10))


DIALECTS: Final[dict[str, tuple[dict[str, Any], list[Limit]]]] = {
    "requests and tokens a minute": (
        {"rpm": 600, "tpm": 30_000},
        [Limit("requests", 600), Limit("tokens", 30_000)],
    ),
    "requests a day": (
        {"rpm": None, "rpd": 10_000, "tpm": 200_000},
        [Limit("requests", 10_000, per=86_400), Limit("tokens", 200_000)],
    ),
    "requests a day only": (
        {"rpm": None, "rpd": 200, "tpm": None},
        [Limit("requests", 200, per=86_400)],
    ),
    "project headers": (
        {"rpm": 5_000, "tpm": 2_000_000, "projects": {"mine": {"rpm": 300, "tpm": 40_000}}},
        [Limit("requests", 300), Limit("tokens", 40_000)],
    ),
    "Azure integers": (
        {"variant": "E", "rpm": 600, "tpm": 100_000},
        [Limit("requests", 600), Limit("tokens", 100_000)],
    ),
    "Groq": (
        {"header_style": "groq", "rpm": None, "rpd": 14_400, "tpm": 18_000},
        [Limit("requests", 14_400, per=86_400), Limit("tokens", 18_000)],
    ),
    "Mistral": (
        {"variant": "M", "rpm": 300, "tpm": 50_000},
        [Limit("requests", 300), Limit("tokens", 50_000)],
    ),
}


def learn(console: Console, calls: int) -> dict[str, Any]:
    """Let a limiter without limits find those of each dialect, all calls at once."""
    table = Table(
        "server", "limits found", "right", "before the first headers", "429s", title="learn"
    )
    rows: list[dict[str, Any]] = []
    for dialect, (options, truth) in DIALECTS.items():
        server = FakeOpenAI(**options, latency=0.1, output=20)
        limiter = RateLimiter()
        with server.serve() as url:
            answered = ask_tasks("asyncio")(
                limiter, url, calls, project="mine" if "projects" in options else None
            )
        found = {(limit.name, limit.per): limit.amount for limit in limiter.limits(MODEL)}
        wrong = sum(found.get((limit.name, limit.per)) != limit.amount for limit in truth) + max(
            len(found) - len(truth), 0
        )
        first = min(server.ledger, key=lambda entry: entry.time)
        early = sum(entry.time < (first.ended or 0) for entry in server.ledger)
        rejected = sum(entry.status == 429 for entry in server.ledger)
        shown = ", ".join(f"{amount:,.0f} {label_of(*key)}" for key, amount in found.items())
        table.add_row(
            dialect, shown, "yes" if not wrong else f"[red]{wrong} wrong", str(early), str(rejected)
        )
        rows.append(
            {
                "server": dialect,
                "found": shown,
                "wrong": wrong,
                "first_in_flight": early,
                "rejected": rejected,
                "answered": answered,
            }
        )
    console.print(table)
    return {
        "learn_rows": rows,
        "learned_wrong": sum(row["wrong"] for row in rows),
        "first_in_flight": max(row["first_in_flight"] for row in rows),
        "rejected": sum(row["rejected"] for row in rows),
    }


def quota(console: Console) -> dict[str, Any]:
    """Count the attempts that an insufficient_quota answer costs, wrapped and not."""
    counts = {}
    advice = ""
    for wrapped in (False, True):  # the wrapped client's error is shown
        server = FakeOpenAI(latency=0.0)
        server.inject("quota")
        with server.serve() as url:
            client = openai.OpenAI(api_key="none", base_url=url)
            client = RateLimiter(rpm=10_000).wrap(client) if wrapped else client
            try:
                client.chat.completions.create(**request())
            except openai.RateLimitError as error:
                advice = str(error)
            client.close()
        counts[wrapped] = len(server.ledger)
    table = Table("client", "attempts", title="quota")
    table.add_row("wrapped", str(counts[True]))
    table.add_row("not wrapped", str(counts[False]))
    console.print(table)
    console.print(advice, markup=False, style="dim")
    return {"attempts": counts[True], "attempts_unwrapped": counts[False], "advice": advice}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="attempts|learn|quota|overhead",
        help="all of them when none is named",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--calls",
        type=int,
        default=30,
        help="calls per row of attempts and learn (overhead makes 10 times as many)",
    )
    arguments = parser.parse_args()
    console = Console()
    questions: dict[str, Callable[[], dict[str, Any]]] = {
        "attempts": lambda: attempts(console, arguments.calls),
        "learn": lambda: learn(console, arguments.calls),
        "quota": lambda: quota(console),
        "overhead": lambda: overhead(console, 10 * arguments.calls),
    }
    if unknown := set(arguments.questions) - questions.keys():
        parser.error(
            f"no question {', '.join(sorted(unknown))}: name some of {', '.join(questions)}"
        )
    figures: dict[str, Any] = {}
    for name in arguments.questions or questions:
        figures |= questions[name]()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
