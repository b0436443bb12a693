"""What a quota in a server keeps: steps taken once, the dead, clocks, its loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.sharing.redis_server import RedisServer
from ratelimit import Limit, LimiterWarning, Limits, StoreUnavailable
from ratelimit.stores.payments import Payment
from tests.steered_redis import START, Bench, SteeredStore

LIMITS = Limits(Limit("requests", 10, 10), Limit("tokens", 100, 10))
DAILY = Limits(Limit("tokens", 1_000, 86_400))
_numbers = itertools.count()


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    """A quota of this test's own."""
    made = Bench(redis_server, f"redis-{next(_numbers)}")
    yield made
    made.client.delete(made.key, f"{made.key}:time")


def call(tokens: float = 60) -> Payment:
    """A call of one request."""
    return Payment({"requests": 1, "tokens": tokens})


def tokens(store: SteeredStore, now: float) -> float:
    """What is left of the tokens."""
    (level,) = [level for (name, _), level in store.levels(now).items() if name == "tokens"]
    return level


def test_a_step_that_is_sent_again_is_taken_once(bench: Bench) -> None:
    """Its reply was lost, so nobody knows whether the server has taken it: what it
    admitted is given back, as its call went without the server meanwhile.
    """
    store, link = bench.store(LIMITS, "local")
    settled = call(40)
    assert store.take(settled, 0.0) is None
    link.broken = "after"
    store.settle(settled, {"tokens": 10}, 0.0)
    with pytest.warns(LimiterWarning, match="reset by peer"):
        assert store.take(call(50), 0.0) is None  # alone
    link.broken = ""
    bench.time.now = 1.0
    store.step()

    assert tokens(store, 1.0) == pytest.approx(100 - 10 - 50 + 10)
    other, _ = bench.store(LIMITS)
    assert tokens(other, 1.0) == pytest.approx(50)
    assert other.in_flight == 1


def test_a_grant_of_a_lost_reply_holds_nothing(bench: Bench) -> None:
    """The call that was admitted is gone: no tokens and no slot stay taken."""
    store, link = bench.store(Limits(*LIMITS, concurrency=2), "open")
    link.broken = "after"
    asked = call(60)
    with pytest.warns(LimiterWarning, match="without limits"):
        assert store.take(asked, 0.0) is None  # open: it goes, and is not counted
    store.settle(asked, {}, 0.0)
    link.broken = ""
    store.step()

    other, _ = bench.store(Limits(*LIMITS, concurrency=2))
    assert tokens(other, 0.0) == pytest.approx(100)
    assert other.in_flight == 0


def test_without_the_server_each_process_has_its_share(bench: Bench) -> None:
    """Of two processes each goes on with half, with one warning, and what it spends is
    debited when the server is back.
    """
    one, link = bench.store(LIMITS, "local")
    other, _ = bench.store(LIMITS)
    tokens(one, 0.0)
    link.broken = "before"
    with pytest.warns(LimiterWarning, match="1/2 of each limit"):
        assert one.take(call(40), 0.0) is None
    assert one.take(call(40), 0.0) is not None
    link.broken = ""
    one.step()

    assert tokens(other, 0.0) == pytest.approx(60)
    assert one.take(call(40), 0.0) is None


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_server_that_is_away_at_the_start_is_joined_later(bench: Bench, broken: str) -> None:
    """The process goes on alone until then; other limits are compared when it joins."""
    lone, link = bench.store(LIMITS, "local", broken="before" if broken == "before" else "after")
    with pytest.warns(LimiterWarning, match="1/1 of each limit"):
        assert lone.take(call(30), 0.0) is None
    link.broken = ""
    lone.step()

    other, _ = bench.store(LIMITS)
    assert tokens(other, 0.0) == pytest.approx(70)
    assert not lone.is_lost


def test_a_lost_server_can_raise(bench: Bench) -> None:
    """At once, in words; and calls go again when it is back."""
    store, link = bench.store(LIMITS, "raise")
    link.broken = "before"
    with (
        pytest.warns(LimiterWarning, match="raise StoreUnavailable"),
        pytest.raises(StoreUnavailable, match="refused"),
    ):
        store.take(call(), 0.0)
    link.broken = ""
    store.step()

    assert store.take(call(), 0.0) is None


def test_an_emptied_server_starts_from_what_is_known(bench: Bench) -> None:
    """Not from full buckets: the first process that comes back tells what it knew, and
    the next one whatever it knows more.
    """
    one, _ = bench.store(LIMITS)
    other, _ = bench.store(LIMITS)
    one.take(call(50), 0.0)
    tokens(other, 0.0)
    one.take(call(30), 0.0)
    bench.client.delete(bench.key)
    bench.time.now = 1.0

    assert tokens(other, 1.0) == pytest.approx(60)
    assert tokens(one, 1.0) == pytest.approx(30)
    assert tokens(other, 1.0) == pytest.approx(30)
    assert other.in_flight == 2


