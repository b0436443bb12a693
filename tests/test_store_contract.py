"""What every store keeps: on a file or in a server, several are one store in memory."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.sharing.redis_server import RedisServer
from ratelimit import Limit, Limits, RequestTooLarge
from ratelimit.stores.alone import Alone
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.opening import opener
from ratelimit.stores.payments import Payment
from tests.steered_redis import SteeredLink, SteeredStore, Time

LIMITS = Limits(Limit("requests", 10, 10), Limit("tokens", 100, 10, burst=60))
OTHER = Limits(Limit("requests", 12, 20), Limit("tokens", 95, 5))
LOWER = Limits(Limit("requests", 10, 10), Limit("tokens", 70, 10))


class Quota:
    """Several stores that share one quota, on a clock that the test sets."""

    def __init__(self, opened: Callable[[Time], MemoryStore]) -> None:
        self.time = Time()
        self._open: Callable[[], MemoryStore] = lambda: opened(self.time)

    def stores(self, count: int) -> list[MemoryStore]:
        """The stores of as many processes."""
        return [self._open() for _ in range(count)]


Opened = Callable[[], AbstractContextManager[Quota]]


@contextmanager
def on_a_file() -> Iterator[Quota]:
    """A quota in a file."""
    with tempfile.TemporaryDirectory() as folder:
        make = opener(f"file:{folder}/quota", "raise", time.monotonic, "clock of a test")
        yield Quota(lambda clock: make("*", LIMITS, clock.now, 0.5))


@pytest.fixture(params=["file", "redis"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """What makes a new quota, of each kind of store."""
    if request.param == "file":
        return on_a_file
    server: RedisServer = request.getfixturevalue("redis_server")
    client, numbers = server.client, itertools.count()

    @contextmanager
    def in_a_server() -> Iterator[Quota]:
        name = f"contract-{next(numbers)}"

        def make(clock: Time) -> MemoryStore:
            link = SteeredLink(client, name, clock)
            key = link.key("*")
            return SteeredStore(link, key, Alone("raise"), LIMITS, clock.now, 0.5, clock)

        yield Quota(make)
        client.delete(f"ratelimit:{name}:*", f"ratelimit:{name}:*:time")

    return in_a_server


def numbers(least: float, most: float) -> st.SearchStrategy[float]:
    """Figures that every store tells apart: a server's clock counts microseconds."""
    return st.integers(int(least * 1e3), int(most * 1e3)).map(lambda number: number / 1e3)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.tuples(st.just("wait"), numbers(0, 12)),
            st.tuples(st.just("take"), numbers(1, 90)),
            st.tuples(st.just("defer"), numbers(2, 90)),
            st.tuples(st.just("settle"), numbers(0, 90)),
            st.tuples(st.just("correct"), numbers(-3, 5)),
            st.tuples(st.just("close"), numbers(0, 5)),
            st.tuples(st.just("cap"), st.integers(1, 3)),
            st.tuples(st.just("uncap"), st.just(0)),
            st.tuples(st.just("lower"), st.just(0)),
            st.tuples(st.just("give"), st.just(0)),
            st.tuples(st.just("give again"), st.just(0)),
            st.tuples(st.just("revert"), st.just(0)),
        ),
    ),
    max_size=25,
)


class Play:
    """The same steps, taken by one store in memory or by several that share a quota."""

    def __init__(self, taken_by: list[MemoryStore], clock: Time) -> None:
        self.stores = taken_by
        self.time = clock
        self.flying: list[tuple[MemoryStore, Payment]] = []

    def step(self, number: int, name: str, amount: float) -> object:
        """Take one step; return what can be seen of it."""
        store, now = self.stores[number % len(self.stores)], self.time.now
        if name == "wait":
            self.wait(amount)
        elif name in {"take", "defer"}:
            payment = Payment({"requests": 1, "tokens": amount}, amount / 2 * (name == "defer"))
            store.levels(now)  # what the other processes have changed is known then
            try:
                wait = store.take(payment, now)
            except RequestTooLarge as error:
                return error.limit
            if wait is None:
                self.flying.append((store, payment))
            return wait is None
        elif name == "settle" and self.flying:
            taker, payment = self.flying.pop(int(amount) % len(self.flying))
            taker.settle(payment, {"tokens": amount}, now)
        elif name == "correct":
            store.levels(now)
            store.correct(store.buckets_of("tokens")[0], amount, now)
        elif name == "close":
            store.close(now + amount)
        elif name in {"cap", "uncap"}:
            store.cap(int(amount) or None, now + 20 if amount else inf)
        else:
            self.hold(store, name, now)
        return None

    def hold(self, store: MemoryStore, name: str, now: float) -> None:
        """Hold other limits, on the word of a user or of an answer."""
        if name == "lower":
            store.replace(LOWER, now)
        elif name.startswith("give"):
            store.give(OTHER if name == "give" else LIMITS, now)
        elif name == "revert":
            store.levels(now)
            store.revert(LIMITS, now)

    def wait(self, seconds: float) -> None:
        """Let time pass; each process is seen in between, as those that live are."""
        for _ in range(3):
            self.time.now += seconds / 3
            for each in self.stores:
                each.levels(self.time.now)

    def seen(self) -> Mapping[Any, float]:
        """What is left of each limit, and what is in flight."""
        store = self.stores[0]
        levels = {key: round(level, 4) for key, level in store.levels(self.time.now).items()}
        return {**levels, "in flight": store.in_flight, "cap": store.concurrency or 0}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 3), steps=STEPS)
