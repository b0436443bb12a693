"""Buckets in memory: atomic over all of them, exact under contention, and safe from
inside.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import repeat
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, ReentrantUse, RequestTooLarge, locks
from ratelimit.stores import memory
from ratelimit.stores.bucket import take_all
from ratelimit.stores.memory import MemoryStore
from tests.interruptions import interruptions

LIMITS = Limits(Limit("requests", 10, 10), Limit("tokens", 100, 10))
CALL = {"requests": 1, "tokens": 60}


def level(store: MemoryStore, name: str, now: float = 0.0) -> float:
    """What is left of one limit per 10 s."""
    return store.levels(now)[name, 10]


def test_all_buckets_pay_or_none() -> None:
    """A call that lacks tokens costs no request either, and is told when both will do."""
    store = MemoryStore(LIMITS, 0.0)
    assert store.take(CALL, 0.0) == ()
    assert store.take(CALL, 0.0) == pytest.approx(2)
    assert (level(store, "requests"), level(store, "tokens")) == (9, 40)
    assert store.in_flight == 1


def test_dimensions_without_a_limit_cost_nothing() -> None:
    """A cost may name what nobody limits, and nothing at all."""
    store = MemoryStore(LIMITS, 0.0)
    assert store.take({"images": 1e9}, 0.0) == ()
    assert store.take({}, 0.0) == ()
    assert (level(store, "requests"), level(store, "tokens")) == (10, 100)
    assert store.in_flight == 2


def test_a_slot_is_freed_by_what_ends_and_only_once_each() -> None:
    """With a cap the answer is "when a call ends"; a settlement that corrects an ended
    call frees nothing.
    """
    store = MemoryStore(Limits(concurrency=2), 0.0)
    assert store.take({}, 0) == store.take({}, 0) == ()
    assert store.take({}, 0) == inf
    assert store.full
    store.give({}, 0, ends=False)
    assert store.take({}, 0) == inf
    store.give({}, 0, ends=True)
    assert store.take({}, 0) == ()


@pytest.mark.parametrize("state", ["open", "closed", "full"])
def test_the_impossible_is_told_at_once(state: str) -> None:
    """Too large is too large, also while the line is closed or as many calls are in
    flight as may be.
    """
    store = MemoryStore(Limits(*LIMITS, concurrency=1), 0.0)
    if state == "closed":
        store.close(100)
    elif state == "full":
        store.take({}, 0)
    with pytest.raises(
        RequestTooLarge, match=r"needs 101 tokens, the limit is 100 tokens/10 s.*never"
    ) as told:
        store.take({"requests": 1, "tokens": 101}, 50.0)
    assert (told.value.name, told.value.amount, told.value.limit) == ("tokens", 101, 100)
    assert level(store, "requests", 50) == 10


def test_nobody_passes_a_closed_line() -> None:
    """Until the named moment everybody waits, also who would fit; the latest moment
    wins.
    """
    store = MemoryStore(LIMITS, 0.0)
    store.close(30)
    store.close(20)
    assert store.take(CALL, 10) == 30
    assert store.moment(CALL) == 30
    assert store.take(CALL, 30) == ()


def test_other_limits_keep_what_is_owed() -> None:
    """When limits change, a debt stays a debt of as many tokens; new dimensions begin
    full.
    """
    store = MemoryStore(LIMITS, 0.0)
    store.take({"requests": 4, "tokens": 100}, 0.0)
    store.give({"tokens": -50}, 0.0, ends=False)
    store.replace(Limits(Limit("tokens", 200, 10), Limit("images", 5, 10)), 0.0)
    assert level(store, "tokens") == 50
    assert level(store, "images") == 5
    with pytest.raises(RequestTooLarge):
        store.take({"tokens": 201}, 0.0)


def interrupt(store: MemoryStore, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``act`` run inside the next `take`, while it holds the lock, as a finalizer
    or signal handler would.
    """

    def interrupted(*arguments: Any) -> bool:
        monkeypatch.setattr(memory, "take_all", take_all)
        assert store._lock.locked()
        act()
        return take_all(*arguments)

    monkeypatch.setattr(memory, "take_all", interrupted)


def test_what_a_finalizer_gives_inside_take_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """`give`, `close` and `correct` from inside the locked part neither block nor
    vanish.
    """
    store = MemoryStore(LIMITS, 0.0)
    store.take(CALL, 0.0)

    def act() -> None:
        store.give({"requests": 1, "tokens": 60}, 0.0, ends=True)
        store.correct(store.buckets_of("requests")[0], 1.0, 0.0)
        store.close(5.0)

    interrupt(store, act, monkeypatch)
    store.take({"requests": 1, "tokens": 10}, 0.0)
    assert store.in_flight == 1
    assert level(store, "requests") == pytest.approx(8)
    assert level(store, "tokens") == pytest.approx(90)
    assert store.take({}, 0.0) == 5.0