@pytest.mark.parametrize("jump", [-600.0, 600.0])
def test_a_step_of_the_servers_clock_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Neither a full bucket nor a debt comes of it: time is what has passed here."""
    one, _ = bench.store(LIMITS)
    other, _ = bench.store(LIMITS)
    one.take(call(80), 0.0)
    tokens(other, 0.0)
    bench.time.now = 1.0
    tokens(one, 1.0)
    tokens(other, 1.0)
    monkeypatch.setattr("tests.steered_redis.START", START + jump)

    bench.time.now = 2.0
    assert tokens(one, 2.0) == pytest.approx(40, abs=11)
    bench.time.now = 3.0
    assert tokens(other, 3.0) == pytest.approx(tokens(one, 3.0))
    assert tokens(one, 3.0) == pytest.approx(50, abs=11)


def test_clocks_of_hosts_that_differ_change_nothing(bench: Bench) -> None:
    """Each process has moments of its own: levels, waits and places are the same."""
    here, _ = bench.store(LIMITS)
    there, _ = bench.store(LIMITS, ahead=300.0)
    here.take(call(100), 0.0)
    wait = there.take(call(50), 300.0, rank=300.0)
    assert wait is not None
    assert wait.until == pytest.approx(301.0)
    bench.time.now = 1.0

    assert here.take(call(1), 1.0, rank=1.0) is not None  # behind the other host's head
    assert tokens(there, 301.0) == pytest.approx(10)


def test_a_killed_process_gives_its_slots_back(bench: Bench) -> None:
    """Ten seconds after it was seen last; what it has debited stays debited."""
    limits = Limits(*LIMITS, concurrency=1)
    killed, _ = bench.store(limits)
    other, _ = bench.store(limits)
    killed.take(call(60), 0.0)
    bench.time.now = 9.0
    assert other.take(call(1), 9.0) is not None
    bench.time.now = 10.5

    assert other.take(call(1), 10.5) is None
    assert other.processes == 1


def test_a_frozen_process_that_goes_on_has_its_slots_again(bench: Bench) -> None:
    """It was not dead: what it has in flight counts as soon as it is seen."""
    frozen, _ = bench.store(LIMITS)
    other, _ = bench.store(LIMITS)
    frozen.take(call(60), 0.0)
    bench.time.now = 20.0
    tokens(other, 20.0)
    assert other.in_flight == 0
    frozen.step()

    tokens(other, 20.0)
    assert other.in_flight == 1


def test_a_process_that_ends_is_counted_no_more(bench: Bench) -> None:
    """And what it had to say is known, once."""
    ending, _ = bench.store(LIMITS)
    other, _ = bench.store(LIMITS)
    payment = call(60)
    ending.take(payment, 0.0)
    ending.settle(payment, {"tokens": 10}, 0.0)
    ending.leave(1.0)
    ending.leave(1.0)

    assert tokens(other, 0.0) == pytest.approx(90)
    assert other.processes == 1


def test_a_quota_lives_until_it_is_refilled(bench: Bench) -> None:
    """Its key has a time to live from the first step on: longer than what is owed, so
    that no daily limit starts anew, and not for months, whatever the debt.
    """
    store, _ = bench.store(DAILY)
    assert 0 < bench.client.pttl(bench.key) / 1e3 <= 3_600
    drained = Payment({"tokens": 1_000})
    store.take(drained, 0.0)
    assert bench.client.pttl(bench.key) / 1e3 > 86_400
    store.settle(drained, {"tokens": 1e9}, 0.0)

    assert 86_400 < bench.client.pttl(bench.key) / 1e3 <= 32 * 86_400


def test_a_script_that_was_flushed_fails_no_call(bench: Bench) -> None:
    """The server has been told to forget all scripts, or was started again."""
    store, _ = bench.store(LIMITS)
    bench.client.script_flush()

    assert store.take(call(), 0.0) is None


def test_a_quota_of_something_else_is_left_alone(bench: Bench) -> None:
    """Under the key stands a value of another program."""
    bench.client.set(bench.key, "the diary of somebody")
    store, _ = bench.store(LIMITS, "local")
    with pytest.warns(LimiterWarning, match="shared store is lost"):
        assert store.take(call(), 0.0) is None

    assert bench.client.get(bench.key) == b"the diary of somebody"


def test_other_limits_are_said_and_the_newest_hold(bench: Bench) -> None:
    """For all processes, from the next step on."""
    one, _ = bench.store(LIMITS)
    other, _ = bench.store(Limits(Limit("requests", 10, 10), Limit("tokens", 50, 10)))
    with pytest.warns(LimiterWarning, match="were given different limits"):
        other.take(call(5), 0.0)

    assert tokens(one, 0.0) == pytest.approx(45)
    assert [limit.amount for limit in one.limits] == [10, 50]
    again, _ = bench.store(Limits(Limit("requests", 10, 10), Limit("tokens", 50, 10)))
    again.take(call(5), 0.0)  # says nothing: it was given what holds


@pytest.mark.parametrize("broken", ["before", "after"])
def test_limits_that_are_given_in_an_outage_hold_for_all_afterwards(
    bench: Bench, broken: str
) -> None:
    """The server learns them when it is back, whatever step was on its way."""
    one, link = bench.store(LIMITS, "local")
    other, _ = bench.store(LIMITS)
    tokens(one, 0.0)
    link.broken = "before" if broken == "before" else "after"
    with pytest.warns(LimiterWarning, match="1/2 of each limit"):
        one.take(call(10), 0.0)
    one.give(Limits(Limit("requests", 10, 10), Limit("tokens", 70, 10)), 0.0)
    assert one.given == one.limits
    link.broken = ""
    one.step()

    assert tokens(other, 0.0) == pytest.approx(60)
    assert [limit.amount for limit in other.limits] == [10, 70]
    assert one.limits == other.limits == one.given


def test_a_restart_goes_on_from_the_level_that_was_left(bench: Bench) -> None:
    """Unless it was left for longer than such a figure is worth anything."""
    first, _ = bench.store(DAILY)
    assert not first.remembers
    first.take(Payment({"tokens": 900}), 0.0)
    bench.time.now = 60.0
    second, _ = bench.store(DAILY)

    assert second.remembers
    assert tokens(second, 60.0) == pytest.approx(100, abs=1)
    bench.time.now = 7_200.0
    assert not bench.store(DAILY)[0].remembers


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 60), st.integers(0, 8), st.integers(0, 9)),
        max_size=25,
    )
)
def test_nobody_is_overtaken_for_longer_than_a_moment(
    bench: Bench, calls: list[tuple[int, int, int, int]]
) -> None:
    """While the head of one process waits, no call of another one goes that came more
    than a quarter of a second of rank later, whatever their sizes.
    """
    bench.plain = False
    bench.client.delete(bench.key)
    bench.time.now = 0.0
    stores = [bench.store(LIMITS)[0] for _ in range(3)]
    heads: dict[int, tuple[float, Payment, float]] = {}
    for number, size, wait, patience in calls:
        bench.time.now += wait / 10
        now = bench.time.now
        rank, payment, _ = heads.get(number, (now + patience / 10, call(size), 0.0))
        answer = stores[number].take(payment, now, rank=rank)
        if answer is not None and not payment.paid:
            heads[number] = rank, payment, now
            continue
        heads.pop(number, None)
        seen_within = now - 1  # a place counts at least that long after it was asked for
        waiting = [head for head, _, asked in heads.values() if asked > seen_within]
        assert all(rank <= head + 0.25 + 1e-6 for head in waiting)


def test_a_call_that_fits_within_a_moment_is_admitted_to_go_then(bench: Bench) -> None:
    """It is debited at once and waits by itself: the server is not asked again."""
    bench.plain = False
    store, link = bench.store(LIMITS)
    store.take(call(100), 0.0)
    soon = call(2)
    wait = store.take(soon, 0.0, rank=0.0)
    assert wait is not None
    assert soon.paid
    assert wait.until == pytest.approx(0.2)
    before = link.round_trips
    assert store.take(soon, 0.1, rank=0.0) is not None

    assert store.take(soon, 0.201, rank=0.0) is None
    assert link.round_trips == before


def test_corrections_count_before_the_server_has_them(bench: Bench) -> None:
    """What headers have shown is not applied twice because a step is on its way."""
    store, _ = bench.store(LIMITS)
    other, _ = bench.store(LIMITS)
    store.quiet = True
    (bucket,) = store.buckets_of("tokens")
    store.correct(bucket, 2.0, 0.0)
    assert store.corrected(bucket) == pytest.approx(2.0)
    assert tokens(other, 0.0) == pytest.approx(100)
    store.step()

    assert tokens(store, 0.0) == pytest.approx(80)
    assert store.corrected(bucket) == pytest.approx(2.0)
