"""The search: which settings finish soonest with no 429.

Owns the values that each knob may take, how runs are spread over processes, and the
order of the search. Must never contain how a run is simulated, words, tables.

The knobs work on different things - what is reserved, when a debit is dated, how much
goes at once - so their effects nearly add up, and going from the defaults along one
knob at a time, round after round until no knob helps any more, comes within half a per
cent of a global optimiser (measured, see benchmarks/README.md), mostly in half the
runs. Two further things come for free: the runs of the last round are the sensitivity
that the report shows; and a knob that does not help stays at its default, so the code
to paste is short.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_all_start_methods, get_context
from statistics import fmean, stdev
from types import TracebackType
from typing import Any, Final, get_args

from benchmarks.tuning.plans import Plan, needed_in_flight
from benchmarks.tuning.world import Outcome, Settings
from ratelimit.control.pricing import Accounting

REFUSED: Final = 60.0
"""Seconds that one 429 counts as: none is worth what it could save."""
FAILED: Final = 600.0
WORTH: Final = 0.01
"""A knob leaves its default for a gain of this share at least."""
SURE: Final = 3.36
"""Student's t of 99 %, one-sided, for paired runs on six seeds."""
STEP: Final = 0.005
"""So much slower is the next of those that are asked when the best fails."""
ROUNDS: Final = 4
ORDER: Final = ("accounting", "output", "arrival_slack", "burst_share", "concurrency", "patience")

Run = tuple[str, Settings, int]


@dataclass(frozen=True, slots=True)
class Rating:
    """Several runs of the same settings, on several seeds."""

    outcomes: Sequence[Outcome]

    @property
    def makespan(self) -> float:
        """Mean seconds until all is answered and paid for."""
        return fmean(outcome.makespan for outcome in self.outcomes)

    @property
    def spread(self) -> float:
        """Its standard deviation over the seeds."""
        return (
            stdev(outcome.makespan for outcome in self.outcomes) if len(self.outcomes) > 1 else 0.0
        )

    @property
    def rejected(self) -> int:
        """429s of all runs."""
        return sum(outcome.rejected for outcome in self.outcomes)

    @property
    def failed(self) -> int:
        """Calls of all runs that were given up."""
        return sum(outcome.failed for outcome in self.outcomes)

    def wait(self, share: float, *, urgent: bool = False) -> float:
        """The wait within which this share of the calls of all runs stays."""
        return quantile(
            [
                wait
                for outcome in self.outcomes
                for wait in (outcome.urgent if urgent else outcome.waits)
            ],
            share,
        )

    @property
    def score(self) -> float:
        """Return what is minimised: makespan, urgent waits, and a minute for a 429."""
        refused = (REFUSED * self.rejected + FAILED * self.failed) / len(self.outcomes)
        return self.makespan + self.wait(0.95, urgent=True) + refused

    def beats(self, other: Rating) -> bool:
        """Compare with other settings that ran on the same seeds.

        Settings with more 429s or failures never win. With as many they must gain more
        than `WORTH`, and more than the luck of the seeds explains (Student's t, 99 %).
        """
        refused = self.failed, self.rejected
        before = other.failed, other.rejected
        if self.failed > other.failed or self.rejected > other.rejected:
            return False
        if refused != before:
            return True

        gains = [
            Rating([theirs]).score - Rating([ours]).score
            for ours, theirs in zip(self.outcomes, other.outcomes, strict=True)
        ]
        luck = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
        return fmean(gains) > max(WORTH * other.score, SURE * luck)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


_plans: Mapping[str, Plan] = {}


def _equip(plans: Mapping[str, Plan]) -> None:
    global _plans  # noqa: PLW0603  # a worker process's own: what it runs is sent once, not with each of hundreds of runs
    _plans = plans


def _work(run: Run) -> Outcome:
    plan, settings, seed = run
    return _plans[plan].run(settings, seed)


