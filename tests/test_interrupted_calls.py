"""Ctrl-C at every moment of what the core does to its books, once and twice in a row.

Afterwards no lock is locked, no slot is lost, nothing stays deferred, and each
settlement has been applied exactly once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import Any

import pytest

from ratelimit import Lease, Limit, Limits, RateLimiter, RequestTooLarge
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Payment
from ratelimit.testing import ThreadClock
from tests.interruptions import double_interruptions, interruptions
from tests.payments import Sleeper, nested, paid, waiter

LIMITS = Limits(Limit("requests", 100, 1e9), Limit("tokens", 10_000, 1e9), concurrency=50)
MORE = Limits(Limit("requests", 200, 1e9), Limit("tokens", 20_000, 1e9), concurrency=50)

Runner = Callable[[Callable[[], object]], Any]
RUNNERS = [
    pytest.param(interruptions, id="once"),
    pytest.param(double_interruptions, id="twice"),
]


class Books:
    """A store with some calls in flight, and what must hold of it."""

    def __init__(self, *, contended: bool = False) -> None:
        self.store = MemoryStore(LIMITS, 0.0)
        self.store.mark()
        self.calls = [self.call() for _ in range(3)]
        for call in self.calls:
            assert self.store.take(call, 0.0) is None
        self.corrected = 0.0
        self.free = self.store._try_steps
        if contended:  # as if another thread held the lock until just now
            self.store._try_steps = repeat(False)

    def call(self, parent: Payment | None = None) -> Payment:
        return nested(Payment({"requests": 1, "tokens": 100}, 60), parent)

    def end(self) -> None:
        """Settle all calls to 10 tokens, and look at every figure."""
        store = self.store
        store._try_steps = self.free
        assert not store._lock.locked()
        in_flight = [call for call in self.calls if call.paid and not call.ended]
        if not store._inbox:
            assert store.in_flight == len(in_flight)
            assert store._buckets.deferred == sum(call.deferred for call in in_flight)
        taken = [call for call in self.calls if call.paid]
        for call in taken:
            store.settle(call, {"tokens": 10}, 0.0)
        assert store.in_flight == store._borrowing == store._keeping == 0
        assert store._buckets.deferred == 0
        assert not store._inbox
        assert store.corrected(store.buckets_of("requests")[0]) in (0.0, self.corrected)
        levels = store.levels(0.0)
        amount = next(limit.amount for limit in store.limits if limit.name == "tokens")
        assert levels["tokens", 1e9] == pytest.approx(amount - 10 * len(taken))
        assert all(call.held["tokens"] == 10 for call in taken)
        paid(store, {"tokens": 1})


def take(books: Books) -> None:
    """Admit one more call."""
    books.calls.append(books.call())
    books.store.take(books.calls[-1], 0.0)


def take_nested(books: Books) -> None:
    """Admit a call inside the first one."""
    books.calls.append(books.call(books.calls[0]))
    books.store.take(books.calls[-1], 0.0)


def take_too_much(books: Books) -> None:
    """Ask for more than the limit."""
    with suppress(RequestTooLarge):
        books.store.take(Payment({"tokens": 1e6}), 0.0)


def settle(books: Books) -> None:
    """Settle the first call."""
    books.store.settle(books.calls[0], {"tokens": 300}, 0.0)


def settle_parent(books: Books) -> None:
    """End a call around another one."""
    if len(books.calls) == 3:
        books.store._try_steps, steps = books.free, books.store._try_steps
        take_nested(books)
        books.store._try_steps = steps
    books.store.settle(books.calls[0], {}, 0.0)


def close(books: Books) -> None:
    """Close the store until a moment that is past."""
    books.store.close(-1.0)


def correct(books: Books) -> None:
    """Lower the level of one bucket."""
    bucket = books.store.buckets_of("requests")[0]
    books.corrected = 1.0
    books.store.correct(bucket, 1.0, 0.0)


def replace(books: Books) -> None:
    """Hold other limits."""
    books.store.replace(MORE, 0.0)


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("contended", [False, True], ids=["free", "contended"])
@pytest.mark.parametrize(
    "act", [take, take_nested, take_too_much, settle, settle_parent, close, correct, replace]
)
def test_ctrl_c_leaves_the_books_of_a_store_in_order(
    act: Callable[[Books], None], contended: bool, run: Runner
) -> None:
    """Each change is whole or not begun; a settlement that is repeated counts once."""
    some = [Books(contended=contended)]
    for _ in run(lambda: act(some[-1])):
        some[-1].end()
        some.append(Books(contended=contended))
    some[-1].end()

    assert len(some) > 2


class Waiters:
    """A queue with a waiter before and one behind the one that is interrupted."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.before = waiter(0, Sleeper("loop"), tokens=1)
        self.one = waiter(1, Sleeper("loop"), tokens=10)
        self.behind = waiter(2, Sleeper("loop"), tokens=100)
        self.queue.join(self.before)

    def join(self) -> None:
        self.queue.join(self.one)

    def join_and_leave(self) -> None:
        self.queue.join(self.one)
        self.queue.leave(self.one)

    def lead_and_leave(self) -> None:
        self.queue.join(self.one)
        self.queue.join(self.behind)
        self.queue.leave(self.before)
        self.queue.leave(self.one)

    def drop_dead(self) -> None:
        self.queue.join(self.one)
        self.before.parker = dead = Sleeper("closed")
        dead.closed = True
        self.queue._loops["closed"] = dead
        self.queue.drop_dead()


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("act", ["join", "join_and_leave", "lead_and_leave", "drop_dead"])
def test_ctrl_c_leaves_a_queue_in_order(act: str, run: Runner) -> None:
    """After the `leave` that follows every `join`, sums and order are those of the
    rest.
    """
    some = [Waiters()]

    def end(waiters: Waiters) -> None:
        queue = waiters.queue
        assert not queue._lock.locked()
        queue.leave(waiters.one)
        last: Waiter = waiter(3, Sleeper("loop"), tokens=1_000)
        queue.join(last)
        rest = [
            one for one in (waiters.before, waiters.behind, last) if one.queued and not one.left
        ]
        assert queue.head is rest[0]
        assert len(queue) == len(rest)
        assert queue.ahead_of(9).get("tokens", 0) <= sum(
            one.payment.amounts["tokens"] for one in rest
        )
        for one in rest:
            queue.leave(one)
        assert queue.ahead_of(9) == {}
        assert len(queue) == len(queue.entries) == 0
        assert not queue._loops

    for _ in run(lambda: getattr(some[-1], act)()):  # noqa: PLW0108  # of the last one at that time
        end(some[-1])
        some.append(Waiters())
    end(some[-1])

    assert len(some) > 10


