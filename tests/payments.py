"""Payments, waiters and single buckets by hand, for tests below the limiter.

Owns no expectation. Must never wait or read a clock: moments are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit import Limit
from ratelimit.admission.queue import Waiter
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Payment, Wait


def nested(payment: Payment, parent: Payment | None) -> Payment:
    """Return a payment after it is nested in another one, if there is one."""
    if parent is not None:
        payment.nest(parent)
    return payment


def paid(
    store: MemoryStore,
    amounts: Mapping[str, float] | None = None,
    now: float = 0.0,
    *,
    deferred: float = 0.0,
    parent: Payment | None = None,
) -> Payment:
    """Take ``amounts`` from a store, which must be possible now."""
    payment = nested(Payment(amounts or {}, deferred), parent)
    assert store.take(payment, now) is None
    assert payment.paid
    return payment


def refused(
    store: MemoryStore,
    amounts: Mapping[str, float] | None = None,
    now: float = 0.0,
    *,
    deferred: float = 0.0,
    parent: Payment | None = None,
) -> Wait:
    """Return the wait for ``amounts`` that a store must refuse now."""
    payment = nested(Payment(amounts or {}, deferred), parent)
    wait = store.take(payment, now)
    assert wait is not None
    assert not payment.paid
    return wait


class Held:
    """A bucket together with the numbers that a store keeps for it; full at the start.

    ``take`` pays if it fits and returns whether it did.
    """

    def __init__(self, limit: Limit, now: float = 0.0, slack: float = 0.0) -> None:
        self.bucket = Bucket(limit, slack)
        self.full_at = now
        self.deferred = 0.0

    def moment(self, amount: float, defers: float = 0.0) -> float:
        return self.bucket.moment(self.full_at, amount, defers, self.deferred)

    def take(self, amount: float, now: float, defers: float = 0.0) -> bool:
        if self.moment(amount, defers) > now:
            return False
        self.full_at = self.bucket.taken(self.full_at, amount, now)
        self.deferred += defers
        return True

    def give(self, amount: float, now: float, deferred: float = 0.0) -> None:
        self.full_at = self.bucket.given(self.full_at, amount, now)
        self.deferred -= deferred

    def level(self, now: float) -> float:
        return self.bucket.level(self.full_at, now, self.deferred)


class Sleeper:
    """A parker that counts its wake-ups; its event loop may be closed or stopped.

    :param loop: the event loop that it needs to go on; None for a thread.
    """

    def __init__(self, loop: object = None) -> None:
        self.loop: object | None = loop
        self.woken = 0
        self.closed = False
        self.stopped = False

    def wake(self) -> bool:
        self.woken += 1
        return not (self.closed or self.stopped)

    def gone(self) -> bool:
        return self.closed


def waiter(
    rank: float = 0.0,
    parker: Sleeper | None = None,
    *,
    patience: float = 0.0,
    certain: bool = True,
    **amounts: float,
) -> Waiter:
    """Return a waiter; its call costs one token where nothing else is given.

    :param certain: whether all of its cost stays debited, as where nothing is given
        back.
    """
    payment = Payment(amounts or {"tokens": 1})
    if certain:
        payment.reprice(payment.amounts, 0.0, payment.amounts, keeps=True)
    return Waiter(rank, payment, parker or Sleeper(), patience=patience)
