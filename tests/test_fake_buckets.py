"""The fake server's meters, against each other: aiolimiter's bucket, the plain level
and the fixed window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.testing.buckets import LeakyBucket, SettledBucket, WindowBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def at_clock(clock: Clock, work: Callable[[], None]) -> None:
    """Run `work`, which never waits, inside an event loop in the time of `clock`."""

    async def inside() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "time", clock)
            work()

    asyncio.run(inside())


steps = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 400)), max_size=30)


@given(
    steps=steps,
    limit=st.integers(1, 5_000),
    period=st.sampled_from([1.0, 60.0, 86_400.0]),
    level=st.floats(0, 1),
)
def test_the_judge_and_the_plain_level_admit_alike(
    steps: list[tuple[float, int]], limit: int, period: float, level: float
) -> None:
    """Two independent forms of one bucket agree on every admission, on what is left and
    on the reset.
    """
    clock = Clock()

    def work() -> None:
        judge, plain = LeakyBucket(limit, period, level), SettledBucket(limit, period, level, 0.0)
        for pause, amount in steps:
            clock.now += pause
            left = judge.left(clock.now)

            assert left == pytest.approx(
                plain.left(clock.now), abs=max(1e-4, limit / period / 1000)
            )
            assert judge.reset(left, clock.now) == pytest.approx(
                plain.reset(left, clock.now), abs=2e-3
            )
            if min(left, plain.left(clock.now)) >= amount:
                judge.take(amount, clock.now)
                plain.take(amount, clock.now)

    at_clock(clock, work)


def test_whole_numbers_are_seen_as_whole() -> None:
    """A full bucket less 7 shows 9,993 and not 9,992.999: the headers are cut, not
    rounded.
    """
    clock = Clock()

    def work() -> None:
        for meter in (LeakyBucket(10_000, 86_400, 1.0), SettledBucket(10_000, 86_400, 1.0, 0.0)):
            meter.take(7, 0.0)

            assert meter.left(0.0) == 9_993

    at_clock(clock, work)


@given(limit=st.integers(1, 10_000), amounts=st.lists(st.integers(1, 999), min_size=1, max_size=40))
def test_coming_at_the_computed_moment_is_early_enough(limit: int, amounts: list[int]) -> None:
    """A caller that waits exactly what is missing is admitted: no rounding residue
    refuses it.
    """
    clock = Clock()

    def work() -> None:
        for meter in (LeakyBucket(limit, 60.0, 0.0), SettledBucket(limit, 60.0, 0.0, clock.now)):
            for amount in (min(each, limit) for each in amounts):
                clock.now += meter.wait(amount - meter.left(clock.now), clock.now)

                assert meter.left(clock.now) + 1e-6 >= amount
                meter.take(amount, clock.now)

    at_clock(clock, work)


def test_the_judge_refuses_a_debit_that_does_not_fit() -> None:
    """A server that takes without looking is a bug and says so instead of waiting."""
    clock = Clock()

    def work() -> None:
        with pytest.raises(RuntimeError, match="does not fit"):
            LeakyBucket(10, 60.0, 0.5).take(6, 0.0)

    at_clock(clock, work)


@given(
    level=st.floats(0, 1),
    amount=st.integers(0, 500),
    more=st.integers(-500, 500),
    pause=st.floats(0, 100),
)
def test_a_settled_level_may_owe_but_never_overflows(
    level: float, amount: int, more: int, pause: float
) -> None:
    """A late debit goes below zero, a refund never above full, and time heals both."""
    meter = SettledBucket(100, 60.0, level, 0.0)
    meter.take(amount, 0.0)
    meter.settle(more, 0.0)

    settled = meter.left(0.0)

    assert settled == pytest.approx(min(100.0, 100 * level - amount - more))
    assert meter.left(pause) == pytest.approx(min(100.0, settled + pause * 100 / 60))


def test_a_window_forgets_all_at_once() -> None:
    """A fixed window gives nothing back before its end and everything at it."""
    meter = WindowBucket(100, 60.0, 1.0, 10.0)
    meter.take(100, 20.0)

    assert meter.left(69.9) == 0
    assert meter.reset(0, 69.0) == pytest.approx(1.0)
    assert meter.left(70.0) == 100
    meter.take(30, 200.0)
    meter.settle(90, 210.0)
    assert meter.left(210.0) == -20
    assert meter.left(250.0) == 100


@given(used=st.integers(0, 100), limit=st.integers(1, 300))
def test_a_changed_limit_keeps_what_is_used(used: int, limit: int) -> None:
    """Halving or doubling a limit forgives nothing and takes nothing."""
    clock = Clock()

    def work() -> None:
        for meter in (LeakyBucket(100, 60.0, 1.0), SettledBucket(100, 60.0, 1.0, 0.0)):
            meter.take(used, 0.0)
            meter.resize(limit, 0.0)

            assert meter.left(0.0) == pytest.approx(max(0, limit - used))

    at_clock(clock, work)
