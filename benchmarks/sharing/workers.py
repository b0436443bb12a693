"""Processes that work at the same time, and what is said of their admissions.

Owns their start, their common first moment and their end. Must never know a limiter.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

SPAWN: Final = multiprocessing.get_context("spawn")
"""Each process imports and makes all it needs, like a program that is started."""
LEAD: Final = 1.5
"""Seconds from the last worker's readiness to the first moment of the work: what was
spent to become ready has refilled by then.
"""

Start = Callable[[], float]
"""Says that a worker is ready; returns when the work begins, of `time.monotonic`."""


def together(work: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """Run ``work(start, *arguments)`` in that many processes; return the results."""
    pipes, processes = [], []
    for _ in range(count):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_work, args=(theirs, work, arguments), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    moment = time.monotonic() + LEAD
    for pipe in pipes:
        pipe.send(moment)
    results = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return results


def _work(pipe: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    def start() -> float:
        pipe.send(None)
        moment: float = pipe.recv()
        return moment

    pipe.send(work(start, *arguments))


def excess(times: Iterable[float], burst: float, rate: float) -> int:
    """Return by how many calls any window of time exceeds burst + rate * window.

    :param rate: calls a second.
    """
    most, lowest = 0.0, float("inf")
    for place, moment in enumerate(sorted(times)):
        lowest = min(lowest, place - rate * moment)
        most = max(most, place + 1 - rate * moment - lowest - burst)
    return int(most + 1e-6)


def fairness(counts: Sequence[float]) -> float:
    """Return Jain's index: 1 where all got the same, 1 / n where one got all."""
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
