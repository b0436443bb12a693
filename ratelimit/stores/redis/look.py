"""What the quotas in a server show at one moment.

Owns the look. Must never change a quota.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from ratelimit.limits import Limits
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.redis.link import Link
from ratelimit.stores.written import limits_of

SCRIPT: Final = (files(__package__) / "look.lua").read_text("utf-8")
SEEN_SECONDS: Final = 10.0
"""Seconds after which a process that was not seen is gone, as for `step.lua`."""


class ProcessSeen(NamedTuple):
    """One limiter of one process."""

    name: str
    """Its host, its process's number, and what tells it from another one there."""
    admitted: int
    in_flight: int
    deferred: float
    waits: bool
    seen_ago: float
    """Seconds."""


class QuotaSeen(NamedTuple):
    """One family of models at one moment."""

    family: str
    limits: Limits
    levels: Sequence[float]
    """What is left of each limit; below zero in debt."""
    cap: int | None
    admitted: int
    closed: float
    """Seconds for which nobody is admitted."""
    processes: Sequence[ProcessSeen]


def look(link: Link) -> Iterator[QuotaSeen]:
    """Yield the quota of each family.

    Raises `LinkError` where the server cannot be asked.
    """
    for family in link.families():
        reply = link.evaluate(SCRIPT, link.key(family))
        if reply is not None:
            yield _seen(family, reply)


def _seen(family: str, reply: bytes) -> QuotaSeen:
    seen = json.loads(reply)
    limits = limits_of(seen["limits"].encode())
    processes = [ProcessSeen(**one) for one in seen["processes"] or []]
    living = [one for one in processes if one.seen_ago < SEEN_SECONDS]
    deferred = sum(one.deferred for one in living)
    levels = [
        Bucket(limit).level(full, 0.0, deferred)
        for limit, full in zip(limits, seen["full"] or [], strict=False)
    ]
    cap = None if seen["cap"] < 0 else int(seen["cap"])
    return QuotaSeen(family, limits, levels, cap, seen["admitted"], seen["closed"], living)
