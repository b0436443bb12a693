"""`ratelimit demo`: three clients, each against a fresh server that enforces limits.

Owns the order of the race and its closing table. Must never know how a client behaves
(`clients.py`) or which limits are fair (`plan.py`).
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI
from rich.console import Console

from ratelimit import RateLimiter
from ratelimit.commands import CommandError
from ratelimit.commands.calls import Call, read_calls, with_answers
from ratelimit.commands.demo.backend import Backend, Seen, backend, server_settles
from ratelimit.commands.demo.clients import (
    CLIENTS,
    IN_FLIGHT,
    ClientFigures,
    run_client,
    warm_up,
)
from ratelimit.commands.demo.plan import LONGEST_RACE, Plan, make_plan
from ratelimit.commands.demo.workload import make_calls
from ratelimit.commands.figures import check_writable, write_figures
from ratelimit.commands.show import Output, duration, say, table, watching

LOOK_EVERY: Final = 0.1
"""Seconds between two looks at a client's figures."""

SECONDS_BESIDES: Final = 38.0
"""For the two other clients, starting up and the last answers, at most."""

SHOWN: Final = 5
"""Calls too large, and reasons of failures, that are spelled out."""

CAPTION: Final = (
    "429s: as the server counts them. Longest wait: from handing a call over to its last sending."
    " Quota used: tokens the server took / (full bucket + refill during the run){}."
)
BELOW_ZERO: Final = (
    "; above 100 % where answers are debited as they end and leave the bucket below zero"
)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """The arguments of the command; see `ratelimit demo --help`."""

    calls: Path | None
    limit: int
    rpm: float | None
    tpm: float | None
    variant: str
    seed: int
    json_path: Path | None


