"""What a store costs where no limit binds.

Owns the loops of admissions and the ratios to other ways. Must never know a server.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any, Final

import redis

from benchmarks.sharing.workers import Start, together
from ratelimit import RateLimiter

PROCESSES: Final = (1, 4, 8)
SECONDS: Final = 2.0
"""Seconds of each measure of processes."""
ROUNDS: Final = 3
"""Of each measure, in turns with what it is compared with; the median counts."""
QUEUED: Final = 64
"""Calls at the same time in each process, where several go by one round trip."""
SLICES: Final = 21
"""Slices of the two stores, in turns; the median of their ratios is shown."""
CALLS: Final = 1_000
"""Calls of a slice."""
TOKENS: Final = 1_000

BARE: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local requests = tonumber(redis.call('HGET', KEYS[1], 'requests') or 0)
local tokens = tonumber(redis.call('HGET', KEYS[1], 'tokens') or 0)
if requests + ARGV[1] * 6e-8 > now + 60 or tokens + ARGV[2] * 6e-11 > now + 60 then
  return 0
end
redis.call('HSET', KEYS[1], 'requests', math.max(requests, now) + ARGV[1] * 6e-8,
  'tokens', math.max(tokens, now) + ARGV[2] * 6e-11)
redis.call('PEXPIRE', KEYS[1], 60000)
return 1
"""
"""Two buckets and nothing else: no settlement, no order, no other process's figures."""


def throughput(store: str) -> dict[str, Any]:
    """Measure admissions a second on one hot family, and the ratio to memory."""
    figures: dict[str, Any] = {}
    for count in PROCESSES:
        admitted = together(admit, count, f"{store}-{count}", SECONDS)
        figures[f"admissions_per_second_{count}"] = sum(admitted) / SECONDS
    return figures | asyncio.run(beside_memory(f"{store}-ratio"))


def beside_bare(url: str) -> dict[str, Any]:
    """Measure admissions a second over a server, beside a script of two buckets."""
    figures: dict[str, Any] = {}
    for count in PROCESSES:
        bare, ours, queued = [], [], []
        for turn in range(ROUNDS):
            store = f"{url}?quota={count}-{turn}"
            bare.append(sum(together(evaluate, count, url, SECONDS)) / SECONDS)
            ours.append(sum(together(admit, count, store, SECONDS)) / SECONDS)
            queued.append(sum(together(admit, count, f"{store}q", SECONDS, QUEUED)) / SECONDS)
        figures[f"bare_scripts_per_second_{count}"] = median(bare)
        figures[f"admissions_per_second_{count}"] = median(ours)
        figures[f"queued_admissions_per_second_{count}"] = median(queued)
        pairs = list(zip(ours, queued, bare, strict=True))
        figures[f"ratio_to_bare_script_{count}"] = median(one / base for one, _, base in pairs)
        figures[f"queued_ratio_to_bare_script_{count}"] = median(q / base for _, q, base in pairs)
    return figures


def evaluate(start: Start, url: str, seconds: float) -> int:
    """Evaluate the bare script again and again in one process; return how often."""
    client = redis.Redis.from_url(url)
    digest = client.script_load(BARE)
    begin, count = start(), 0
    time.sleep(max(begin - time.monotonic(), 0.0))
    while time.monotonic() < begin + seconds:
        client.evalsha(digest, 1, "bare", "1", str(TOKENS))
        count += 1
    return count


def admit(start: Start, store: str, seconds: float, tasks: int = 1) -> int:
    """Admit and settle in one process; return how many calls that were.

    :param tasks: calls at the same time.
    """
    return asyncio.run(_admit(start, store, seconds, tasks))


async def _admit(start: Start, store: str, seconds: float, tasks: int) -> int:
    limiter = RateLimiter(rpm=1e9, tpm=1e12, store=store)
    begin, admitted = await asyncio.to_thread(start), 0
    await asyncio.sleep(begin - time.monotonic())

    async def calls() -> None:
        nonlocal admitted
        while time.monotonic() < begin + seconds:
            (await limiter.acquire(tokens=TOKENS)).settle(tokens=900)
            admitted += 1

    await asyncio.gather(*(calls() for _ in range(tasks)))
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
