"""The servers of the race: one latency for all, and what each call takes of a bucket.

Owns how FakeOpenAI is set up for a course, and the demands that the lower bound counts
with. Must never contain clients, clocks or the limiter's arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.race.bounds import Bucket, Demand
from benchmarks.race.workloads import RECORDED, WORKLOADS, Course, recorded
from ratelimit.testing import FakeOpenAI, Latency, Usage
from ratelimit.testing.charges import charge
from ratelimit.testing.quotas import Quotas
from ratelimit.testing.variants import rules_of

WINDOW: Final = 10.0  # seconds in which variant E counts requests
LATENCY: Final = Latency(base=0.3, per_token=1 / 80, spread=0.0, jitter=(0.02, 0.1))
"""First token after 0.3 s, 80 tokens a second, 20 to 100 ms each way. Without spread a
job's answer takes the same for every client.
"""


def course_for(
    workload: str,
    variant: str,
    seed: int,
    *,
    calls: Path | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Course:
    """Draw a workload for a variant, with its daily limits, as fast as they allow.

    :param calls: the file of the recorded workload.
    :param scale: factors on the number of calls and on the limits.
    """
    daily = rules_of(variant).daily

    def taken(body: Mapping[str, Any], usage: Usage) -> float:
        return _tokens(body, usage, variant).settled

    if workload == RECORDED and calls is not None:
        return recorded(calls, seed, daily=daily, taken=taken)
    return WORKLOADS[workload].scaled(*scale).course(seed, daily=daily, taken=taken)


def server_for(course: Course, variant: str, seed: int) -> FakeOpenAI:
    """A fresh server with the course's limits and levels."""
    limits: dict[str, Any] = dict.fromkeys(("rpm", "tpm", "rpd", "tpd")) | dict(course.limits)
    return FakeOpenAI(
        variant, **limits, level=course.level, latency=LATENCY, seed=seed, request_window=WINDOW
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What one variant demands of a course: from each bucket, and in time."""

    buckets: dict[Bucket, list[Demand]]
    there: float
    """least seconds from a client to the server"""
    tails: list[float]
    """least seconds from a job's admission to its answer"""


def terms_of(course: Course, variant: str) -> Terms:
    """Read the server's rules for a course.

    Of the limits of G, which change, the highest count; the other tenant of F is taken
    to be idle.
    """
    rules = rules_of(variant)
    limits: dict[str, float | None] = {"rpm": None, "tpm": None, **course.limits}
    factor = max([1.0, *(each for _, each in rules.changes)])
    buckets = {}
    for dimension in Quotas(limits, None, None, rules=rules, request_window=WINDOW).dimensions(""):
        fixed = (rules.request_window if dimension.unit == "requests" else rules.window) == "fixed"
        bucket = Bucket(
            dimension.name + f"/{dimension.period:g}s",
            dimension.limit * factor,
            dimension.period,
            course.level,
            fixed=fixed,
        )
        buckets[bucket] = [
            Demand(1, 1) if dimension.unit == "requests" else _tokens(job.body, job.usage, variant)
            for job in course.jobs
        ]
    least = LATENCY.jitter[0]
    tails = [
        LATENCY.base + LATENCY.per_token * job.usage.completion_tokens + least
        for job in course.jobs
    ]
    return Terms(buckets, least, tails)


def _tokens(body: Mapping[str, Any], usage: Usage, variant: str) -> Demand:
    """Return what a call takes of a token bucket at admission, and in the end."""
    rules = rules_of(variant)
    taken = charge("chat.completions", body, rules.charge, lambda: usage.prompt_tokens)
    if rules.settle == "never":
        return Demand(taken.tokens, taken.tokens)
    if rules.settle == "usage":
        return Demand(taken.tokens, usage.total_tokens)
    return Demand(taken.tokens, taken.tokens + min(0, usage.completion_tokens - taken.output))
