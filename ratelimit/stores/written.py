"""Limits as processes that share a quota write them down for each other.

Owns that text. Must never judge what it says.
"""

from __future__ import annotations

import json

from ratelimit.limits import Limit, Limits


def text_of(limits: Limits) -> bytes:
    """Return limits as a quota keeps them."""
    rows = [(one.name, one.amount, one.per, one.burst) for one in limits]
    return json.dumps([rows, limits.concurrency]).encode()


def limits_of(text: bytes) -> Limits:
    """Return the limits that a quota has kept."""
    rows, concurrency = json.loads(text)
    return Limits(*(Limit(*row) for row in rows), concurrency=concurrency)