def test_stores_of_one_quota_are_one_store_in_memory(
    opened: Opened, count: int, steps: list[tuple[int, tuple[str, float]]]
) -> None:
    """Whichever process takes a step, the levels and the answers are those of one
    process with the same calls.
    """
    with opened() as quota:
        alone = Play([MemoryStore(LIMITS, 0.0, 0.5)], Time())
        together = Play(quota.stores(count), quota.time)
        for number, (name, amount) in steps:
            assert together.step(number, name, amount) == alone.step(number, name, amount)
            seen = together.seen()
            assert seen == pytest.approx(alone.seen(), abs=2e-4)


def test_a_refused_call_takes_nothing_from_anybody(opened: Opened) -> None:
    """Whether a bucket, a pause or the concurrency refuses it."""
    with opened() as quota:
        one, other = quota.stores(2)
        assert one.take(Payment({"requests": 1, "tokens": 60}), 0.0) is None
        before = one.levels(0.0)
        assert other.take(Payment({"requests": 1, "tokens": 60}), 0.0) is not None
        other.close(5.0)
        assert one.take(Payment({"requests": 1}), 0.0) is not None

        assert other.levels(0.0) == pytest.approx(before, abs=1e-4)
        assert one.in_flight == other.in_flight == 1


def test_a_call_settled_twice_gives_back_once(opened: Opened) -> None:
    """The newest figure counts, whoever has settled other calls in between."""
    with opened() as quota:
        one, other = quota.stores(2)
        payment = Payment({"requests": 1, "tokens": 50})
        one.take(payment, 0.0)
        one.settle(payment, {"tokens": 10}, 0.0)
        other.take(Payment({"tokens": 5}), 0.0)
        one.settle(payment, {"tokens": 20}, 0.0)

        quota.time.now = 0.5
        assert other.levels(0.5)["tokens", 10] == pytest.approx(60 - 25)


def test_the_head_of_a_later_rank_waits_behind_another_process(opened: Opened) -> None:
    """Small calls of one process do not overtake the large one of another for ever."""
    with opened() as quota:
        one, other = quota.stores(2)
        one.take(Payment({"tokens": 60}), 0.0)
        large, small = Payment({"tokens": 50}), Payment({"tokens": 1})
        quota.time.now = 1.0
        assert one.take(large, 1.0, rank=1.0) is not None

        quota.time.now = 1.2
        assert other.take(small, 1.2, rank=1.2) is not None
        assert other.take(Payment({"tokens": 1}), 1.2, rank=0.9) is None  # more urgent
        quota.time.now = 6.0
        assert one.take(large, 6.0, rank=1.0) is None
        assert other.take(small, 6.0, rank=1.2) is None


def test_nobody_waits_for_a_head_that_asks_no_more(opened: Opened) -> None:
    """Its call was cancelled, or its event loop stands still: two seconds later another
    process goes on.
    """
    with opened() as quota:
        one, other = quota.stores(2)
        one.take(Payment({"tokens": 60}), 0.0)
        quota.time.now = 1.0
        one.take(Payment({"tokens": 50}), 1.0, rank=1.0)
        small = Payment({"tokens": 1})

        quota.time.now = 1.1
        assert other.take(small, 1.1, rank=1.1) is not None
        quota.time.now = 3.1
        assert other.take(small, 3.1, rank=1.1) is None


def test_a_waiting_head_asks_again_soon(opened: Opened) -> None:
    """What another process gives back wakes nobody in this one: a head asks again
    within a second.
    """
    with opened() as quota:
        one, other = quota.stores(2)
        payment = Payment({"tokens": 60})
        one.take(payment, 0.0)
        wait = other.take(Payment({"tokens": 60}), 0.0, rank=0.0)
        assert wait is not None
        assert wait.until <= 1.0

        quota.time.now = 0.6
        one.settle(payment, {"tokens": 0}, 0.6)
        assert other.take(Payment({"tokens": 60}), 0.6, rank=0.0) is None


def test_what_a_call_defers_is_kept_from_all_processes(opened: Opened) -> None:
    """What calls of one process will be debited at their end is not there for
    another.
    """
    with opened() as quota:
        one, other = quota.stores(2)
        first, second = Payment({"tokens": 60}, 50), Payment({"tokens": 60}, 50)
        assert one.take(first, 0.0) is None
        assert other.take(second, 0.0) is not None

        one.settle(first, {"tokens": 10}, 0.0)
        assert other.take(second, 0.0) is None


def test_a_wait_that_is_too_long_in_other_limits_is_no_wait(opened: Opened) -> None:
    """A call above the limit that another process has learned is refused in words."""
    with opened() as quota:
        one, other = quota.stores(2)
        one.replace(LOWER, 0.0)
        other.levels(0.0)
        with pytest.raises(RequestTooLarge, match="the limit is 70 tokens"):
            other.take(Payment({"requests": 1, "tokens": 80}), 0.0)
