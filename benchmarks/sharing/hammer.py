"""Eight programs that want more than one quota, before a server that enforces it.

Owns the rates, the server and the count of what it saw. Must never look into a limiter:
the server's ledger is the judge.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import openai

from benchmarks.sharing.workers import Start, excess, fairness, percentile, together
from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI

RATE: Final = 40.0
"""Requests a second: what two busy cores carry beside eight clients."""
TOKENS: Final = 3_000_000
"""Tokens a minute, which do not bind."""
SLACK: Final = 0.25
"""Seconds in which a request reaches the server, here."""
TASKS: Final = 4
"""Calls at the same time in each process."""
LATENCY: Final = 0.05
"""Seconds of an answer."""

CALM: Final = 25.0
"""Calls a second of each process where nobody has to wait."""
CALM_SECONDS: Final = 5.0

BODY: Final = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "max_tokens": 30,
}


def hammer(store: str, processes: int, seconds: float) -> dict[str, Any]:
    """Let the processes ask as fast as they may; count what the server saw."""
    server = FakeOpenAI(rpm=None, rps=RATE, tpm=TOKENS, latency=LATENCY, output=20)
    with server.serve() as url:
        results = together(ask, processes, url, store, seconds)
    begin = min(began for _, began, _ in results)
    answered = [count for count, _, _ in results]
    entries = [entry for entry in server.ledger if 0 <= entry.time - begin <= seconds]
    admitted = sum(entry.admitted for entry in entries)
    return {
        "seconds": seconds,
        "processes": processes,
        "requests": len(entries),
        "rejected": len(server.ledger.refused),
        "over_admitted": excess((entry.time for entry in server.ledger), RATE, RATE),
        "utilisation": admitted / (RATE + RATE * seconds),
        "jain_fairness": fairness(answered),
        "answered_by_process": answered,
        "round_trips_per_admission": sum(trips for _, _, trips in results) / max(admitted, 1),
    }


def ask(start: Start, url: str, store: str, seconds: float) -> tuple[int, float, int]:
    """Ask from one process, `TASKS` calls at a time.

    Return how many were answered, when the first of them was made, and how often the
    shared store was asked.
    """
    return asyncio.run(_ask(start, url, store, seconds))


async def _ask(start: Start, url: str, store: str, seconds: float) -> tuple[int, float, int]:
    limiter = RateLimiter(rps=RATE, tpm=TOKENS, arrival_slack=SLACK, store=store)
    client = limiter.wrap(openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0))
    # The SDK loads most of itself with the first call, which takes seconds of the CPU.
    await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
    answered = 0

    async def calls() -> None:
        nonlocal answered
        while True:
            try:
                await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
                answered += 1
            except openai.RateLimitError:
                pass  # the server's ledger counts it

    begin = await asyncio.to_thread(start)
    await asyncio.sleep(begin - time.monotonic())
    shared = limiter._engine.families()["*"].admission.store  # noqa: SLF001  # no user asks
    before = shared.round_trips
    tasks = [asyncio.create_task(calls()) for _ in range(TASKS)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    trips = shared.round_trips - before
    await client.close()
    return answered, begin, trips


def latency(store: str, processes: int) -> dict[str, float]:
    """Return what admission takes where capacity is there, with all at work."""
    times = [one for times in together(calm, processes, store, processes) for one in times]
    return {"added_latency_p99_ms": percentile(times, 0.99) * 1e3}


def calm(start: Start, store: str, processes: int) -> list[float]:
    """Make calls at half the quota's rate; return the seconds of each admission."""

    async def main() -> list[float]:
        limiter = RateLimiter(rps=2 * CALM * processes, store=store, arrival_slack=0)
        times = []
        moment = await asyncio.to_thread(start)
        end = moment + CALM_SECONDS
        while moment < end:
            await asyncio.sleep(moment - time.monotonic())
            begin = time.perf_counter()
            lease = await limiter.acquire(tokens=1)
            times.append(time.perf_counter() - begin)
            lease.settle(tokens=1)
            moment += 1 / CALM
        return times

    return asyncio.run(main())