def test_admitting_from_inside_take_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal handler that asks for admission in the middle of one is told, and the
    interrupted call goes on.
    """
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    store = MemoryStore(LIMITS, 0.0)

    def act() -> None:
        with pytest.raises(ReentrantUse):
            store.take(CALL, 0.0)

    interrupt(store, act, monkeypatch)
    assert store.take(CALL, 0.0) == ()
    assert store.in_flight == 1


def test_a_refund_given_before_a_take_counts_for_it() -> None:
    """Given while another thread held the lock, and not yet entered in the books: who
    was woken for it must not be turned away.
    """
    store = MemoryStore(Limits(*LIMITS, concurrency=1), 0.0)
    store.take({"requests": 1, "tokens": 100}, 0.0)
    store._lock.acquire()  # another thread, in the middle of its take
    store.give({"tokens": 100}, 0.0, ends=True)
    store._lock.release()  # it is interrupted here, before it looks into the inbox
    assert store.take({"requests": 1, "tokens": 100}, 0.0) == ()


def test_one_thread_at_a_time_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread takes, no other does, however long it is held up in the middle."""
    store = MemoryStore(LIMITS, 0.0)
    inside, most = [], []

    def slow(*arguments: Any) -> bool:
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.001)  # lets the others come
        inside.pop()
        return take_all(*arguments)

    monkeypatch.setattr(memory, "take_all", slow)
    threads = [threading.Thread(target=store.take, args=({"tokens": 1}, 0.0)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert store.admitted == 8


@pytest.mark.parametrize("contended", [False, True])
@pytest.mark.parametrize("verb", ["take", "give", "close", "too large"])
def test_ctrl_c_at_any_moment_leaves_no_lock_locked(
    verb: str, contended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is interrupted, the next call gets in."""
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.01)
    store = MemoryStore(Limits(*LIMITS, concurrency=1_000), 0.0)
    if contended:
        store._try_steps = repeat(False)  # as if another thread were always inside just before

    def act() -> None:
        if verb == "give":
            store.give({"requests": 0.001}, 0.0, ends=True)
        elif verb == "close":
            store.close(-1.0)
        else:
            with suppress(RequestTooLarge):
                store.take({"tokens": 1_000 if verb == "too large" else 0.001}, 0.0)

    moments = []
    for moment in interruptions(act):
        assert not store._lock.locked()
        assert store.take({}, 0.0) == ()
        moments.append(moment)
    assert len(moments) > 2


@pytest.mark.usefixtures("eager_switching")
def test_contention_loses_and_invents_nothing() -> None:
    """Threads that take and give as fast as they can leave exact sums: of admissions,
    of ends and in every bucket.
    """
    store = MemoryStore(
        Limits(Limit("requests", 1e9, 1e9), Limit("tokens", 4_000, 1e9), concurrency=5), 0.0
    )
    taken = [0] * 4
    barrier = threading.Barrier(4)

    def work(index: int) -> None:
        barrier.wait()
        for turn in range(1_500):
            if isinstance(store.take({"requests": 1, "tokens": 3}, 0.0), tuple):
                taken[index] += 1
                store.give({"tokens": 2.0 if turn % 2 else 3.0}, 0.0, ends=True)
                store.give({"tokens": -1.0 if turn % 2 == 0 else 0.0}, 0.0, ends=False)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    total = sum(taken)
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
def test_the_predicted_moment_is_the_one_at_which_it_is_admitted(
    ahead: list[float], amount: float, burst: float
) -> None:
    """Behind any calls, oversize ones too, `moment` is when the call really goes if all
    before it go as soon as they can.
    """
    limits = Limits(Limit("tokens", 100, 10, burst=burst))
    store, now = MemoryStore(limits, 0.0), 0.0
    predicted = MemoryStore(limits, 0.0).moment({"tokens": amount}, {"tokens": sum(ahead)})
    for cost in [*ahead, amount]:
        answer = store.take({"tokens": cost}, now)
        if isinstance(answer, float):
            now = max(now, answer)
            assert store.take({"tokens": cost}, now) == ()
    assert max(predicted, 0.0) <= now + 1e-6
    if all(cost <= burst for cost in ahead):
        assert now == pytest.approx(max(predicted, 0.0), abs=1e-6)