# Python shows an interruption of a finalizer on stderr instead of raising it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("door", ["acquire_sync", "acquire_nowait", "with", "unsettled", "nested"])
def test_ctrl_c_anywhere_in_a_call_costs_no_slot(door: str) -> None:
    """From admission to settlement: a lease that is dropped on the way ends by
    itself, also where the same thread goes on in the same context.
    """
    limiter = RateLimiter(
        limits=Limits(Limit("tokens", 1e6, 1e9), concurrency=1),
        arrival_slack=0,
        clock=ThreadClock(),
    )
    family = limiter._engine.family("")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    limiter.acquire_sync(body).settle(tokens=1)

    def act() -> None:
        if door == "with":
            with limiter.reserve(body) as lease:
                lease.settle(tokens=5)
        elif door == "unsettled":
            with limiter.reserve(body):
                pass
        elif door == "nested":
            with limiter.reserve(body), limiter.reserve(body):
                pass
        else:
            lease = getattr(limiter, door)(body)
            assert isinstance(lease, Lease)
            lease.settle(tokens=5)

    moments = 0
    for _ in interruptions(act):
        moments += 1
        store, queue = family.admission.store, family.admission.queue
        assert not store._lock.locked()
        assert not queue._lock.locked()
        if store.in_flight:
            gc.collect()
        assert store.in_flight == store._borrowing == 0
        assert store._buckets.deferred == 0
        assert len(queue) == 0

    assert moments > 30
    lease = limiter.acquire_nowait(tokens=1)
    lease.close()
