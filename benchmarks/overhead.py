"""Measure what the limiter itself costs, beside a pair of aiolimiter's `AsyncLimiter`s.

The pair is the smallest thing that holds RPM and TPM. Slices of the two alternate, the
ratio is taken slice by slice, and the median is shown: the machine may be noisy.

Owns four measures:

* uncontended: microseconds of acquire and settle, against the pair's two acquires (the
  pair cannot settle);
* contended: CPU per grant with tasks parked, tokens binding, 1,000 grants a second;
* memory: peak bytes per parked waiter, the task included, by tracemalloc;
* mixed: CPU per waiter that joins the queue with a timeout, priorities mixed, against
  waiters of one priority.

Must never reach into the limiter: it is measured through its public face.

    python benchmarks/overhead.py --json overhead.json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from aiolimiter import AsyncLimiter
from rich.console import Console
from rich.table import Table

from ratelimit import RateLimiter

GRANTS_PER_SECOND: Final = 1_000
"""Pace of the contended measures."""
TOKENS: Final = 1_000
"""Tokens of each call."""
PRIORITIES: Final = ("interactive", "normal", "batch")
TIMEOUT: Final = 1e6
"""Seconds that a waiter of the mixed measure would wait: longer than any queue here."""
PATIENCE: Final = 10.0
"""CPU seconds after which waiters stop joining; the row says where it was cut."""
STRIDE: Final = 500
"""Waiters that join between two looks at the CPU clock."""

Acquire = Callable[[], Awaitable[object]]
Figures = dict[str, float]


def _ours(grants_per_second: float, waiters: int) -> Acquire:
    limiter = RateLimiter(
        rpm=60 * grants_per_second + 60 * waiters,
        tpm=60 * grants_per_second * TOKENS,
        burst_share=1 / 60,
    )

    async def call() -> None:
        (await limiter.acquire(tokens=TOKENS)).settle(tokens=TOKENS)

    return call


def _pair(grants_per_second: float, waiters: int) -> Acquire:
    requests = AsyncLimiter(grants_per_second + waiters, 1)
    tokens = AsyncLimiter(grants_per_second * TOKENS, 1)

    async def call() -> None:
        await requests.acquire(1)
        await tokens.acquire(TOKENS)

    return call


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def _name(waiters: int) -> str:
    return f"{waiters // 1000}k" if waiters >= 1000 else str(waiters)


async def uncontended(slices: int, calls: int) -> Figures:
    """Measure microseconds of one call of each, and the median ratio."""
    limiter = RateLimiter(rpm=1e9, tpm=1e12)
    requests, tokens = AsyncLimiter(1e9, 60), AsyncLimiter(1e12, 60)
    ours: list[float] = []
    pair: list[float] = []
    for _ in range(slices):
        start = time.perf_counter()
        for _ in range(calls):
            lease = await limiter.acquire(tokens=TOKENS)
            lease.settle(tokens=900)

        middle = time.perf_counter()
        for _ in range(calls):
            await requests.acquire(1)
            await tokens.acquire(TOKENS)

        ours.append((middle - start) / calls * 1e6)
        pair.append((time.perf_counter() - middle) / calls * 1e6)
    return {
        "microseconds_uncontended": median(ours),
        "microseconds_uncontended_pair": median(pair),
        "ratio_uncontended": _ratio(ours, pair),
    }


async def _cpu_per_grant(acquire: Acquire, waiters: int, seconds: float) -> float:
    """Park tasks and measure the CPU microseconds that one grant takes meanwhile."""
    granted = 0

    async def wait() -> None:
        nonlocal granted
        await acquire()
        granted += 1

    for _ in range(GRANTS_PER_SECOND):  # spend the burst: from here on only time grants
        await acquire()
    tasks = [asyncio.create_task(wait()) for _ in range(waiters + int(GRANTS_PER_SECOND * seconds))]
    # all tasks have run up to their wait when the first is granted
    while granted == 0:  # noqa: ASYNC110  # a poll costs nothing in what is measured
        await asyncio.sleep(0.01)
    before, cpu = granted, time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    grants = granted - before
    await _cancel(tasks)
    return cpu / grants * 1e6


async def _cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def contended(waiters: int, seconds: float, repeats: int) -> Figures:
    """Measure CPU microseconds per grant of each with tasks parked, and the ratio."""
    ours: list[float] = []
    pair: list[float] = []
    for _ in range(repeats):
        for make, into in ((_ours, ours), (_pair, pair)):
            gc.collect()
            acquire = make(GRANTS_PER_SECOND, 2 * waiters)
            into.append(await _cpu_per_grant(acquire, waiters, seconds))
    name = _name(waiters)
    return {
        f"cpu_microseconds_{name}": median(ours),
        f"cpu_microseconds_{name}_pair": median(pair),
        f"ratio_contended_{name}": _ratio(ours, pair),
    }


async def _bytes_per_waiter(acquire: Acquire, waiters: int) -> float:
    for _ in range(GRANTS_PER_SECOND):
        await acquire()
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(acquire()) for _ in range(waiters)]
    for _ in range(3):
        await asyncio.sleep(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return peak / waiters


async def memory(waiters: int) -> Figures:
    """Measure the peak bytes per parked waiter of each."""
    ours = await _bytes_per_waiter(_ours(GRANTS_PER_SECOND, waiters), waiters)
    pair = await _bytes_per_waiter(_pair(GRANTS_PER_SECOND, waiters), waiters)
    return {"bytes_per_waiter": ours, "bytes_per_waiter_pair": pair}


async def _join(priorities: Sequence[str], patience: float) -> tuple[float, int]:
    """Let a waiter of each priority join one queue.

    Return the CPU microseconds of one, and how many had joined when `patience` CPU
    seconds were over.
    """
    limiter = RateLimiter(rpm=60, tpm=60 * TOKENS, burst_share=1 / 60)
    (await limiter.acquire(tokens=TOKENS)).settle(tokens=TOKENS)

    async def wait(priority: str) -> None:
        await limiter.acquire(tokens=TOKENS, priority=priority, timeout=TIMEOUT)

    gc.collect()
    tasks: list[asyncio.Future[None]] = []
    start = spent = time.process_time()
    while len(tasks) < len(priorities) and spent - start < patience:
        joining = priorities[len(tasks) : len(tasks) + STRIDE]
        tasks.extend(asyncio.create_task(wait(priority)) for priority in joining)
        await asyncio.sleep(0)
        spent = time.process_time()
    await _cancel(tasks)
    return (spent - start) / len(tasks) * 1e6, len(tasks)


async def mixed(waiters: int, repeats: int, patience: float = PATIENCE) -> Figures:
    """Measure CPU microseconds per waiter that joins, of mixed and of equal priority.

    As many join of both; `joined` is less than `waiters` where the measure was cut.
    """
    chosen = random.Random("mixed").choices(PRIORITIES, k=waiters)
    of_mixed: list[float] = []
    of_equal: list[float] = []
    joined = waiters
    for _ in range(repeats):
        spent, joined = await _join(chosen, patience)
        of_mixed.append(spent)
        of_equal.append((await _join(["normal"] * joined, patience))[0])
        if joined < waiters:
            break

    name = _name(waiters)
    return {
        f"microseconds_mixed_{name}": median(of_mixed),
        f"microseconds_equal_{name}": median(of_equal),
        f"ratio_mixed_{name}": _ratio(of_mixed, of_equal),
        f"joined_mixed_{name}": joined,
    }


def _measure(console: Console, *, quick: bool) -> Figures:
    slices, repeats, seconds = (10, 1, 0.5) if quick else (60, 5, 1.0)
    figures: Figures = {}
    with console.status("uncontended") as status:
        figures |= asyncio.run(uncontended(slices, 3_000))
        for waiters in (100, 10_000, 100_000):
            status.update(f"{waiters:,} waiters")
            figures |= asyncio.run(contended(waiters, seconds, repeats))

        status.update("memory")
        figures |= asyncio.run(memory(10_000))
        for waiters in (10_000, 100_000):
            status.update(f"{waiters:,} waiters of mixed priorities")
            figures |= asyncio.run(mixed(waiters, repeats))

    figures["ratio_mixed"] = max(figures["ratio_mixed_10k"], figures["ratio_mixed_100k"])
    return figures


def _show(console: Console, figures: Figures) -> None:
    row = "{:,.2f}".format
    table = Table("measure", "ratelimit", "beside", "ratio", title="Cost of the limiter itself")
    pairs = [("acquire + settle, us", "microseconds_uncontended", "ratio_uncontended")]
    pairs += [
        (f"CPU per grant, {name} parked, us", f"cpu_microseconds_{name}", f"ratio_contended_{name}")
        for name in ("100", "10k", "100k")
    ]
    for label, ours, ratio in pairs:
        table.add_row(label, row(figures[ours]), row(figures[f"{ours}_pair"]), row(figures[ratio]))

    ours_bytes, pair_bytes = figures["bytes_per_waiter"], figures["bytes_per_waiter_pair"]
    table.add_row(
        "peak bytes per waiter", row(ours_bytes), row(pair_bytes), row(ours_bytes / pair_bytes)
    )
    for name, waiters in (("10k", 10_000), ("100k", 100_000)):
        joined = int(figures[f"joined_mixed_{name}"])
        cut = "" if joined == waiters else f" (cut at {joined:,} after {PATIENCE:.0f} s)"
        table.add_row(
            f"join of {name} mixed, beside equal, us{cut}",
            row(figures[f"microseconds_mixed_{name}"]),
            row(figures[f"microseconds_equal_{name}"]),
            row(figures[f"ratio_mixed_{name}"]),
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter slices, for a first look"
    )
    options = parser.parse_args(arguments)
    console = Console()
    figures = _measure(console, quick=options.quick)
    _show(console, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
