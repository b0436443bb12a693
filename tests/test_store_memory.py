"""Buckets in memory: atomic over all of them, exact under contention, safe from
inside.
"""

from __future__ import annotations

import threading
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, ReentrantUse, RequestTooLarge, locks
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Payment, Wait
from tests.payments import paid, refused

LIMITS = Limits(Limit("requests", 10, 10), Limit("tokens", 100, 10))
CALL = {"requests": 1, "tokens": 60}


def level(store: MemoryStore, name: str, now: float = 0.0) -> float:
    """Return what is left of one limit per 10 s."""
    return store.levels(now)[name, 10]


def test_all_buckets_pay_or_none() -> None:
    """A call that lacks tokens costs no request either; its wait ends when both fit."""
    store = MemoryStore(LIMITS, 0.0)
    paid(store, CALL)

    assert refused(store, CALL).until == pytest.approx(2)
    assert (level(store, "requests"), level(store, "tokens")) == (9, 40)
    assert store.in_flight == 1


@pytest.mark.parametrize("short", ["requests", "images", "tokens"])
def test_a_bucket_that_cannot_pay_costs_the_rest_nothing(short: str) -> None:
    """Whichever of three buckets refuses, all three stay as they were."""
    store = MemoryStore(
        Limits(Limit("requests", 10, 10), Limit("images", 10, 10), Limit("tokens", 10, 10)), 0.0
    )
    paid(store, {short: 10})
    before = dict(store.levels(0.0))
    refused(store, {"requests": 1, "images": 1, "tokens": 1})

    assert store.levels(0.0) == before


def test_a_deferred_output_is_not_held_where_another_bucket_refuses() -> None:
    """If one bucket cannot pay, nothing is deferred either."""
    store = MemoryStore(Limits(Limit("tokens", 100, 10), Limit("requests", 1, 10)), 0.0)
    paid(store, {"requests": 1})
    refused(store, {"requests": 1, "tokens": 50}, 1.0, deferred=40)

    assert level(store, "tokens", 1.0) == 100


@settings(max_examples=200)
@given(
    burst=st.sampled_from([None, 40.0]),
    slack=st.sampled_from([0.0, 1.5]),
    calls=st.lists(
        st.tuples(
            st.floats(0, 5, allow_subnormal=False),
            st.floats(0.1, 100, allow_subnormal=False),
            st.floats(0, 60, allow_subnormal=False),
        ),
        max_size=12,
    ),
)
def test_a_store_admits_what_its_bucket_admits(
    burst: float | None, slack: float, calls: list[tuple[float, float, float]]
) -> None:
    """The short way that all calls take through a store agrees with `Bucket`."""
    limit = Limit("tokens", 100, 10, burst=burst)
    store, bucket = MemoryStore(Limits(limit), 0.0, slack), Bucket(limit, slack)
    full_at, deferred, now = 0.0, 0.0, 0.0
    for gap, at_once, defers in calls:
        now += gap
        fits = bucket.moment(full_at, at_once, defers, deferred) <= now
        payment = Payment({"tokens": at_once + defers}, defers)
        assert (store.take(payment, now) is None) == fits
        if fits:
            full_at, deferred = bucket.taken(full_at, at_once, now), deferred + defers

        assert store.levels(now)["tokens", 10] == pytest.approx(
            bucket.level(full_at, now, deferred), abs=1e-6
        )


def test_dimensions_without_a_limit_cost_nothing() -> None:
    """A cost may name what no limit holds, and nothing at all."""
    store = MemoryStore(LIMITS, 0.0)
    paid(store, {"images": 1e9})
    paid(store, {})

    assert (level(store, "requests"), level(store, "tokens")) == (10, 100)
    assert store.in_flight == 2


def test_a_slot_is_freed_by_an_end_and_only_once() -> None:
    """With a cap the wait has no end; settling an ended call again frees no second
    slot.
    """
    store = MemoryStore(Limits(concurrency=2), 0.0)
    first, _ = paid(store), paid(store)
    assert refused(store).until == inf
    assert store.full

    store.settle(first, {}, 0.0)
    store.settle(first, {}, 0.0)
    paid(store)
    assert refused(store).until == inf