@dataclass(frozen=True, slots=True)
class Row:
    """One client's figures: what it counted and what its server saw."""

    client: ClientFigures
    seen: Seen
    utilization: float
    """Tokens that the server took, of what a full bucket and its refill could give."""

    @classmethod
    def of(cls, client: ClientFigures, seen: Seen, plan: Plan) -> Row:
        """Put the two together."""
        return cls(client, seen, seen.tokens / (plan.tpm * (1 + client.seconds / 60)))

    def as_json(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return {
            "answered": self.client.answered,
            "rejected": self.seen.refused,
            "failed": self.client.failed,
            "seconds": round(self.client.seconds, 3),
            "token_utilization": round(self.utilization, 4),
            "longest_wait": round(self.client.longest_wait, 3),
        }


def demo(settings: DemoSettings) -> int:
    """Run the race and show it.

    Returns 0 when the limiter saw no 429 and got every answer, 1 when not, 130 when
    interrupted.
    """
    console = Output()
    check_writable(settings.json_path, settings.calls)
    rows: list[Row] = []
    interrupted = False
    with backend() as server:  # it gets ready while the calls are read
        work = _workload(console, settings)
        plan = make_plan(work, settings.variant, settings.rpm, settings.tpm)
        _refuse_long(plan)
        _introduce(console, work, plan)
        try:
            asyncio.run(_warm_up(work[0], server.start(rpm=None, tpm=None)))
            server.stop()
            for name in CLIENTS:
                row, interrupted = _race(console, server, name, work, plan, settings.seed)
                rows.append(row)
                if interrupted:
                    break
        except KeyboardInterrupt:  # between two races
            interrupted = True

    _show(console, rows, plan, interrupted=interrupted)
    write_figures(
        settings.json_path,
        _document(rows, plan, len(work), settings.seed, interrupted=interrupted),
    )
    if interrupted:
        return 130

    limited = rows[-1]
    return 0 if limited.seen.refused == 0 and limited.client.answered == len(work) else 1


def _workload(console: Console, settings: DemoSettings) -> list[Call]:
    if settings.calls is None:
        return with_answers(make_calls(settings.limit, settings.seed), settings.seed)

    found: list[Call] = []
    skipped = 0
    for call in read_calls(settings.calls):
        if call.is_chat:
            found.append(call)
        else:
            skipped += 1
        if len(found) == settings.limit:
            break

    if not found:
        what = "holds no requests"
        if skipped:
            what = (
                f"holds {skipped} requests, none of them for the chat endpoint, which the demo"
                " sends to"
            )
        raise CommandError(f"{settings.calls} {what}")

    if skipped:
        console.print(f"{skipped} requests for other endpoints than chat are left out.")
    return with_answers(found, settings.seed)


def _refuse_long(plan: Plan) -> None:
    """Refuse limits under which the demo would take longer than anyone waits."""
    if plan.seconds > LONGEST_RACE:
        raise CommandError(
            f"with {plan.rpm:,.12g} requests and {plan.tpm:,.12g} tokens per minute the demo would"
            f" take {duration(plan.seconds)}; raise --rpm or --tpm, leave them out, or send fewer"
            " calls with --limit"
        )


def _introduce(console: Console, work: Sequence[Call], plan: Plan) -> None:
    say(
        console,
        f"{len(work)} chat calls, {plan.tokens:,} tokens; the server allows"
        f" {plan.rpm:,.12g} requests and {plan.tpm:,.12g} tokens per minute.",
    )
    say(
        console,
        f"What exceeds its full buckets takes {plan.seconds:.0f} s to refill. Each client may have"
        f" {IN_FLIGHT} calls in flight.",
    )
    say(
        console,
        f"Variant {plan.variant} of the server, in a process of its own; the limiter's accounting"
        f" is {plan.accounting!r}.",
    )
    for call in plan.hopeless[:SHOWN]:
        say(console, f"Dearer than the limit of {plan.tpm:,.12g}, so always refused: {call}.")
    if len(plan.hopeless) > SHOWN:
        say(console, f"... and {len(plan.hopeless) - SHOWN} more.")
    if plan.seconds + SECONDS_BESIDES > 60:
        seconds = plan.seconds + SECONDS_BESIDES
        say(console, f"With these limits the demo takes up to {seconds:.0f} s.")
    console.print()


def _client(url: str) -> AsyncOpenAI:
    # no retries of its own: every 429 is to be seen
    return AsyncOpenAI(base_url=url, api_key="demo", max_retries=0, timeout=120)


async def _warm_up(call: Call, url: str) -> None:
    async with _client(url) as client:
        await warm_up(call, client)


def _race(
    console: Console, server: Backend, name: str, work: Sequence[Call], plan: Plan, seed: int
) -> tuple[Row, bool]:
    """Let one client send all calls; return its figures, and whether Ctrl-C came."""
    figures = ClientFigures(name, len(work))
    url = server.start(variant=plan.variant, rpm=plan.rpm, tpm=plan.tpm, seed=seed)
    random.seed(seed)  # the jitter of the back-off
    interrupted = False
    try:
        with watching(console, figures) as look:
            asyncio.run(_send(figures, work, url, plan, look))
    except KeyboardInterrupt:
        interrupted = True
        # what is left is to ask the server and to show it: a moment
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _deferred() as signals:  # a race that was run is shown
        row = Row.of(figures, server.stop(), plan)
    return row, interrupted or bool(signals)


@contextmanager
def _deferred() -> Iterator[list[int]]:
    """Put Ctrl-C off until the block has ended; yield the list of what has come."""
    signals: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)


async def _send(
    figures: ClientFigures, work: Sequence[Call], url: str, plan: Plan, look: Callable[[], None]
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
            await run_client(figures, work, client, limiter)
    finally:
        watcher.cancel()


def _show(console: Console, rows: Sequence[Row], plan: Plan, *, interrupted: bool) -> None:
    if not rows:
        console.print("Interrupted before anything was sent.")
        return

    shown = [
        (
            row.client.name,
            f"{row.client.answered} of {row.client.calls}",
            f"{row.seen.refused}",
            f"{row.client.failed}",
            f"{row.client.seconds:.1f}",
            f"{row.utilization:.0%}",
            f"{row.client.longest_wait:.1f} s",
        )
        for row in rows
    ]
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
        reasons = [entry for entry in row.client.reasons.most_common() if entry[0] != "429"]
        for reason, count in reasons[:SHOWN]:
            say(console, f"{row.client.name}: {count} failed by {reason[:300]}")
        if len(reasons) > SHOWN:
            rest = sum(count for _, count in reasons[SHOWN:])
            say(console, f"{row.client.name}: {rest} failed for other reasons")


def _document(
    rows: Sequence[Row], plan: Plan, calls: int, seed: int, *, interrupted: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {row.client.name: row.as_json() for row in rows}
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
