"""Measure whether each tenant gets its share of the limits.

    python benchmarks/fairness.py [--json out.json]

Owns three scenes in virtual time, with the limiter alone: nothing but its order decides
who goes. Must never look at how that order is made.

* *Both greedy*: two tenants with shares 3:1, each with more calls than the limit lets
  go, of sizes and estimates of their own. `share` is the part of all tokens used that
  the first tenant got, of its 0.75; 1 is exact.
* *One idle*: the same two, and only the second one calls. `of_the_limit` is what it
  used of what the bucket and its refill let go.
* *A newcomer*: a tenant with a share of 1 comes to a long queue of one with a share of
  3, again and again. `of_the_wait` is the longest of its waits, of the wait that its
  share predicts: its own tokens at its quarter of the rate, and one call of the other
  tenant, which is before it when it comes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from typing import Final

import anyio

from ratelimit import RateLimiter
from ratelimit.testing import VirtualClock

TPM: Final = 60_000
SHARES: Final = {"a": 3, "b": 1}
MINUTES: Final = 30
WORKERS: Final = 20
SEED: Final = 1


class Scene:
    """A limiter in virtual time, and what each tenant has used of it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.limiter = RateLimiter(tpm=TPM, rpm=100_000, shares=SHARES, clock=self.clock)
        self.used: Counter[str] = Counter()
        self.random = random.Random(SEED)  # sizes of calls

    async def call(self, tenant: str, estimated: int, used: int, seconds: float = 0.0) -> None:
        """Make one call that takes some seconds and settle it by what it used."""
        async with self.limiter.reserve(tokens=estimated, tenant=tenant) as lease:
            await anyio.sleep(seconds)
            lease.settle(tokens=used)
        self.used[tenant] += used

    async def greedy(self, tenant: str, sizes: tuple[int, int], excess: float) -> None:
        """Call again and again, with estimates too high by a factor."""
        while True:
            used = self.random.randint(*sizes)
            seconds = self.random.uniform(0.5, 5)
            await self.call(tenant, round(used * excess), used, seconds)

    async def until(self, seconds: float, *tasks: tuple[str, tuple[int, int], float]) -> None:
        """Let workers call until then."""
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:
                for task in tasks:
                    for _ in range(WORKERS):
                        group.start_soon(self.greedy, *task)


def both_greedy() -> dict[str, float]:
    """Return what both tenants used, of their parts."""
    scene = Scene()

    async def main() -> None:
        tasks = ("a", (50, 400), 1.0), ("b", (200, 2_000), 1.5)
        await scene.until(60, *tasks)  # a full bucket goes to whoever asks
        scene.used.clear()
        await scene.until(60 * MINUTES, *tasks)

    scene.clock.run(main)
    total = scene.used.total()
    part = SHARES["a"] / sum(SHARES.values())
    return {
        "tokens_a": scene.used["a"],
        "tokens_b": scene.used["b"],
        "share": _round(scene.used["a"] / total / part),
        "ratio": _round(scene.used["a"] / scene.used["b"]),
    }


def one_idle() -> dict[str, float]:
    """Return what the tenant that calls used, of the whole limit."""
    scene = Scene()

    async def main() -> None:
        await scene.until(60 * MINUTES, ("b", (200, 2_000), 1.0))

    scene.clock.run(main)
    return {
        "tokens_b": scene.used["b"],
        "of_the_limit": _round(scene.used["b"] / (TPM * (MINUTES + 1))),
    }


def a_newcomer() -> dict[str, float]:
    """Return the longest wait of a newcomer, of what its share predicts."""
    scene, waits, parts = Scene(), list[float](), list[float]()
    largest, rate = 2_000, TPM / 60

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(scene.until, 60 * MINUTES, ("a", (200, largest), 1.0))
            await anyio.sleep(120)
            for _ in range(40):
                tokens = scene.random.randint(100, largest)
                begun = scene.clock.now()
                await scene.call("b", tokens, tokens)
                waits.append(scene.clock.now() - begun)
                predicted = tokens / rate * sum(SHARES.values()) / SHARES["b"] + largest / rate
                parts.append(waits[-1] / predicted)
                await anyio.sleep(scene.random.uniform(5, 30))
            group.cancel_scope.cancel()

    scene.clock.run(main)
    return {"longest_wait_seconds": _round(max(waits)), "of_the_wait": _round(max(parts))}


def _round(value: float) -> float:
    return round(value, 4)


def main() -> None:
    """Play all scenes, print their figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there")
    chosen = parser.parse_args()
    figures = {
        "both_greedy": both_greedy(),
        "one_idle": one_idle(),
        "a_newcomer": a_newcomer(),
    }
    for name, row in figures.items():
        print(f"{name.replace('_', ' '):12}", *(f"{key}={value:,}" for key, value in row.items()))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