@pytest.mark.parametrize("state", ["open", "closed", "full"])
def test_a_cost_that_never_fits_raises_at_once(state: str) -> None:
    """Also while the store is closed or as many calls are in flight as may be."""
    store = MemoryStore(Limits(*LIMITS, concurrency=1), 0.0)
    if state == "closed":
        store.close(100)
    elif state == "full":
        paid(store)
    with pytest.raises(
        RequestTooLarge, match=r"needs 101 tokens, the limit is 100 tokens/10 s.*never"
    ) as raised:
        store.take(Payment({"requests": 1, "tokens": 101}), 50.0)

    assert (raised.value.name, raised.value.amount, raised.value.limit) == ("tokens", 101, 100)
    assert level(store, "requests", 50) == 10


def test_nothing_is_admitted_while_a_store_is_closed() -> None:
    """Until the latest moment named, and certainly not before it."""
    store = MemoryStore(LIMITS, 0.0)
    store.close(30)
    store.close(20)

    assert refused(store, CALL, 10) == Wait(30, 30)
    assert store.moment(CALL) == 30
    paid(store, CALL, 30)


def test_other_limits_keep_what_is_owed() -> None:
    """When limits change, a debt stays as many tokens; new dimensions begin full."""
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, {"requests": 4, "tokens": 100})
    store.settle(call, {"tokens": 150}, 0.0)
    store.replace(Limits(Limit("tokens", 200, 10), Limit("images", 5, 10)), 0.0)

    assert level(store, "tokens") == 50
    assert level(store, "images") == 5
    with pytest.raises(RequestTooLarge):
        store.take(Payment({"tokens": 201}), 0.0)


def test_other_limits_keep_what_calls_in_flight_have_deferred() -> None:
    """A deferred output is held until its call ends, under whatever limits."""
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, {"tokens": 80}, deferred=70)
    store.replace(Limits(Limit("tokens", 200, 10)), 0.0)

    assert level(store, "tokens") == 200 - 10 - 70
    store.settle(call, {"tokens": 15}, 0.0)
    assert level(store, "tokens") == 200 - 15


def test_a_correction_moves_the_level_and_is_remembered() -> None:
    """What headers show shifts ``full_at``, from now on where the bucket was full."""
    store = MemoryStore(LIMITS, 0.0)
    (bucket,) = store.buckets_of("tokens")
    store.correct(bucket, 3, 50)
    assert level(store, "tokens", 50) == pytest.approx(70)

    store.correct(bucket, -1, 50)
    assert level(store, "tokens", 50) == pytest.approx(80)
    assert store.corrected(bucket) == 2


def test_a_correction_of_a_replaced_bucket_moves_nothing() -> None:
    """It was calculated for a limit that holds no longer."""
    store = MemoryStore(LIMITS, 0.0)
    (bucket,) = store.buckets_of("tokens")
    store.replace(Limits(Limit("tokens", 50, 10)), 0.0)
    store.correct(bucket, 3, 0.0)

    assert level(store, "tokens") == 50
    assert store.corrected(bucket) is None


@settings(max_examples=300)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("wait"), st.floats(0, 50)),
            st.tuples(st.just("take"), st.floats(1, 100)),
            st.tuples(st.just("lower"), st.floats(0, 500)),
            st.tuples(st.just("revert"), st.just(0.0)),
        ),
        max_size=20,
    )
)
def test_giving_up_what_was_said_from_outside_gives_nothing_away(
    steps: list[tuple[str, float]],
) -> None:
    """However often levels are lowered and that is taken back, no bucket is ever above
    the one that only counted the calls.
    """
    limits = Limits(Limit("tokens", 100, 10))
    store, counted, now = MemoryStore(limits, 0.0), MemoryStore(limits, 0.0), 0.0
    for step, amount in steps:
        if step == "wait":
            now += amount
        elif step == "take" and store.take(Payment({"tokens": amount}), now) is None:
            assert counted.take(Payment({"tokens": amount}), now) is None
        elif step == "lower":
            store.correct(store.buckets_of("tokens")[0], amount, now)
        elif step == "revert":
            store.revert(limits, now)

        assert level(store, "tokens", now) <= level(counted, "tokens", now) + 1e-6


@given(
    taken=st.floats(0, 50),
    lowered=st.floats(0, 5),
    amounts=st.lists(st.floats(50, 1_000), max_size=5),
)
def test_limits_that_change_and_change_back_give_nothing_away(
    taken: float, lowered: float, amounts: list[float]
) -> None:
    """What was spent stays spent, whatever limits are believed in between."""
    store = MemoryStore(Limits(Limit("tokens", 100, 10)), 0.0)
    paid(store, {"tokens": taken})
    store.correct(store.buckets_of("tokens")[0], lowered, 0.0)
    for amount in amounts:
        store.replace(Limits(Limit("tokens", amount, 10)), 0.0)
    store.revert(Limits(Limit("tokens", 100, 10)), 0.0)

    assert level(store, "tokens") <= 100 - taken + 1e-6


