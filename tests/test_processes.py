"""`benchmarks/processes.py` and `linearize.py`: a fault of a store would be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.linearize import check, violations
from benchmarks.sharing.history import LIMITS, RecordedStore, record
from benchmarks.sharing.workers import excess, fairness
from ratelimit.stores.folder.quota_file import QuotaFile
from ratelimit.stores.payments import Payment, Wait

ROOT = Path(__file__).parents[1]
TEXT = [[one.name, one.amount, one.per, one.burst] for one in LIMITS]


def test_what_exceeds_the_quota_is_counted() -> None:
    """In the window where it is most, wherever that stands."""
    assert excess([0.0] * 10, burst=10, rate=1) == 0
    assert excess([0.0] * 10 + [1.0, 1.0, 1.0], burst=10, rate=1) == 2
    assert excess([0.0, *[100.0] * 13], burst=10, rate=1) == 3


def test_fairness_is_jains() -> None:
    """1 where all got the same, 1 / n where one got all."""
    assert fairness([5, 5, 5]) == pytest.approx(1)
    assert fairness([9, 0, 0]) == pytest.approx(1 / 3)


class Interleaved(RecordedStore):
    """Does something else in the middle of a take, as another process may."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def _take(self, payment: Payment, now: float) -> Wait | None:
        wait = super()._take(payment, now)
        self.meanwhile()
        return wait


def histories(path: Path) -> list[str]:
    """Two stores take all there is, the second one in the middle of the first."""
    one, other = Interleaved(path, 0.0), RecordedStore(path, 0.0)
    one.meanwhile = lambda: other.take(Payment({"requests": 30, "tokens": 1}), 1.0)
    one.take(Payment({"requests": 30, "tokens": 1}), 1.0)
    other.take(Payment({"requests": 1, "tokens": 1}), 1.0)
    for step in [*one.steps, *other.steps]:
        step["asked"] = step["over"] = 1.0
    return violations(TEXT, [*one.steps, *other.steps])


def test_a_take_that_is_not_atomic_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store without the lock admits twice on one level; with it, it does not."""
    assert histories(tmp_path / "whole.quota") == []
    monkeypatch.setattr(QuotaFile, "lock", lambda *_: True)

    assert histories(tmp_path / "broken.quota") != []


def step(number: int, asked: float, over: float, **fields: Any) -> dict[str, Any]:
    """A step of a history that leaves both buckets full."""
    return {
        "number": number,
        "asked": asked,
        "over": over,
        "operations": [],
        "full_at": [0.0, 0.0],
    } | fields


def test_an_order_that_contradicts_time_is_found() -> None:
    """A step that was over before another was asked for stands before it."""
    first, second = step(1, 5.0, 6.0), step(2, 3.0, 4.0)

    assert len(violations(TEXT, [second, first])) == 1


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"over": 4.0}, "was over before it was asked for"),
        ({"full_at": [float("nan"), 0.0]}, "requests is full at no moment"),
        ({"full_at": [5.5, 0.0]}, "requests is full 0.500000 s too late"),
        (
            {"operations": [{"settle": {"tokens": 0}, "used": {"tokens": 1e5}, "now": 5.0}]},
            "tokens is full 1.000000 s too early",
        ),
        (
            {
                "full_at": [0.0, 7.0],
                "operations": [{"settle": {"tokens": 0}, "used": {"tokens": 0}, "now": 7.0}],
            },
            "an operation is dated after it",
        ),
    ],
)
def test_a_step_that_time_or_arithmetic_forbids_is_found(
    fields: dict[str, Any], fault: str | None
) -> None:
    """Whatever figure of it is wrong, and in whichever direction."""
    found = violations(TEXT, [step(1, 5.0, 6.0) | fields])

    assert ["step 1" in one and str(fault) in one for one in found] == [True] * (fault is not None)


def test_a_history_of_nothing_shows_nothing(tmp_path: Path) -> None:
    """It is no proof: a run that wrote no step has failed."""
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"limits": TEXT}) + "\n")

    assert check(path)["violations"] == 1


def test_the_history_of_real_processes_is_that_of_one_bucket(tmp_path: Path) -> None:
    """Two processes take and settle at random, at the same time."""
    figures = record(tmp_path / "out.jsonl", tmp_path / "one.quota", 2, 1_000)
    checked = check(tmp_path / "out.jsonl")

    assert checked["first_violations"] == []
    assert checked["operations"] == figures["operations"] >= 1_000
    assert checked["processes"] == 2
