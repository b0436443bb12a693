"""What is simulated: a traffic against a world, in full or in miniature.

Owns the lower bound of a plan, the limit that binds it, and how a large traffic becomes
a small one that takes as long. Must never contain settings that are searched, processes
or tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

from benchmarks.race.bounds import Bucket, Demand, bound
from benchmarks.tuning.simulate import simulate
from benchmarks.tuning.traffic import Item, Job, Traffic
from benchmarks.tuning.world import WINDOW, Outcome, Settings, World
from ratelimit.testing.charges import charge
from ratelimit.testing.quotas import Quotas
from ratelimit.testing.variants import rules_of

STEADY: Final = 300.0
"""Seconds of work that a miniature has at least, if the whole has them: so long that
start and end decide nothing.
"""
ROOM: Final = 4.0
"""A limit of a miniature lets through at least so many of the largest call at once."""
UNITS: Final = {"r": "requests", "t": "tokens"}
PERIODS: Final = {"s": 1.0, "m": 60.0, "d": 86_400.0}
NAMES: Final = {"rpm": "RPM", "tpm": "TPM", "rpd": "RPD", "tpd": "TPD", "rps": "RPS"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A traffic against a world.

    `scale`: the factor on the world's limits that makes a miniature; 1: the whole.
    """

    traffic: Traffic
    world: World
    scale: float = 1.0

    def run(self, settings: Settings, seed: int, *, trace: bool = False) -> Outcome:
        """One run; the concurrency of a miniature shrinks with its limits."""
        if settings.concurrency is not None:
            settings = replace(
                settings, concurrency=max(1, round(settings.concurrency * self.scale))
            )
        return simulate(self.jobs(seed), settings, self.world, seed=seed, trace=trace)

    def jobs(self, seed: int) -> list[Job]:
        """The calls as a seed arranges them."""
        return self.traffic.jobs(seed, self.world.latency)

    def bounds(self, seed: int) -> dict[str, float]:
        """Return the least seconds until all is answered and paid for, by cause.

        The causes are each limit, "arrivals" (when the last call comes) and "answers"
        (each call takes its time). See `benchmarks/race/bounds.py` for the proof.
        """
        return bounds_of(self.jobs(seed), self.world)

    def with_limits(self, limits: Mapping[str, float]) -> Plan:
        """The same traffic against other limits."""
        return replace(self, world=replace(self.world, limits=limits)).spanned()

    def spanned(self) -> Plan:
        """Return the same with urgent calls for nearly as long as limits are busy."""
        seconds = max(
            arithmetic(work_of(self.traffic, self.world), self.world).values(), default=0.0
        )
        return replace(self, traffic=replace(self.traffic, span=0.9 * seconds))


def bounds_of(jobs: list[Job], world: World) -> dict[str, float]:
    """See `Plan.bounds`."""
    rules = rules_of(world.variant)
    there = min(job.there for job in jobs)
    tails = [job.work + job.back for job in jobs]
    arrivals = [job.arrival for job in jobs]
    found = {"arrivals": arrivals[-1], "answers": max(tails) + there}
    factor = max([1.0, *(each for _, each in rules.changes)])
    limits: dict[str, float | None] = {"rpm": None, "tpm": None, **world.limits}
    for each in Quotas(limits, None, None, rules=rules, request_window=WINDOW).dimensions(""):
        fixed = (rules.request_window if each.unit == "requests" else rules.window) == "fixed"
        bucket = Bucket(each.name, each.limit * factor, each.period, world.level, fixed=fixed)
        demands = [Demand(1, 1) if each.unit == "requests" else _tokens(job, world) for job in jobs]
        tail_less = bound(arrivals, demands, bucket, there=there, tails=tails)
        found[each.name] = max(found.get(each.name, 0.0), tail_less)
    if rules.in_flight:
        found["calls in flight"] = sum(tails) / rules.in_flight
    return found


def binding(bounds: Mapping[str, float]) -> str:
    """Name what decides how long it takes: a limit, the arrivals, or the answers."""
    limits = {
        name: seconds for name, seconds in bounds.items() if name not in {"arrivals", "answers"}
    }
    own = max(("answers", "arrivals"), key=lambda name: bounds[name])
    if not limits or max(limits.values()) <= bounds[own] * 1.02:
        return own
    return max(limits, key=lambda name: limits[name])


def work_of(traffic: Traffic, world: World) -> dict[str, float]:
    """Return what the calls take of each limit for good, by its name, in its unit.

    Unknown answers count at their median.
    """
    tokens = sum(_tokens(_typical(item, traffic), world).settled for item in traffic.items)
    return {name: float(len(traffic)) if name.startswith("r") else tokens for name in world.limits}


def arithmetic(work: Mapping[str, float], world: World) -> dict[str, float]:
    """Return the seconds in which each limit refills what exceeds its full bucket."""
    return {
        name: max(0.0, work[name] - amount * world.level) / amount * PERIODS[name[-1]]
        for name, amount in world.limits.items()
        if name in work
    }


def needed_in_flight(plan: Plan, seconds: float) -> float:
    """Calls in flight on average when the whole takes so long (Little's law)."""
    jobs = plan.jobs(0)
    return len(jobs) / max(seconds, 1e-9) * fmean(job.there + job.work + job.back for job in jobs)


def miniature(plan: Plan, calls: int) -> Plan:
    """Sample the calls, against limits so low that they take as long as the whole.

    They take `STEADY` seconds at most. The largest call still fits `ROOM` times, so a
    miniature of few large calls takes longer than that.
    """
    sample = plan.traffic.sample(calls)
    if sample is plan.traffic:
        return plan
    work, limits = work_of(sample, plan.world), plan.world.limits
    wanted = min(
        STEADY, max(arithmetic(work_of(plan.traffic, plan.world), plan.world).values(), default=0.0)
    )
    scale = max(
        (
            work[name] / (limit * (plan.world.level + wanted / PERIODS[name[-1]]))
            for name, limit in limits.items()
        ),
        default=1.0,
    )
    largest = max(item.reserve for item in sample.items)
    room = max(
        (ROOM * largest / limit for name, limit in limits.items() if name.startswith("t")),
        default=0.0,
    )
    scale = min(1.0, max(scale, room))
    return Plan(sample, plan.world.scaled(scale), scale)


def _tokens(job: Job, world: World) -> Demand:
    rules = rules_of(world.variant)
    arriving = job.item.prompt - job.item.late
    taken = charge(job.item.endpoint, job.item.body, rules.charge, lambda: arriving)
    usage = job.item.prompt + job.output
    settled = {
        "never": taken.tokens,
        "usage": usage,
        "refund": taken.tokens + min(0, job.output - taken.output),
    }[rules.settle]
    return Demand(taken.tokens, settled)


def _typical(item: Item, traffic: Traffic) -> Job:
    median = traffic.spread.median if item.most is None else min(traffic.spread.median, item.most)
    output = round(median * item.counted.choices) if item.answer is None else item.answer
    return Job(0, 0.0, item, output if item.answers else 0, 0.0, 0.0, 0.0)