def test_what_a_correction_took_and_refilled_is_not_given_back() -> None:
    """After two periods nothing of it is left, so giving it up gives nothing."""
    store = MemoryStore(LIMITS, 0.0)
    store.correct(store.buckets_of("tokens")[0], 10.0, 0.0)
    paid(store, {"tokens": 100}, 20.0)

    assert not store.revert(LIMITS, 20.0)
    assert level(store, "tokens", 20.0) == 0


def interrupt(store: MemoryStore, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``act`` run inside the next `take`, while it holds the lock.

    As a finalizer or signal handler would.
    """
    store._plain = False  # the general way, which asks `Buckets`
    real = Buckets.after_take

    def interrupted(buckets: Buckets, payment: Payment, now: float) -> list[float] | None:
        monkeypatch.setattr(Buckets, "after_take", real)
        assert store._lock.locked()
        act()
        return real(buckets, payment, now)

    monkeypatch.setattr(Buckets, "after_take", interrupted)


def test_what_a_finalizer_does_inside_take_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """`settle`, `close` and `correct` from inside the locked part neither block nor
    vanish.
    """
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, CALL)

    def act() -> None:
        store.settle(call, {"requests": 0, "tokens": 0}, 0.0)
        store.correct(store.buckets_of("requests")[0], 1.0, 0.0)
        store.close(5.0)

    interrupt(store, act, monkeypatch)
    paid(store, {"requests": 1, "tokens": 10})
    assert store.in_flight == 1
    assert level(store, "requests") == pytest.approx(8)
    assert level(store, "tokens") == pytest.approx(90)
    assert refused(store).not_before == 5.0


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_finalizer_does_inside_settle_is_not_lost(
    ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way a settlement goes, what came meanwhile is applied after it."""
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, CALL, parent=paid(store, CALL | {"tokens": 1}))
    if ended:
        store.settle(call, {"tokens": 3}, 0.0)
    settled = store._settle

    def interrupted(*args: Any) -> None:
        settled(*args)
        store.close(5.0)

    monkeypatch.setattr(store, "_settle", interrupted)
    store.settle(call, {"tokens": 2}, 0.0)

    assert store.closed_until == 5.0


