"""The arithmetic of one bucket, and of several at once, without any clock."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Limit
from ratelimit.stores.bucket import Bucket
from tests.payments import Held

LIMIT = Limit("tokens", 100, 10)
AMOUNTS = st.floats(0, 100, allow_subnormal=False)
MOMENTS = st.floats(0, 1e5, allow_subnormal=False)


def bucket(limit: Limit = LIMIT, now: float = 0.0, slack: float = 0.0) -> Held:
    """Return a full bucket."""
    return Held(limit, now, slack)


def test_the_numbers_of_the_essay_are_right() -> None:
    """The table at the top of bucket.py is what the code does."""
    tokens = Held(Limit("tokens", 30_000))
    assert tokens.take(20_000, 0)
    assert (tokens.full_at, tokens.level(0)) == (40, 10_000)
    assert (tokens.full_at, tokens.level(10)) == (40, 15_000)
    assert not tokens.take(20_000, 10)
    assert tokens.moment(20_000) == 20
    assert tokens.take(20_000, 20)
    assert (tokens.full_at, tokens.level(20)) == (80, 0)
    tokens.give(12_000, 25)
    assert (tokens.full_at, tokens.level(25)) == (56, 14_500)
    tokens.give(-30_000, 26)
    assert (tokens.full_at, tokens.level(26)) == (116, -15_000)
    assert tokens.moment(0) == 56


@given(amount=st.floats(0.01, 30), now=MOMENTS, used=AMOUNTS)
def test_taking_three_leaves_what_three_takes_of_one_leave(
    amount: float, now: float, used: float
) -> None:
    """The size of a call changes nothing but when it fits."""
    whole, parts = bucket(), bucket()
    for each in (whole, parts):
        each.give(-used, now)
    fits = whole.take(3 * amount, now)
    if fits:
        assert all(parts.take(amount, now) for _ in range(3))
        assert whole.full_at == pytest.approx(parts.full_at, abs=1e-6)


@given(used=AMOUNTS, amount=AMOUNTS, now=MOMENTS, later=st.floats(0, 5))
def test_giving_undoes_taking(used: float, amount: float, now: float, later: float) -> None:
    """What is given back while the bucket is not full leaves it as if it had never been
    taken.
    """
    touched, untouched = bucket(), bucket()
    for each in (touched, untouched):
        each.give(-used - 100, now)  # in use, so that neither is full before the end
    touched.full_at += amount * touched.bucket.seconds_per_unit
    touched.give(amount, now + later)
    assert touched.level(now + later) == pytest.approx(untouched.level(now + later), abs=1e-6)


@given(amounts=st.lists(AMOUNTS, max_size=20), now=MOMENTS)
def test_time_that_stands_still_refills_nothing(amounts: list[float], now: float) -> None:
    """At one moment no more than the burst is taken, whatever the sizes and their
    order.
    """
    held = bucket(now=now)
    taken = sum(amount for amount in amounts if held.take(amount, now))
    assert taken <= 100 * (1 + 1e-9)
    assert held.level(now) == pytest.approx(100 - taken, abs=1e-6)


@given(used=st.floats(0, 300), amount=AMOUNTS, now=MOMENTS)
def test_the_moment_is_when_it_fits_and_not_before(used: float, amount: float, now: float) -> None:
    """No residue of rounding is waited for: what does not fit a microsecond before
    `moment` is taken at it.
    """
    held = bucket(now=now)
    held.give(-used, now)
    moment = held.moment(amount)
    if amount > 0.001 and moment > now:
        assert not held.take(amount, moment - 1e-6)
    assert held.take(amount, max(moment, now))


@given(used=AMOUNTS, amount=AMOUNTS, now=MOMENTS)
def test_a_refused_take_changes_nothing(used: float, amount: float, now: float) -> None:
    """A refusal leaves the bucket as it was."""
    held = bucket(now=now)
    held.take(used, now)
    before = held.full_at
    if not held.take(amount, now):
        assert held.full_at == before


@given(
    calls=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0.001, 100, allow_subnormal=False)), max_size=40
    )
)
def test_a_leaky_bucket_admits_and_refuses_the_same(calls: list[tuple[float, float]]) -> None:
    """A level that leaks, as aiolimiter keeps it, and a moment agree on every
    admission, but for a billionth.
    """
    held, level, seen, now = bucket(), 0.0, 0.0, 0.0
    for gap, amount in calls:
        now += gap
        level = max(0.0, level - (now - seen) * 10)
        seen = now
        room = 100 - level - amount
        taken = held.take(amount, now)
        assert taken == (room >= 0) or abs(room) < 1e-6
        level += amount * taken


@given(
    calls=st.lists(st.tuples(st.floats(0, 4), st.floats(0.001, 200), st.floats(0, 2)), max_size=40),
    burst=st.sampled_from([100.0, 70.0, 41.0]),
)
def test_what_arrives_within_the_slack_in_any_order_fits_at_the_server(
    calls: Any, burst: float
) -> None:
    """A greedy client whose requests arrive 0 to 2 s late, in any order, oversize ones
    among them: no refusal, ever.

    The server is a level that leaks; a call above the burst goes when it is full.
    """
    client, now = Held(Limit("tokens", 100, 10, burst=burst), 0.0, 2.0), 0.0
    arrivals: list[tuple[float, float]] = []
    for gap, amount, delay in calls:
        cost = min(amount, 100)
        now = max(now + gap, client.moment(cost))
        assert client.take(cost, now)
        arrivals.append((now + delay, cost))
    level, seen = burst, 0.0
    for moment, amount in sorted(arrivals):
        level, seen = min(burst, level + (moment - seen) * 10), moment
        assert level + 1e-6 >= min(amount, burst)
        level -= amount


def test_slack_costs_burst_and_never_rate() -> None:
    """A full bucket lends its burst less the slack's refill, then goes on at the full
    rate.
    """
    held = bucket(slack=2.0)
    held.bucket.expect(2.0)
    taken = 0
    while held.take(1, 0.0):
        taken += 1
    assert taken == 80
    assert all(held.take(1, held.moment(1)) for _ in range(1_000))
    assert held.moment(1) == pytest.approx(100.1, abs=0.01)


def test_slack_stays_below_half_of_the_buckets_own_window() -> None:
    """A bucket of one second would lose rate to a slack of two; it keeps at least half
    of its burst.
    """
    second = Held(Limit("requests", 10, 1), 0.0, 2.0)
    assert second.bucket.slack == 0.5
    taken = sum(second.take(1, second.moment(1)) for _ in range(1_000))
    assert taken == 1_000
    assert second.moment(1) <= 100


def test_a_call_above_the_burst_goes_when_the_bucket_is_full_and_leaves_it_in_debt() -> None:
    """Oversize borrows once; the next call waits for the debt."""
    held = Held(Limit("tokens", 100, 10, burst=20), 0.0)
    assert held.take(5, 0)
    assert held.moment(90) == 0.5
    assert not held.take(90, 0.4)
    assert held.take(90, 0.5)
    assert held.level(0.5) == -70
    assert held.moment(20) == pytest.approx(9.5)


@pytest.mark.parametrize("idle", [0.0, 5.0, 10.0, 1_000.0, 1e6])
@pytest.mark.parametrize("burst", [None, 20.0])
def test_a_cost_above_the_limit_is_never_taken(idle: float, burst: float | None) -> None:
    """However long a bucket was idle, the impossible stays impossible: idle time is not
    saved up beyond the burst.
    """
    held = Held(Limit("tokens", 100, 10, burst=burst), 0.0)
    assert held.moment(100.5) == inf
    assert not held.take(100.5, idle)
    assert held.take(100, idle)


@given(
    burst=st.sampled_from([None, 20.0, 100.0]),
    deferred=st.floats(0, 120, allow_subnormal=False),
    used=st.floats(0, 150, allow_subnormal=False),
    now=MOMENTS,
)
def test_the_level_is_the_least_of_what_the_burst_and_the_limit_have_left(
    burst: float | None, deferred: float, used: float, now: float
) -> None:
    """Deferred amounts count against the limit, not against the burst."""
    held = bucket(Limit("tokens", 100, 10, burst=burst), now)
    held.give(-used, now)
    held.deferred = deferred

    assert held.level(now) == pytest.approx(
        min((burst or 100) - used, 100 - used - deferred), abs=1e-6
    )


def test_only_tokens_are_deferred() -> None:
    """A bucket of requests is as full as it would be without any deferred output."""
    requests = bucket(Limit("requests", 100, 10))
    requests.deferred = 60

    assert requests.level(0.0) == 100
    assert not Bucket(Limit("input_tokens", 5)).defers
