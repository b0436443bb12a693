"""The whole inquiry: the search, the check on unseen seeds, and what else to compare.

Owns which plans are made of a traffic, how many runs are spent on each, and the figures
that come of them. Must never contain words for people, files or the look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from benchmarks.tuning.plans import Plan, arithmetic, binding, miniature, needed_in_flight, work_of
from benchmarks.tuning.search import (
    Bench,
    Rating,
    along,
    descend,
    ladder,
    quantile,
    two_figures,
    values_of,
)
from benchmarks.tuning.world import Outcome, Settings

SEARCHED: Final = 300
"""Calls of a run of the search, at most."""
WHOLE: Final = 1_500
"""Calls of a run that is to tell the makespan, at most; of a larger traffic the rest is
added by the lower bound, which it runs along.
"""
SEEDS: Final = (1, 2)
UNSEEN: Final = (101, 102, 103, 104, 105, 106)
CANDIDATES: Final = 6
"""Settings that are tried on unseen seeds before the best of them is taken as it is,
429s and all.
"""
SERVERS: Final = ("P", "I", "A", "C")


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one option, the rest as recommended.

    `makespan`: of the search's plan, in seconds. `cost`: share of the best score lost.
    """

    value: Any
    makespan: float
    rejected: int
    failed: int
    urgent: float
    cost: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Where something else is different."""

    name: str
    makespan: float
    rejected: int
    bound: float
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Smaller:
    """What a smaller `max_tokens` gives; `cut`: the share of answers cut short."""

    most: int
    cut: float
    makespan: float


@dataclass(frozen=True, slots=True)
class Advice:
    """All that was found out, in seconds.

    The ratings `unseen` and `default` are of the same seeds, unseen by the search.
    """

    plan: Plan
    settings: Settings
    unseen: Rating
    default: Rating
    makespan: float
    beyond: float
    """seconds of `makespan` that were not simulated but added by the lower bound: of
    traffic above `WHOLE` calls
    """
    bounds: Mapping[str, float]
    bound: float
    arithmetic: Mapping[str, float]
    binding: str
    utilisation: Mapping[str, float]
    needed: float
    sensitivity: Mapping[str, Sequence[Point]]
    tiers: Sequence[WhatIf]
    servers: Sequence[WhatIf]
    smaller: Sequence[Smaller]
    trace: Outcome
    runs: int


def advise(
    plan: Plan,
    tiers: Mapping[str, Mapping[str, float]],
    ran: Callable[[], object],
    *,
    processes: int | None = None,
) -> Advice:
    """Find the settings for a plan.

    :param tiers: other limits to compare with, by name.
    :param ran: called after each run, some 200 times.
    """
    plan = plan.spanned()
    whole, small = miniature(plan, WHOLE), miniature(plan, SEARCHED)
    bounds = _bounds(plan, whole)
    bound = max(bounds.values())
    values = values_of(plan, bound)
    caps = _caps(plan)
    plans = {"small": small, "whole": whole}
    plans |= {
        name: miniature(plan.with_limits(limits), WHOLE // 2) for name, limits in tiers.items()
    }
    plans |= {
        f"server {letter}": replace(whole, world=replace(whole.world, variant=letter))
        for letter in _servers(plan)
    }
    plans |= {
        f"most {most}": replace(whole, traffic=whole.traffic.capped(most)) for most, _ in caps
    }
    with Bench(plans, ran, processes=processes) as bench:
        best, rated = descend(bench, "small", values, SEEDS, Settings())
        candidates = ladder(rated, best)[:CANDIDATES]
        best, unseen, default = _checked(bench, candidates)
        sensitivity = {knob: _points(bench, best, knob, values) for knob in values}
        beyond = bound - max(whole.bounds(0).values()) if whole is not plan else 0.0
        return Advice(
            plan=plan,
            settings=best,
            unseen=unseen,
            default=default,
            makespan=unseen.makespan + beyond,
            beyond=beyond,
            bounds=bounds,
            bound=bound,
            arithmetic=arithmetic(work_of(plan.traffic, plan.world), plan.world),
            binding=binding(bounds),
            utilisation=_utilisation(whole, unseen),
            needed=needed_in_flight(plan, unseen.makespan + beyond),
            sensitivity=sensitivity,
            tiers=[
                _what_if(bench, name, plan.with_limits(limits), {best, *candidates[:3]})
                for name, limits in tiers.items()
            ],
            servers=[_server(bench, f"server {letter}", best, beyond) for letter in _servers(plan)],
            smaller=[
                Smaller(most, cut, bench.rate(f"most {most}", [best], SEEDS)[0].makespan + beyond)
                for most, cut in caps
            ],
            trace=whole.run(best, UNSEEN[0], trace=True),
            runs=bench.runs,
        )


def _bounds(plan: Plan, whole: Plan) -> dict[str, float]:
    """Return the bounds of the whole traffic: means over seeds if it is simulated.

    For a traffic above `WHOLE` calls one seed serves.
    """
    if whole is plan:
        bounds = [plan.bounds(seed) for seed in UNSEEN]
        return {name: fmean(each[name] for each in bounds) for name in bounds[0]}
    return plan.bounds(0)


def _checked(bench: Bench, candidates: Sequence[Settings]) -> tuple[Settings, Rating, Rating]:
    """Choose the first candidate that is refused nothing on unseen seeds of its own.

    If there is none, choose the one that is refused least. The defaults stay unless it
    beats them on the same seeds. Return the settings, their rating, and that of the
    defaults on the same seeds.
    """
    tried: list[tuple[Settings, Rating, Sequence[int]]] = []
    for number, settings in enumerate(candidates):
        seeds: Sequence[int] = SEEDS
        seen = bench.rate("whole", [settings], seeds)[0]
        if not (seen.rejected or seen.failed):
            seeds = [seed + 10 * number for seed in UNSEEN]
            seen = bench.rate("whole", [settings], seeds)[0]
        tried.append((settings, seen, seeds))
        if not (seen.rejected or seen.failed):
            break

    best, seen, seeds = min(tried, key=lambda each: (len(each[2]) == len(SEEDS), each[1].score))
    default = bench.rate("whole", [Settings()], seeds)[0]
    if best != Settings() and not seen.beats(default):
        return Settings(), default, default
    return best, seen, default


def _points(
    bench: Bench, best: Settings, knob: str, values: Mapping[str, Sequence[Any]]
) -> list[Point]:
    settings = along(best, knob, {knob: sorted({*values[knob], getattr(best, knob)}, key=_order)})
    rated = bench.rate("small", settings, SEEDS)
    least = min(rating.score for rating in rated)
    return [
        Point(
            getattr(each, knob),
            rating.makespan,
            rating.rejected,
            rating.failed,
            rating.wait(0.95, urgent=True),
            rating.score / least - 1,
        )
        for each, rating in zip(settings, rated, strict=True)
    ]


def _order(value: object) -> tuple[int, float, str]:
    """Numbers by size; names and None behind them."""
    return (
        (0, float(value), "")
        if isinstance(value, (int, float))
        else (1, float(value is None), str(value))
    )


def _what_if(bench: Bench, name: str, plan: Plan, settings: Iterable[Settings]) -> WhatIf:
    """Other limits, with whichever of some good settings suits them best."""
    rating = min(bench.rate(name, settings, SEEDS), key=lambda each: each.score)
    bound = max(plan.bounds(0).values())
    beyond = bound - max(bench.plans[name].bounds(0).values())
    return WhatIf(name, rating.makespan + beyond, rating.rejected, bound, plan.world.limits)


def _server(bench: Bench, name: str, settings: Settings, beyond: float) -> WhatIf:
    rating, plan = bench.rate(name, [settings], SEEDS)[0], bench.plans[name]
    return WhatIf(
        name,
        rating.makespan + beyond,
        rating.rejected,
        max(plan.bounds(0).values()) + beyond,
        plan.world.limits,
    )


def _servers(plan: Plan) -> list[str]:
    return [letter for letter in SERVERS if letter != plan.world.variant]


def _caps(plan: Plan) -> list[tuple[int, float]]:
    """Return values of max_tokens to compare, with the share of answers that each cuts.

    One cuts none, one cuts one in twenty.
    """
    jobs = [job for job in plan.jobs(0) if job.item.answers and job.output]
    answers = [job.output / job.item.counted.choices for job in jobs]
    loose = [
        job
        for job in jobs
        if job.item.most is None or job.item.most > job.output / job.item.counted.choices
    ]
    if not answers or not loose:
        return []
    found = {}
    for most in (two_figures(max(answers)), two_figures(quantile(answers, 0.95))):
        if any(job.item.most is None or job.item.most > most for job in jobs):
            found[most] = sum(answer > most for answer in answers) / len(answers)
    return list(found.items())


def _utilisation(plan: Plan, rating: Rating) -> dict[str, float]:
    """Return the share of each limit and its first full bucket that was used."""
    periods = {"s": 1.0, "m": 60.0, "d": 86_400.0}
    found = {}
    for name, limit in plan.world.limits.items():
        shares = [
            outcome.used[name] / (limit * (plan.world.level + outcome.makespan / periods[name[-1]]))
            for outcome in rating.outcomes
        ]
        found[name] = fmean(shares)
    return found
