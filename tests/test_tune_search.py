"""The search of `benchmarks/tune.py` leaves the defaults only where that helps.

Owns small plans that are searched whole. Must never depend on what a search costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.tuning.advice import UNSEEN, advise
from benchmarks.tuning.plans import Plan
from benchmarks.tuning.search import Bench, Rating, descend, ladder, two_figures, values_of
from benchmarks.tuning.sources import arranged, described
from benchmarks.tuning.words import code, document, sentences
from benchmarks.tuning.world import Outcome, Settings, World

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

SEEDS = (1, 2)


def plan(variant: str, calls: int = 15, interactive: float = 0.0) -> Plan:
    """Calls whose `max_tokens` is eight times their answers."""
    traffic = arranged(
        described(calls, (400, 300), (100, 60), 800, "gpt-4o"), "at once", interactive
    )
    return Plan(traffic, World({"rpm": 500, "tpm": 5_000}, variant))


def searched(variant: str) -> tuple[Settings, dict[Settings, Rating]]:
    """Where the search ends, and all it rated."""
    asked = plan(variant)
    with Bench({"it": asked}, processes=1) as bench:
        return descend(
            bench, "it", values_of(asked, max(asked.bounds(1).values())), SEEDS, Settings()
        )


def test_accounting_of_the_server_is_found() -> None:
    """On a server that keeps what it charged, the right accounting is found, without
    any 429.
    """
    best, rated = searched("A")

    assert best.accounting == "never_refund"
    assert rated[best].rejected == 0
    assert rated[best].score < rated[Settings()].score


def test_search_never_ends_above_the_defaults() -> None:
    """What is found rates at least as well as the defaults, on the server of today."""
    best, rated = searched("P")

    assert rated[best].score <= rated[Settings()].score * 1.01
    assert rated[best].rejected == 0


def outcome(makespan: float, rejected: int = 0) -> Rating:
    """One run of so many seconds."""
    return Rating([Outcome(makespan, 0.0, rejected, 0, (1.0,), (), 1, {})])


def test_a_429_outweighs_what_it_saves() -> None:
    """Faster with one refusal rates worse than slower without."""
    assert outcome(100, rejected=1).score > outcome(150).score


def runs(*makespans: float, rejected: int = 0) -> Rating:
    """One run a seed; `rejected`: of the first."""
    return Rating(
        [
            Outcome(makespan, 0.0, 0 if number else rejected, 0, (1.0,), (), 1, {})
            for number, makespan in enumerate(makespans)
        ]
    )


@pytest.mark.parametrize(
    ("found", "better"),
    [
        (runs(90, 91, 89, 90, 92, 90), True),
        (runs(70, 120, 80, 110, 75, 115), False),
        (runs(99.5, 99.4, 99.6, 99.5, 99.5, 99.4), False),
        (runs(50, 51, 50, 51, 50, 51, rejected=1), False),
    ],
    ids=["faster on every seed", "faster by luck", "not worth it", "faster with a 429"],
)
def test_defaults_are_left_only_for_what_beats_them(found: Rating, *, better: bool) -> None:
    """A recommendation is better by more than luck on the same seeds, and never brings
    more 429s than the defaults.
    """
    default = runs(100, 101, 99, 100, 101, 100)

    assert found.beats(default) is better
    assert found.beats(runs(100, 100, 100, 100, 100, 100, rejected=2)) is True


def test_ladder_goes_from_fast_to_safe() -> None:
    """When the best fails on unseen seeds, the next to be asked are slower step by
    step, and never one that was refused before.
    """
    rated = {
        Settings(): outcome(100),
        Settings(arrival_slack=5): outcome(100.1),
        Settings(output=9): outcome(90, 1),
        Settings(output=99): outcome(104),
    }

    assert ladder(rated, Settings()) == [Settings(), Settings(output=99)]


class Counting:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1


def test_no_run_is_run_twice() -> None:
    """A run that the search has made is not simulated again for the sensitivity."""
    count = Counting()
    with Bench({"it": plan("P", calls=10)}, count, processes=1) as bench:
        bench.rate("it", [Settings(), Settings(burst_share=0.5)], SEEDS)
        bench.rate("it", [Settings(), Settings()], SEEDS)

    assert count.runs == 4


def test_processes_give_the_same_as_one() -> None:
    """Spreading runs over processes changes nothing but the time it takes."""
    asked: Sequence[Settings] = [Settings(), Settings(burst_share=0.5)]
    with (
        Bench({"it": plan("P", calls=20)}, processes=1) as one,
        Bench({"it": plan("P", calls=20)}, processes=2) as two,
    ):
        assert one.rate("it", asked, SEEDS) == two.rate("it", asked, SEEDS)


@pytest.mark.parametrize(
    ("amount", "shown"), [(0.2, 1), (7, 7), (123, 130), (5_432, 5_500), (120, 120)]
)
def test_figures_to_paste_are_short(amount: float, shown: int) -> None:
    """Up to two figures, never less than asked for."""
    assert two_figures(amount) == shown


def test_advice_is_whole() -> None:
    """The advice holds every figure, in sentences and as a document for programs."""
    asked = plan("P", interactive=0.2)
    advice = advise(asked, {"twice": {"rpm": 1_000.0, "tpm": 10_000.0}}, lambda: None, processes=1)
    shown: dict[str, Any] = document(advice)

    assert shown["validated_rejected"] == 0
    assert shown["binding_limit"] == "tpm"
    assert shown["lower_bound"] * 0.999 <= shown["makespan"] <= shown["lower_bound"] * 1.3
    assert shown["tiers"][0]["makespan"] < shown["makespan"]
    assert len(shown["makespans"]) == len(UNSEEN)
    assert set(shown["sensitivity"]) == {
        "accounting",
        "output",
        "arrival_slack",
        "burst_share",
        "concurrency",
        "patience",
    }
    assert shown["interactive_waits"]["p50"] <= shown["waits"]["p95"]
    assert code(advice).startswith("limiter = RateLimiter(")
    assert any("TPM holds you back" in sentence for sentence in sentences(advice))
    compile(code(advice), "<advice>", "exec")
