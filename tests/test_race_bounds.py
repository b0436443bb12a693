"""The lower bound of the benchmark `compare.py`, against all schedules of tiny servers.

Owns a server of a few lines, simulated move by move, that shares no arithmetic with the
bound. Must never use the fake server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.race.bounds import Bucket, Demand, bound
from benchmarks.race.servers import course_for, terms_of

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

NEVER = Demand(4, 4)  # charged on arrival, for good
SETTLED = Demand(1, 4)  # charged little, settled to the usage
REFUNDED = Demand(4, 2)  # charged the most, what was not used comes back


@dataclass
class Server:
    """A level that moves from event to event."""

    bucket: Bucket
    now: float
    level: float

    def at(self, moment: float, started: float) -> None:
        """Let time pass."""
        limit, period = self.bucket.limit, self.bucket.period
        if self.bucket.fixed:
            if (moment - started) // period > (self.now - started) // period:
                self.level = limit
        else:
            self.level = min(limit, self.level + (moment - self.now) * limit / period)
        self.now = moment


def finish(
    admissions: Sequence[float], demands: Sequence[Demand], tails: Sequence[float], bucket: Bucket
) -> float:
    """Return when all is answered and nothing owed; inf if a call is refused."""
    started = min(admissions)
    server = Server(bucket, started, bucket.limit * bucket.level)
    events = []
    for moment, demand, tail in zip(admissions, demands, tails, strict=True):
        more = demand.settled - demand.admitted
        # in one moment, what helps comes first
        events += [(moment, 1, demand.admitted), (moment + tail, 0 if more < 0 else 2, more)]
    for moment, kind, amount in sorted(events):
        server.at(moment, started)
        if kind == 1 and server.level < amount:
            return inf
        server.level = min(bucket.limit, server.level - amount)
    debt = 0.0 if bucket.fixed else max(0.0, -server.level) * bucket.period / bucket.limit
    return server.now + debt


def best(
    arrivals: Sequence[float],
    demands: Sequence[Demand],
    tails: Sequence[float],
    bucket: Bucket,
    horizon: int,
) -> float:
    """The earliest finish over every schedule in whole seconds."""
    choices = (range(int(arrival), int(arrival) + horizon) for arrival in arrivals)
    return min(finish(admissions, demands, tails, bucket) for admissions in product(*choices))


amounts = st.integers(0, 4)
tails_of = st.integers(1, 4)  # an answer is never there in the moment of its admission
jobs = st.lists(st.tuples(st.integers(0, 5), amounts, amounts, tails_of), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
# an early job's refund lets late ones in
@example(jobs=[(0, 4, 0, 4), (4, 3, 3, 1), (4, 4, 4, 1)], limit=4, level=1.0, fixed=False)
@given(
    jobs=jobs, limit=st.integers(4, 6), level=st.sampled_from([0.0, 0.5, 1.0]), fixed=st.booleans()
)
def test_no_schedule_beats_the_bound(
    jobs: list[tuple[int, int, int, int]], limit: int, level: float, fixed: bool
) -> None:
    """The bound is never later than what some schedule achieves, whatever is charged,
    settled or refunded.
    """
    jobs.sort()
    arrivals = [float(arrival - jobs[0][0]) for arrival, *_ in jobs]
    demands = [Demand(admitted, settled) for _, admitted, settled, _ in jobs]
    tails = [float(tail) for *_, tail in jobs]
    bucket = Bucket("tokens", limit, limit, level, fixed=fixed)

    assert (
        bound(arrivals, demands, bucket, tails=tails)
        <= best(arrivals, demands, tails, bucket, 12) + 1e-5
    )


@pytest.mark.parametrize("demand", [NEVER, SETTLED, REFUNDED])
@pytest.mark.parametrize("arrivals", [(0.0, 0.0, 0.0), (0.0, 1.0, 6.0)])
def test_the_bound_is_near_what_can_be_done(demand: Demand, arrivals: tuple[float, ...]) -> None:
    """On equal calls the bound is at most one call's time below the best schedule."""
    bucket, tails = Bucket("tokens", 4, 4), [2.0, 2.0, 2.0]
    achieved = best(arrivals, [demand] * 3, tails, bucket, 14)

    assert achieved - tails[0] <= bound(arrivals, [demand] * 3, bucket, tails=tails) <= achieved


def test_the_parts_of_the_bound_in_numbers() -> None:
    """Each part of the bound (paid, admitted, answered, the way) has its share."""
    bucket = Bucket("tokens", 60, 60)  # one a second, a minute's worth at once

    assert bound(
        [0.0] * 10, [Demand(10, 10)] * 10, bucket, there=1, tails=[5.0] * 10
    ) == pytest.approx(1 + 40 + 5)
    assert bound(
        [0.0] * 10, [Demand(1, 10)] * 10, bucket, there=1, tails=[5.0] * 10
    ) == pytest.approx(1 + 40)
    assert bound(
        [0.0] * 10, [Demand(20, 10)] * 10, bucket, there=1, tails=[5.0] * 10
    ) == pytest.approx(1 + 40 + 10 + 5)
    assert bound(
        [0.0, 300.0], [Demand(10, 10)] * 2, bucket, there=1, tails=[5.0] * 2
    ) == pytest.approx(300 + 1 + 5)
    assert bound(
        [0.0] * 10, [Demand(10, 10)] * 10, Bucket("tokens", 60, 60, 0.5), there=1
    ) == pytest.approx(1 + 70)


@pytest.mark.parametrize(
    ("variant", "names"),
    [("P", {"rpm/60s", "tpm/60s"}), ("H", {"rpm/60s", "rpd/86400s", "tpm/60s", "tpd/86400s"})],
)
def test_every_limit_of_the_server_counts(variant: str, names: set[str]) -> None:
    """The bound knows each bucket that the variant enforces."""
    terms = terms_of(course_for("tokens", variant, 0, scale=(0.02, 1)), variant)

    assert names == {bucket.name for bucket in terms.buckets}
