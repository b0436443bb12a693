"""`ratelimit demo`: one workload, three clients, each against a fresh server that
enforces its limits.

Owns the order of the race and its closing table. Must never come in: how a client
behaves (`clients.py`), what limits are fair (`plan.py`).
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI
from rich.console import Console

from ratelimit.commands import CommandError, check_writable
from ratelimit.commands.backend import Seen, backend, server_settles
from ratelimit.commands.calls import Call, read_calls, with_answers
from ratelimit.commands.clients import CLIENTS, IN_FLIGHT, Tally, run_client, warm_up
from ratelimit.commands.plan import Plan, make_plan
from ratelimit.commands.show import table, watching
from ratelimit.commands.workload import make_calls
from ratelimit.limiter import RateLimiter

LOOK_EVERY: Final = 0.1  # seconds
OTHERS_SECONDS: Final = 38.0  # at most, for the two other clients, starting up and the last answers
CAPTION: Final = (
    "429s: as the server counts them. Longest wait: from handing a call over to its last sending. Quota used: tokens the server took /"
    " (full bucket + refill during the run){}."
)
BELOW_ZERO: Final = (
    "; above 100 % where answers are debited as they end and leave the bucket below zero"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One client's figures: what it counted and what its server saw."""

    tally: Tally
    seen: Seen
    utilization: float
    """tokens the server took, of those that a full bucket and its refill during the run
    could give
    """

    @classmethod
    def of(cls, tally: Tally, seen: Seen, plan: Plan) -> Row:
        """Put the two together."""
        return cls(tally, seen, seen.tokens / (plan.tpm * (1 + tally.seconds / 60)))

    def as_json(self) -> dict[str, Any]:
        """The figures of `--json`."""
        return {
            "answered": self.tally.answered,
            "rejected": self.seen.refused,
            "failed": self.tally.failed,
            "seconds": round(self.tally.seconds, 3),
            "token_utilization": round(self.utilization, 4),
            "longest_wait": round(self.tally.longest_wait, 3),
        }


def demo(
    *,
    calls: Path | None,
    limit: int,
    rpm: float | None,
    tpm: float | None,
    variant: str,
    seed: int,
    json_path: Path | None,
) -> int:
    """Run the race and show it; 0 when the limiter saw no 429 and got every answer, 1
    when not, 130 when interrupted.
    """
    console = Console()
    check_writable(json_path)
    rows: list[Row] = []
    interrupted = False
    with backend() as server:  # it gets ready while the calls are read
        work = _workload(console, calls, limit, seed)
        plan = make_plan(work, variant, rpm, tpm)
        _introduce(console, work, plan)
        try:
            asyncio.run(_warm_up(work[0], server.start(rpm=None, tpm=None)))
            server.stop()
            for name in CLIENTS:
                tally = Tally(name, len(work))
                url = server.start(variant=variant, rpm=plan.rpm, tpm=plan.tpm, seed=seed)
                try:
                    _race(console, tally, work, url, plan, seed)
                except KeyboardInterrupt:
                    interrupted = True
                    # what is left is to ask the server and to show it: a moment
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                with _deferred() as asked:  # a race that was run is shown
                    rows.append(Row.of(tally, server.stop(), plan))
                interrupted = interrupted or bool(asked)
                if interrupted:
                    break
        except KeyboardInterrupt:  # between two races
            interrupted = True
    _close(console, rows, plan, interrupted=interrupted)
    if json_path is not None:
        json_path.write_text(
            json.dumps(_document(rows, plan, len(work), seed, interrupted=interrupted), indent=2)
            + "\n",
            encoding="utf-8",
        )
    if interrupted:
        return 130
    limited = rows[-1]
    return 0 if limited.seen.refused == 0 and limited.tally.answered == len(work) else 1


@contextmanager
def _deferred() -> Iterator[list[int]]:
    """Put Ctrl-C off until the block has ended; what is yielded holds the signals that
    came.
    """
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _workload(console: Console, path: Path | None, limit: int, seed: int) -> list[Call]:
    if path is None:
        return with_answers(make_calls(limit, seed), seed)
    found: list[Call] = []
    skipped = 0
    for call in read_calls(path):
        if call.is_chat:
            found.append(call)
        else:
            skipped += 1
        if len(found) == limit:
            break
    if not found:
        what = (
            f"holds {skipped} requests, none of them for the chat endpoint, which the demo sends to"
            if skipped
            else "holds no requests"
        )
        raise CommandError(f"{path} {what}")
    if skipped:
        console.print(f"{skipped} requests for other endpoints than chat are left out.")
    return with_answers(found, seed)


