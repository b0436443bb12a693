"""How far a bucket is from the server's, judged by header after header."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.control.drift import Drift, Observation


class World:
    """A server's bucket and ours, of 60 requests a minute: one second a request."""

    def __init__(self) -> None:
        self.server = 0.0
        self.ours = 0.0
        self.corrected = 0.0
        self.drift = Drift()

    def admit(self, now: float) -> float:
        self.ours = max(self.ours, now) + 1
        return self.ours - self.corrected

    def arrive(self, now: float) -> float:
        self.server = max(self.server, now) + 1
        return int(60 - (self.server - now))

    def observe(
        self,
        level: float,
        admitted_at: float,
        headers_at: float,
        mark: float,
        *,
        since: int = 0,
        alone: bool = True,
    ) -> float:
        moved = self.drift.observe(
            Observation(
                level=level,
                burst=60,
                seconds_per_unit=1,
                admitted_at=admitted_at,
                headers_at=headers_at,
                full_at=mark,
                corrected=self.corrected,
                admitted_since=since,
                was_alone=alone,
            )
        )
        self.ours = max(self.ours, headers_at) + moved
        self.corrected += moved
        return moved


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(0.01, 0.5), st.floats(0.01, 2)),
        min_size=1,
        max_size=30,
    )
)
def test_the_level_of_a_lone_caller_is_never_above_the_servers(
    calls: list[tuple[float, float, float]],
) -> None:
    """Call by call, whatever the times in between.

    Less what a header cannot show: the way to the server and a part of a unit.
    """
    world = World()
    now = 1_000.0
    for pause, way, work in calls:
        now += pause
        mark = world.admit(now)
        level = world.arrive(now + way)
        headers_at = now + way + work
        world.observe(level, now, headers_at, mark)
        assert max(world.ours, headers_at) >= max(world.server, headers_at) - 1 - 0.5
        now = headers_at


def test_another_tenant_is_noticed_at_the_next_answer() -> None:
    """After thirty requests of another client one answer brings the server's level.

    The first answer is dated by its headers: our level is below the server's by up to
    what refills until then.
    """
    world = World()
    world.server = 1_030.0
    mark = world.admit(1_000.0)
    moved = world.observe(world.arrive(1_000.1), 1_000.0, 1_000.5, mark)

    assert 28 <= moved <= 31
    assert 0 <= world.ours - world.server <= 1.1


@pytest.mark.parametrize("seed", range(50))
def test_calls_that_overtake_each_other_are_not_taken_for_another_tenant(seed: int) -> None:
    """A burst arrives out of order: our level does not sink for calls that came
    early.
    """
    generator = Random(seed)
    world = World()
    now = 1_000.0
    marks = [world.admit(now) for _ in range(24)]
    before = world.ours
    for call in sorted(range(24), key=lambda number: number + generator.gauss(0, 4)):
        level = world.arrive(now + 0.1)
        world.observe(level, now, now + 0.2, marks[call], since=23 - call, alone=False)

    assert world.ours >= world.server - 1
    assert world.ours - before <= 3


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e15),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_drift_is_always_a_finite_number(level: float, since: int, alone: bool) -> None:
    """Whatever a header shows, what comes out can be applied."""
    world = World()

    mark = world.admit(1_000.0)
    moved = world.observe(level, 1_000.0, 1_000.5, mark, since=since, alone=alone)
    assert abs(moved) <= 1e15
