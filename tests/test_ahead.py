"""The sums ahead of a newcomer, beside a plain list of the waiters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.admission.ahead import FEW, MOST_PATIENCES, Ahead, Sums
from tests.interruptions import interruptions

AMOUNTS = st.dictionaries(
    st.sampled_from(["requests", "tokens", "images"]), st.integers(0, 1_000), max_size=3
)
STEP = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 3), st.sampled_from([0.0, 0.5, 3.0]), AMOUNTS),
    st.tuples(st.just("leave"), st.integers(0, 10_000)),
    st.tuples(st.just("leave first")),
    st.tuples(st.just("renew")),
)


class Beside:
    """`Ahead`, and the list of all waiters that it stands for."""

    def __init__(self) -> None:
        self.ahead = Ahead()
        self.waiters: list[tuple[float, float, int, dict[str, float]]] = []
        self.serial = 0
        self.now = 0.0
        self.from_the_middle = False

    def step(self, kind: str, *args: Any) -> None:
        steps: dict[str, Callable[..., None]] = {
            "join": self.join,
            "leave": self.leave,
            "leave first": self.leave_first,
            "renew": self.renew,
        }
        steps[kind](*args)

    def join(self, pause: float, patience: float, amounts: dict[str, float]) -> None:
        self.now += pause
        self.serial += 1
        sums = self.ahead.of(patience)
        assert sums is not None
        sums.length = sums.write(self.now + patience, self.serial, amounts)
        self.waiters.append((patience, self.now + patience, self.serial, amounts))

    def leave(self, which: int) -> None:
        if not self.waiters:
            return
        patience, _, serial, _ = self.waiters.pop(which % len(self.waiters))
        first = min((one[2] for one in self.waiters if one[0] == patience), default=serial)
        self.from_the_middle = self.from_the_middle or first < serial
        self.ahead.remove(patience, serial)
        self.ahead.remove(patience, serial)

    def leave_first(self) -> None:
        if self.waiters:
            first = min(self.waiters, key=lambda one: (one[1], one[2]))
            self.leave(self.waiters.index(first))

    def renew(self) -> None:
        for patience, sums in self.ahead._sums.items():
            self.ahead._sums[patience] = sums.renewed()
        self.from_the_middle = False

    def before(self, rank: float) -> dict[str, float]:
        total: dict[str, float] = {}
        for _, own, _, amounts in self.waiters:
            for name, amount in amounts.items():
                if own <= rank:
                    total[name] = total.get(name, 0) + amount
        return total


@settings(max_examples=300)
@given(steps=st.lists(STEP, max_size=60), rank=st.floats(-1, 200))
def test_a_sum_is_never_above_the_true_one_and_exact_without_gaps(
    steps: list[Any], rank: float
) -> None:
    """Any joins, leaves from anywhere and renewals: at every rank never too much.

    Exactly the sum while nobody has left from the middle since the last renewal.
    """
    beside = Beside()
    for step in steps:
        beside.step(*step)
        for bound in (rank, beside.now, beside.now + 1.0):
            true, shown = beside.before(bound), beside.ahead.before(bound)
            assert all(amount <= true.get(name, 0) + 1e-6 for name, amount in shown.items())
            if not beside.from_the_middle:
                assert shown == pytest.approx(
                    {name: amount for name, amount in true.items() if amount}
                )


@given(order=st.permutations(range(3 * FEW)))
def test_any_order_of_leaving_ends_at_nothing(order: list[int]) -> None:
    """Also through renewals, which happen on the way; what is kept stays in bounds."""
    beside = Beside()
    for _ in order:
        beside.join(1, 0.0, {"tokens": 7})
    for left, serial in enumerate(order):
        beside.ahead.remove(0.0, serial + 1)
        sums = beside.ahead._sums[0.0]
        assert sums.length - sums.first <= 2 * max(3 * FEW - left - 1, FEW) + 1

    assert beside.ahead.before(1e9) == {}


def test_waiters_of_too_many_patiences_are_left_out() -> None:
    """Patiences may be any number: memory stays bounded, and a sum too low, never too
    high.
    """
    ahead = Ahead()
    for patience in range(2 * MOST_PATIENCES):
        sums = ahead.of(float(patience))
        if sums is not None:
            sums.length = sums.write(float(patience), patience, {"tokens": 1})

    assert ahead.before(1e9) == {"tokens": MOST_PATIENCES}


def test_a_write_that_is_cut_short_counts_for_nothing() -> None:
    """Ctrl-C at any of its moments: the next write takes its place."""
    sums = Sums()
    sums.length = sums.write(1.0, 1, {"tokens": 5})
    moments = list(interruptions(lambda: sums.write(2.0, 2, {"tokens": 7, "images": 1})))
    before: dict[str, float] = {}
    sums.add_before(9.0, before)
    sums.length = sums.write(2.0, 3, {"tokens": 11})
    after: dict[str, float] = {}
    sums.add_before(9.0, after)

    assert len(moments) > 10
    assert before == {"tokens": 5}
    assert after == {"tokens": 16}


def test_a_removal_that_is_cut_short_and_repeated_counts_once() -> None:
    """Ctrl-C at any of its moments, at the front and in the middle."""
    for serial in (1, 3):

        def filled() -> Sums:
            sums = Sums()
            for number in range(1, 6):
                sums.length = sums.write(float(number), number, {"tokens": 10 * number})
            sums.remove(2)
            return sums

        some = [filled()]
        for _ in interruptions(lambda: some[-1].remove(serial)):  # noqa: B023  # run at once
            some[-1].remove(serial)
            some[-1].remove(serial)
            some.append(filled())
        some[-1].remove(serial)

        assert len(some) > 5
        for sums in some:
            shown: dict[str, float] = {}
            sums.add_before(9.0, shown)
            assert shown == {"tokens": 130 - 10 * serial}