def test_admitting_from_inside_take_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal handler that asks for admission inside one gets it; that one goes on."""
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    store = MemoryStore(LIMITS, 0.0)

    def act() -> None:
        store._wait_steps = locks.wait_steps(store._lock)  # with the shorter patience
        with pytest.raises(ReentrantUse):
            store.take(Payment(CALL), 0.0)

    interrupt(store, act, monkeypatch)
    paid(store, CALL)
    assert store.in_flight == 1


def test_a_refund_given_before_a_take_counts_for_it() -> None:
    """A refund that is in the inbox still is given before the next call is looked
    at.
    """
    store = MemoryStore(Limits(*LIMITS, concurrency=1), 0.0)
    call = paid(store, {"requests": 1, "tokens": 100})
    store._lock.acquire()  # another thread, in the middle of its take
    store.settle(call, {"tokens": 0}, 0.0)
    store._lock.release()  # it is interrupted here, before it looks into the inbox

    paid(store, {"requests": 1, "tokens": 100})


def test_of_two_settlements_the_later_counts_also_when_the_first_waits_in_the_inbox() -> None:
    """The inbox is emptied first: what is in it was said before."""
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, CALL)
    store._lock.acquire()
    store.settle(call, {"tokens": 10}, 0.0)
    store._lock.release()
    store.settle(call, {"tokens": 30}, 0.0)

    assert level(store, "tokens") == 70
    assert call.held["tokens"] == 30


def test_one_thread_at_a_time_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread takes, no other does, however long it is held up in the
    middle.
    """
    store = MemoryStore(LIMITS, 0.0)
    inside: list[int] = []
    most: list[int] = []
    real = Buckets.after_take

    def slow(buckets: Buckets, payment: Payment, now: float) -> list[float] | None:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.001)  # lets the other threads come
        inside.pop()
        return real(buckets, payment, now)

    monkeypatch.setattr(Buckets, "after_take", slow)
    store._plain = False  # the general way, which asks `Buckets`
    threads = [
        threading.Thread(target=store.take, args=(Payment({"tokens": 1}), 0.0)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 8
    assert store.admitted == 8


@pytest.mark.usefixtures("eager_switching")
def test_contention_loses_and_invents_nothing() -> None:
    """Threads that take and settle as fast as they can end with exact sums.

    Of admissions, of ends and in every bucket.
    """
    store = MemoryStore(
        Limits(Limit("requests", 1e9, 1e9), Limit("tokens", 4_000, 1e9), concurrency=5), 0.0
    )
    taken = [0] * 4
    barrier = threading.Barrier(4)

    def work(index: int) -> None:
        barrier.wait()
        for turn in range(1_500):
            payment = Payment({"requests": 1, "tokens": 3}, deferred=2)
            if store.take(payment, 0.0) is None:
                taken[index] += 1
                store.settle(payment, {"tokens": 0} if turn % 2 else {}, 0.0)
                store.settle(payment, {"tokens": 1}, 0.0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    total = sum(taken)
    assert total > 100
    assert store.admitted == store.ended == total
    assert store.levels(0.0)["tokens", 1e9] == pytest.approx(4_000 - total, abs=1e-3)
    assert not store._lock.locked()
    assert not store._inbox


@settings(max_examples=200)
@given(
    ahead=st.lists(st.floats(0, 100, allow_subnormal=False), max_size=6),
    amount=st.floats(0.1, 100, allow_subnormal=False),
    burst=st.sampled_from([100.0, 40.0]),
)
def test_the_predicted_moment_is_the_one_at_which_a_call_is_admitted(
    ahead: list[float], amount: float, burst: float
) -> None:
    """Behind calls that give nothing back, `moment` and `not_before` are when it goes.

    Oversize calls too, if all calls before it go as soon as they can.
    """
    limits = Limits(Limit("tokens", 100, 10, burst=burst))
    store, now = MemoryStore(limits, 0.0), 0.0
    empty = MemoryStore(limits, 0.0)
    predicted = empty.moment({"tokens": amount}, ahead={"tokens": sum(ahead)})
    certain = empty.not_before(Payment({"tokens": amount}), 0.0, {"tokens": sum(ahead)})
    for cost in [*ahead, amount]:
        payment = Payment({"tokens": cost})
        wait = store.take(payment, now)
        if wait is not None:
            now = max(now, wait.until)
            assert store.take(payment, now) is None

    assert predicted == certain
    assert max(predicted, 0.0) <= now + 1e-6
    if all(cost <= burst for cost in ahead):
        assert now == pytest.approx(max(predicted, 0.0), abs=1e-6)


@settings(max_examples=200)
@given(
    calls=st.lists(
        st.tuples(st.floats(1, 60), st.booleans(), st.floats(0, 1)), min_size=1, max_size=6
    ),
    amount=st.floats(1, 100, allow_subnormal=False),
)
def test_no_refund_lets_a_call_go_before_the_certain_moment(
    calls: list[tuple[float, bool, float]], amount: float
) -> None:
    """Whatever calls in flight give back, `Wait.not_before` holds.

    A call that keeps its cost gives nothing back but its request, and that only where
    nothing was sent.
    """
    store = MemoryStore(Limits(Limit("tokens", 100, 10), Limit("requests", 6, 10)), 0.0)
    flying = []
    for tokens, keeps, share in calls:
        payment = Payment({"requests": 1, "tokens": tokens})
        payment.keeps = keeps
        if store.take(payment, 0.0) is None:
            flying.append((payment, {} if keeps else {"tokens": share * tokens}))
    asked = Payment({"requests": 1, "tokens": amount})
    wait = store.take(asked, 0.0)
    if wait is None:
        return

    for payment, used in flying:
        store.settle(payment, used, 0.0)
    if wait.not_before > 1e-6:
        assert store.take(asked, wait.not_before - 1e-6) is not None


@pytest.mark.parametrize("share", [-1e-9, 0.0, 0.3, 1.0])
def test_what_was_spent_before_is_dated_like_a_debit(share: float) -> None:
    """The level at the start holds when the first request can have arrived."""
    store = MemoryStore(LIMITS, 0.0, 2.0)
    store.spend(max(share, 0.0), 0.0)

    assert level(store, "tokens", 2.0) == pytest.approx(100 - 100 * max(share, 0.0), abs=1e-6)
