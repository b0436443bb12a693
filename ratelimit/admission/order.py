"""The order of a heap of waiters, and what comes before it.

Owns how a heap is read in order. Must never change one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

NESTED_FIRST: Final = 1e18
"""Seconds by which a nested call ranks before the others, once a level of nesting.

Its parent has waited for its turn already, and holds a slot until the nested call ends.
"""


class Queued(Protocol):
    """What a heap holds: it may have left since."""

    queued: bool


W = TypeVar("W", bound=Queued)


def first_of(entries: Sequence[tuple[float, int, W]], count: int) -> Iterator[W]:
    """Yield the first of a heap that have not left, in order, at most ``count``."""
    return islice(_in_order(entries), count)


def _in_order(entries: Sequence[tuple[float, int, W]]) -> Iterator[W]:
    # In a heap each entry stands before its two children: the first ones are found in
    # order without a look at the rest.
    border = [(entries[0], 0)] if entries else []
    while border:
        (_, _, one), place = heapq.heappop(border)
        if one.queued:
            yield one
        for child in (2 * place + 1, 2 * place + 2):
            if child < len(entries):
                heapq.heappush(border, (entries[child], child))
