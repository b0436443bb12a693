"""Limits as processes that share a quota write them down for each other.

Owns that text. Must never judge what it says.
"""

from __future__ import annotations

import json
from functools import lru_cache

from ratelimit.limits import Limit, Limits


def text_of(limits: Limits) -> bytes:
    """Return limits as a quota keeps them."""
    rows = [(one.name, one.amount, one.per, one.burst) for one in limits]
    return json.dumps([rows, limits.concurrency]).encode()


@lru_cache(64)
def limits_of(text: bytes) -> Limits:
    """Return the limits that a quota has kept."""
    rows, concurrency = json.loads(text)
    return Limits(*(Limit(*row) for row in rows), concurrency=concurrency)


def is_opinion(limits: Limits) -> bool:
    """Return whether limits were given: a process without any takes what is there."""
    return bool(len(limits)) or limits.concurrency is not None