def _introduce(console: Console, work: Sequence[Call], plan: Plan) -> None:
    lines = (
        f"{len(work)} chat calls, {plan.tokens:,} tokens; the server allows {plan.rpm:,.12g} requests and {plan.tpm:,.12g} tokens per minute.",
        f"What exceeds its full buckets takes {plan.seconds:.0f} s to refill. Each client may have {IN_FLIGHT} calls in flight.",
        f"Variant {plan.variant} of the server, in a process of its own; the limiter's accounting is {plan.accounting!r}.",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    for told in plan.hopeless[:5]:
        console.print(
            f"Dearer than the limit of {plan.tpm:,.12g}, so refused for ever: {told}.",
            highlight=False,
            soft_wrap=True,
        )
    if len(plan.hopeless) > 5:
        console.print(f"... and {len(plan.hopeless) - 5} more.", highlight=False, soft_wrap=True)
    if plan.seconds + OTHERS_SECONDS > 60:
        console.print(
            f"With these limits the demo takes up to {plan.seconds + OTHERS_SECONDS:.0f} s.",
            highlight=False,
            soft_wrap=True,
        )
    console.print()


def _client(url: str) -> AsyncOpenAI:
    # no retries of its own: every 429 is to be seen
    return AsyncOpenAI(base_url=url, api_key="demo", max_retries=0, timeout=120)


async def _warm_up(call: Call, url: str) -> None:
    async with _client(url) as client:
        await warm_up(call, client)


def _race(
    console: Console, tally: Tally, work: Sequence[Call], url: str, plan: Plan, seed: int
) -> None:
    random.seed(seed)  # the jitter of the back-off
    with watching(console, tally) as look:
        asyncio.run(_run(tally, work, url, plan, look))


async def _run(
    tally: Tally, work: Sequence[Call], url: str, plan: Plan, look: Callable[[], None]
) -> None:
    async def watch() -> None:
        while True:
            look()
            await asyncio.sleep(LOOK_EVERY)

    limiter = RateLimiter(
        rpm=plan.rpm, tpm=plan.tpm, concurrency=IN_FLIGHT, accounting=plan.accounting
    )
    watcher = asyncio.create_task(watch())
    try:
        async with _client(url) as client:
            await run_client(tally, work, client, limiter)
    finally:
        watcher.cancel()


def _close(console: Console, rows: Sequence[Row], plan: Plan, *, interrupted: bool) -> None:
    shown = [
        (
            row.tally.name,
            f"{row.tally.answered} of {row.tally.calls}",
            f"{row.seen.refused}",
            f"{row.tally.failed}",
            f"{row.tally.seconds:.1f}",
            f"{row.utilization:.0%}",
            f"{row.tally.longest_wait:.1f} s",
        )
        for row in rows
    ]
    if not rows:
        console.print("Interrupted before anything was sent.")
        return
    console.print()
    console.print(
        table(
            "interrupted: what was done until then" if interrupted else "",
            ("client", "answered", "429s", "failed", "seconds", "quota used", "longest wait"),
            shown,
            CAPTION.format(BELOW_ZERO if server_settles(plan.variant) else ""),
        )
    )
    for row in rows:
        for reason, count in row.tally.reasons.most_common(3):
            if reason != "429":
                console.print(
                    f"{row.tally.name}: {count} failed by {reason[:300]}",
                    highlight=False,
                    markup=False,
                )


def _document(
    rows: Sequence[Row], plan: Plan, calls: int, seed: int, *, interrupted: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {row.tally.name: row.as_json() for row in rows}
    document["settings"] = {
        "calls": calls,
        "tokens": plan.tokens,
        "variant": plan.variant,
        "accounting": plan.accounting,
        "rpm": plan.rpm,
        "tpm": plan.tpm,
        "refill_seconds": round(plan.seconds, 3),
        "in_flight": IN_FLIGHT,
        "seed": seed,
        "interrupted": interrupted,
    }
    return document
