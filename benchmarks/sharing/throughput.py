"""What a store costs where no limit binds.

Owns the loop of admissions and the ratio of two stores. Must never know a server.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any, Final

from benchmarks.sharing.workers import Start, together
from ratelimit import RateLimiter

PROCESSES: Final = (1, 4, 8)
SECONDS: Final = 3.0
"""Seconds of each measure of processes."""
SLICES: Final = 21
"""Slices of the two stores, in turns; the median of their ratios is shown."""
CALLS: Final = 1_000
"""Calls of a slice."""
TOKENS: Final = 1_000


def throughput(store: str) -> dict[str, Any]:
    """Measure admissions a second on one hot family, and the ratio to memory."""
    figures: dict[str, Any] = {}
    for count in PROCESSES:
        admitted = together(admit, count, f"{store}-{count}", SECONDS)
        figures[f"admissions_per_second_{count}"] = sum(admitted) / SECONDS
    return figures | asyncio.run(beside_memory(f"{store}-ratio"))


def admit(start: Start, store: str, seconds: float) -> int:
    """Admit and settle in one process; return how many calls that were."""
    return asyncio.run(_admit(start, store, seconds))


async def _admit(start: Start, store: str, seconds: float) -> int:
    limiter = RateLimiter(rpm=1e9, tpm=1e12, store=store)
    begin, admitted = await asyncio.to_thread(start), 0
    await asyncio.sleep(begin - time.monotonic())
    while time.monotonic() < begin + seconds:
        (await limiter.acquire(tokens=TOKENS)).settle(tokens=900)
        admitted += 1
    return admitted


async def beside_memory(store: str) -> dict[str, float]:
    """Measure acquire and settle over both stores in turns, in one process."""
    shared = RateLimiter(rpm=1e9, tpm=1e12, store=store)
    alone = RateLimiter(rpm=1e9, tpm=1e12)
    ours, memory = [], []
    for _ in range(SLICES):
        memory.append(await _microseconds(alone))
        ours.append(await _microseconds(shared))
    return {
        "microseconds_shared": median(ours),
        "microseconds_memory": median(memory),
        "ratio_to_memory": median(a / b for a, b in zip(ours, memory, strict=True)),
    }


async def _microseconds(limiter: RateLimiter) -> float:
    begin = time.perf_counter()
    for _ in range(CALLS):
        (await limiter.acquire(tokens=TOKENS)).settle(tokens=900)
    return (time.perf_counter() - begin) / CALLS * 1e6
