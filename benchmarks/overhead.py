"""What does the limiter itself cost? Beside a pair of aiolimiter's `AsyncLimiter`, the
smallest thing that knows RPM and TPM.

Owns three measures, all as a ratio to the pair in the same process and run:
* uncontended: microseconds of acquire + settle, against the pair's two acquires (the
  pair cannot settle);
* contended: CPU per grant with W tasks parked, tokens binding, 1,000 grants a second;
  both park W tasks and grant for the same time;
* memory: peak bytes per parked waiter, the task included, by tracemalloc. Slices of the
  two alternate, the ratio is taken slice by slice, and the median is shown: the machine
  may be noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiolimiter import AsyncLimiter
from rich.console import Console
from rich.table import Table

from ratelimit import RateLimiter

GRANTS_PER_SECOND = 1_000
TOKENS = 1_000
Door = Callable[[], Awaitable[object]]


def _ours(grants_per_second: float, waiters: int) -> Door:
    limiter = RateLimiter(
        rpm=60 * grants_per_second + 60 * waiters, tpm=60 * grants_per_second * TOKENS, burst=1 / 60
    )

    async def call() -> None:
        (await limiter.acquire(tokens=TOKENS)).settle(tokens=TOKENS)

    return call


def _pair(grants_per_second: float, waiters: int) -> Door:
    requests = AsyncLimiter(grants_per_second + waiters, 1)
    tokens = AsyncLimiter(grants_per_second * TOKENS, 1)

    async def call() -> None:
        await requests.acquire(1)
        await tokens.acquire(TOKENS)

    return call


async def uncontended(slices: int, calls: int) -> dict[str, float]:
    """Microseconds of one call of each, and the median ratio."""
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
        "microseconds_uncontended": statistics.median(ours),
        "microseconds_uncontended_pair": statistics.median(pair),
        "ratio_uncontended": statistics.median(a / b for a, b in zip(ours, pair, strict=True)),
    }


async def _cpu_per_grant(door: Door, waiters: int, seconds: float) -> float:
    """Park ``waiters`` tasks at the door and return the CPU microseconds that one grant
    takes while all wait.
    """
    granted = 0

    async def wait() -> None:
        nonlocal granted
        await door()
        granted += 1

    for _ in range(GRANTS_PER_SECOND):  # spend the burst: from here on only time grants
        await door()
    tasks = [asyncio.create_task(wait()) for _ in range(waiters + int(GRANTS_PER_SECOND * seconds))]
    while granted == 0:  # noqa: ASYNC110  # a poll costs nothing in what is measured; all tasks have run up to their wait when the first is granted
        await asyncio.sleep(0.01)
    before, cpu = granted, time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    grants = granted - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return cpu / grants * 1e6


async def contended(waiters: int, seconds: float, repeats: int) -> dict[str, float]:
    """CPU microseconds per grant of each with so many parked, and the median ratio."""
    ours: list[float] = []
    pair: list[float] = []
    for _ in range(repeats):
        for make, into in ((_ours, ours), (_pair, pair)):
            gc.collect()
            into.append(
                await _cpu_per_grant(make(GRANTS_PER_SECOND, 2 * waiters), waiters, seconds)
            )
    name = f"{waiters // 1000}k" if waiters >= 1000 else str(waiters)
    return {
        f"cpu_microseconds_{name}": statistics.median(ours),
        f"cpu_microseconds_{name}_pair": statistics.median(pair),
        f"ratio_contended_{name}": statistics.median(
            a / b for a, b in zip(ours, pair, strict=True)
        ),
    }


async def _bytes_per_waiter(door: Door, waiters: int) -> float:
    for _ in range(GRANTS_PER_SECOND):
        await door()
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(door()) for _ in range(waiters)]
    for _ in range(3):
        await asyncio.sleep(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return peak / waiters


async def memory(waiters: int) -> dict[str, float]:
    """Peak bytes per parked waiter of each."""
    return {
        "bytes_per_waiter": await _bytes_per_waiter(_ours(GRANTS_PER_SECOND, waiters), waiters),
        "bytes_per_waiter_pair": await _bytes_per_waiter(
            _pair(GRANTS_PER_SECOND, waiters), waiters
        ),
    }


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter slices, for a first look"
    )
    arguments = parser.parse_args()
    console = Console()
    slices, repeats, seconds = (10, 1, 0.5) if arguments.quick else (60, 5, 1.0)
    figures: dict[str, float] = {}
    with console.status("uncontended") as status:
        figures |= asyncio.run(uncontended(slices, 3_000))
        for waiters in (100, 10_000, 100_000):
            status.update(f"{waiters:,} waiters")
            figures |= asyncio.run(contended(waiters, seconds, repeats))
        status.update("memory")
        figures |= asyncio.run(memory(10_000))
    table = Table(
        "measure", "ratelimit", "aiolimiter pair", "ratio", title="Cost of the limiter itself"
    )
    row = "{:,.2f}".format
    table.add_row(
        "acquire + settle, us",
        row(figures["microseconds_uncontended"]),
        row(figures["microseconds_uncontended_pair"]),
        row(figures["ratio_uncontended"]),
    )
    for name in ("100", "10k", "100k"):
        table.add_row(
            f"CPU per grant, {name} parked, us",
            row(figures[f"cpu_microseconds_{name}"]),
            row(figures[f"cpu_microseconds_{name}_pair"]),
            row(figures[f"ratio_contended_{name}"]),
        )
    per, per_pair = figures["bytes_per_waiter"], figures["bytes_per_waiter_pair"]
    table.add_row("peak bytes per waiter", row(per), row(per_pair), row(per / per_pair))
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
