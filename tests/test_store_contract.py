"""What every store keeps: one on a file, or several, are one store in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, RequestTooLarge
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.opening import opener
from ratelimit.stores.payments import Payment

LIMITS = Limits(Limit("requests", 10, 10), Limit("tokens", 100, 10, burst=60))
LOWER = Limits(Limit("requests", 10, 10), Limit("tokens", 70, 10))


@contextmanager
def stores(count: int, limits: Limits = LIMITS) -> Iterator[list[MemoryStore]]:
    """Several stores that share one quota on a clock of their own."""
    with tempfile.TemporaryDirectory() as folder:
        make = opener(f"file:{folder}/quota", "raise", "clock of a test")
        yield [make("*", limits, 0.0, 0.5) for _ in range(count)]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.tuples(st.just("wait"), st.floats(0, 12)),
            st.tuples(st.just("take"), st.floats(1, 90)),
            st.tuples(st.just("defer"), st.floats(2, 90)),
            st.tuples(st.just("settle"), st.floats(0, 90)),
            st.tuples(st.just("correct"), st.floats(-3, 5)),
            st.tuples(st.just("close"), st.floats(0, 5)),
            st.tuples(st.just("cap"), st.integers(1, 3)),
            st.tuples(st.just("uncap"), st.just(0)),
            st.tuples(st.just("lower"), st.just(0)),
            st.tuples(st.just("revert"), st.just(0)),
        ),
    ),
    max_size=25,
)


class Play:
    """The same steps, taken by one store in memory or by several on a file."""

    def __init__(self, taken_by: list[MemoryStore]) -> None:
        self.stores = taken_by
        self.now = 0.0
        self.flying: list[tuple[MemoryStore, Payment]] = []

    def step(self, number: int, name: str, amount: float) -> object:
        """Take one step; return what can be seen of it."""
        store = self.stores[number % len(self.stores)]
        if name == "wait":
            self.now += amount
        elif name in {"take", "defer"}:
            payment = Payment({"requests": 1, "tokens": amount}, amount / 2 * (name == "defer"))
            try:
                wait = store.take(payment, self.now)
            except RequestTooLarge as error:
                return error.limit
            if wait is None:
                self.flying.append((store, payment))
            return wait is None
        elif name == "settle" and self.flying:
            taker, payment = self.flying.pop(int(amount) % len(self.flying))
            taker.settle(payment, {"tokens": amount}, self.now)
        elif name == "correct":
            store.levels(self.now)  # what the other processes have changed is known then
            store.correct(store.buckets_of("tokens")[0], amount, self.now)
        elif name == "close":
            store.close(self.now + amount)
        elif name in {"cap", "uncap"}:
            store.cap(int(amount) or None, self.now + 20 if amount else inf)
        elif name == "lower":
            store.replace(LOWER, self.now)
        elif name == "revert":
            store.levels(self.now)
            store.revert(LIMITS, self.now)
        return None

    def seen(self) -> Mapping[Any, float]:
        """What is left of each limit, and what is in flight."""
        store = self.stores[0]
        levels = {key: round(level, 6) for key, level in store.levels(self.now).items()}
        return {**levels, "in flight": store.in_flight, "cap": store.concurrency or 0}


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 3), steps=STEPS)
def test_stores_on_one_file_are_one_store_in_memory(
    count: int, steps: list[tuple[int, tuple[str, float]]]
) -> None:
    """Whichever process takes a step, the levels and the answers are those of one
    process with the same calls.
    """
    with stores(count) as shared:
        alone, together = Play([MemoryStore(LIMITS, 0.0, 0.5)]), Play(shared)
        for number, (name, amount) in steps:
            assert together.step(number, name, amount) == alone.step(number, name, amount)
            assert together.seen() == alone.seen()


def test_a_refused_call_takes_nothing_from_anybody() -> None:
    """Whether a bucket, a pause or the concurrency refuses it."""
    with stores(2) as (one, other):
        assert one.take(Payment({"requests": 1, "tokens": 60}), 1.0) is None
        before = one.levels(1.0)
        assert other.take(Payment({"requests": 1, "tokens": 60}), 1.0) is not None
        other.close(5.0)
        assert one.take(Payment({"requests": 1}), 1.0) is not None

        assert other.levels(1.0) == before
        assert one.in_flight == other.in_flight == 1


def test_a_call_settled_twice_gives_back_once() -> None:
    """The newest figure counts, whoever has settled other calls in between."""
    with stores(2) as (one, other):
        payment = Payment({"requests": 1, "tokens": 50})
        one.take(payment, 0.0)
        one.settle(payment, {"tokens": 10}, 0.0)
        other.take(Payment({"tokens": 5}), 0.0)
        one.settle(payment, {"tokens": 20}, 0.0)

        assert other.levels(0.5)["tokens", 10] == pytest.approx(60 - 25)


def test_the_head_of_a_later_rank_waits_behind_another_process() -> None:
    """Small calls of one process do not overtake the large one of another for ever."""
    with stores(2) as (one, other):
        one.take(Payment({"tokens": 60}), 0.0)
        large, small = Payment({"tokens": 50}), Payment({"tokens": 1})
        assert one.take(large, 1.0, rank=1.0) is not None

        assert other.take(small, 1.2, rank=1.2) is not None
        assert other.take(Payment({"tokens": 1}), 1.2, rank=0.9) is None  # more urgent
        assert one.take(large, 6.0, rank=1.0) is None
        assert other.take(small, 6.0, rank=1.2) is None


def test_nobody_waits_for_a_head_that_asks_no_more() -> None:
    """Its call was cancelled, or its event loop stands still."""
    with stores(2) as (one, other):
        one.take(Payment({"tokens": 60}), 0.0)
        one.take(Payment({"tokens": 50}), 1.0, rank=1.0)
        small = Payment({"tokens": 1})

        assert other.take(small, 1.1, rank=1.1) is not None
        assert other.take(small, 1.6, rank=1.1) is None


def test_a_waiting_head_asks_again_soon() -> None:
    """What another process gives back wakes nobody in this one."""
    with stores(2) as (one, other):
        payment = Payment({"tokens": 60})
        one.take(payment, 0.0)
        wait = other.take(Payment({"tokens": 60}), 0.0, rank=0.0)
        assert wait is not None
        assert wait.until <= 0.1

        one.settle(payment, {"tokens": 0}, 0.05)
        assert other.take(Payment({"tokens": 60}), 0.6, rank=0.0) is None