class Bench:
    """Runs settings on plans, each only once, on all processors.

    `ran` is called after each run.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        ran: Callable[[], object] = lambda: None,
        *,
        processes: int | None = None,
    ) -> None:
        self.plans = plans
        self._ran = ran
        self._known: dict[Run, Outcome] = {}
        # a child that has the plans already
        context = get_context("fork" if "fork" in get_all_start_methods() else None)
        count = processes or min(os.cpu_count() or 1, 8)
        self._pool = (
            ProcessPoolExecutor(count, mp_context=context, initializer=_equip, initargs=(plans,))
            if count > 1
            else None
        )
        if self._pool is None:
            _equip(plans)

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def runs(self) -> int:
        """Runs so far."""
        return len(self._known)

    def rate(self, plan: str, settings: Iterable[Settings], seeds: Sequence[int]) -> list[Rating]:
        """Run each of the settings on each seed."""
        asked = list(settings)
        wanted = [
            run
            for each in asked
            for seed in seeds
            if (run := (plan, each, seed)) not in self._known
        ]
        wanted = list(dict.fromkeys(wanted))
        if self._pool is None:
            for run in wanted:
                self._known[run] = _work(run)
                self._ran()
        else:
            futures = {self._pool.submit(_work, run): run for run in wanted}
            for future in as_completed(futures):
                self._known[futures[future]] = future.result()
                self._ran()
        return [Rating([self._known[plan, each, seed] for seed in seeds]) for each in asked]


def values_of(plan: Plan, seconds: float) -> dict[str, list[Any]]:
    """Return the values that each option is tried at, the default first.

    `seconds`: how long the whole plan takes.
    """
    answers = [job.output for job in plan.jobs(0) if job.item.answers]
    tokens = sorted(
        {
            two_figures(quantile(answers, share) * factor)
            for share, factor in ((0.5, 1), (0.9, 1), (0.99, 1), (0.99, 2), (1, 4))
        }
    )
    in_flight = needed_in_flight(plan, seconds)
    start = Settings()
    found: dict[str, list[Any]] = {
        "accounting": list(get_args(Accounting)),
        "output": [None, "learned", *tokens] if answers else [None],
        "arrival_slack": [start.arrival_slack, 0.5, 1.0, 5.0],
        "burst_share": [start.burst_share, 1 / 60, 0.1, 0.5],
        "concurrency": [
            None,
            *sorted({max(1, two_figures(in_flight * factor)) for factor in (0.5, 1, 2, 4)}),
        ],
    }
    if plan.traffic.two_classes:
        found["patience"] = [
            start.patience,
            *sorted(
                {0.0, 10.0, 300.0, float(two_figures(seconds)), float(two_figures(2 * seconds))}
                - {start.patience}
            ),
        ]
    return found


def two_figures(amount: float) -> int:
    """Up to two figures, so that it can be remembered."""
    whole = max(1, round(amount))
    step: int = 10 ** max(len(str(whole)) - 2, 0)
    return -(-whole // step) * step


def descend(
    bench: Bench,
    plan: str,
    values: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    start: Settings,
) -> tuple[Settings, dict[Settings, Rating]]:
    """Go from `start` along one option at a time until none helps.

    Return where that ends, and all ratings on the way.
    """
    best, rated = start, dict(zip([start], bench.rate(plan, [start], seeds), strict=True))
    for _ in range(ROUNDS):
        before = best
        for knob in [knob for knob in ORDER if knob in values]:
            tried = along(best, knob, values)
            rated |= dict(zip(tried, bench.rate(plan, tried, seeds), strict=True))
            found = min(tried, key=lambda settings: rated[settings].score)
            if rated[found].score < rated[best].score * (1 - WORTH):
                best = found
        if best == before:
            break
    return _without_needless(bench, plan, seeds, best, rated), rated


def _without_needless(
    bench: Bench, plan: str, seeds: Sequence[int], best: Settings, rated: dict[Settings, Rating]
) -> Settings:
    """Put back every knob that helped on the way and does not any more."""
    start, least = Settings(), rated[best].score
    for knob in ORDER:
        back = replace(best, **{knob: getattr(start, knob)})
        if back != best:
            rated |= dict(zip([back], bench.rate(plan, [back], seeds), strict=True))
            if rated[back].score <= least * (1 + WORTH):
                best = back
    return best


def ladder(rated: Mapping[Settings, Rating], best: Settings) -> list[Settings]:
    """Return what to try in turn when the best fails on other seeds.

    At each step of slowness it is the best that got no 429.
    """
    found, step = [best], rated[best].score
    for each in sorted(
        (each for each in rated if not rated[each].rejected), key=lambda each: rated[each].score
    ):
        if rated[each].score >= step * (1 + STEP):
            found.append(each)
            step = rated[each].score
    return found


def along(settings: Settings, knob: str, values: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """These settings with one knob at each of its values."""
    return [replace(settings, **{knob: value}) for value in values[knob]]
