"""How a call is admitted that may go to any of several members of a pool.

Owns the order of events: the call joins the queue of all calls that may go to the same
members; its head stands in the queue of each member as well, at its rank, and pays
where it first can. Must never wait, read a clock or know why a member is closed: a
`Place` says from when on it may be used, and `drivers.py` carries out what is yielded.

So one queue keeps the order of calls that fit the same members, and the members' own
queues keep it between these calls, calls that fit other members, and calls that are
made past the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from ratelimit.admission import drivers
from ratelimit.admission.admission import Admission, Terms, rank_of
from ratelimit.admission.clock import Clock
from ratelimit.admission.flow import Park, Predict, Take, refuse_late, timed_out
from ratelimit.admission.queue import Parker, Queue, Waiter
from ratelimit.errors import ReentrantUse, RequestTooLarge
from ratelimit.limits import Amounts
from ratelimit.stores.payments import Payment, Wait

NO_MORE: Final = Wait(inf, inf)
"""The answer of a place that cannot take the call at all."""


class Place:
    """One member's buckets, and what the call would pay there.

    :param order: the places are looked at by what it returns, the lowest first.
    :param opens: returns from which moment on the call may go there, at the time it is
        called with; inf: only when the pool wakes the call.
    :param prepare: called before each look at the store; see `Terms.prepare`.
    :param retracts: whether a call that is too large may ask once more.
    """

    __slots__ = (
        "_waiter",
        "admission",
        "error",
        "opens",
        "order",
        "payment",
        "prepare",
        "retracts",
    )

    def __init__(
        self,
        admission: Admission,
        payment: Payment,
        *,
        order: Callable[[], Any],
        opens: Callable[[float], float],
        prepare: Callable[[], float],
        retracts: Callable[[RequestTooLarge], bool],
    ) -> None:
        self.admission = admission
        self.payment = payment
        self.order = order
        self.opens = opens
        self.prepare = prepare
        self.retracts = retracts
        self.error: RequestTooLarge | ReentrantUse | None = None
        """Why this member can never take the call."""
        self._waiter: Waiter | None = None

    def ready(self, terms: Terms, parker: Parker) -> float:
        """Prepare to stand in the member's queue; return the rank there."""
        rank = rank_of(self.payment, terms.arrival, terms.patience)
        self._waiter = Waiter(rank, self.payment, parker, deadline=terms.deadline, elsewhere=True)
        self._waiter.left = True
        return rank

    @property
    def waiter(self) -> Waiter:
        """The call as it stands in the member's queue, from `ready` on."""
        assert self._waiter is not None  # noqa: S101  # `ready` comes first
        return self._waiter

    def join(self) -> None:
        """Stand in the member's queue."""
        if self.waiter.left:
            self.admission.queue.join(self.waiter)

    def leave(self) -> None:
        """Stand there no longer; leaving twice is leaving once."""
        self.admission.queue.leave(self.waiter)

    @property
    def is_next(self) -> bool:
        """Whether the call is the head of the member's queue, or has paid there."""
        return self.payment.paid or self.admission.queue.head is self.waiter

    def look(self, now: float) -> Wait | None:
        """Pay, or return the wait; a call that is too large asks whether for good."""
        while True:
            try:
                return self.admission.store.take(self.payment, now, self.waiter.rank)
            except RequestTooLarge as error:
                if not self.retracts(error):
                    self.error = error
                    return NO_MORE


class Several:
    """A call, and the places where it may go; what a driver asks is answered by them.

    :param queue: of all calls that may go to the same members.
    """

    def __init__(self, queue: Queue, places: Sequence[Place], clock: Clock) -> None:
        self._queue = queue
        self._places = places
        self._clock = clock
        self._by_payment = {id(place.payment): place for place in places}

    def admit(self, terms: Terms) -> Place:
        """Wait in the calling thread; return where the call has paid."""
        parker = drivers.ThreadParker(self._clock)
        drivers.run(self._flow(terms, parker), self, self._clock, parker)
        return self._paid()

    async def admit_async(self, terms: Terms) -> Place:
        """Wait in the calling task; return where the call has paid."""
        parker = drivers.TaskParker()
        await drivers.run_async(self._flow(terms, parker), self, self._clock, parker)
        return self._paid()

    def _flow(self, terms: Terms, parker: Parker) -> drivers.Flow:
        rank = min(place.ready(terms, parker) for place in self._places)
        cost = least_of([place.payment for place in self._places])
        waiter = Waiter(rank, cost, parker, patience=terms.patience, deadline=terms.deadline)
        return admit_first(self._queue, waiter, self._places, self._clock.now(), terms.deadline)

    def _paid(self) -> Place:
        return next(place for place in self._places if place.payment.paid)

    def take(self, payment: Payment, now: float, rank: float = inf) -> Wait | None:  # noqa: ARG002  # the place knows its rank
        """Pay where this payment belongs."""
        return self._by_payment[id(payment)].look(now)

    def not_before(self, payment: Payment, now: float, ahead: Amounts) -> float:
        """Return a moment before which the call can go to none of the members."""
        open_places = [place for place in self._places if place.error is None]
        alone = min(
            (place.admission.store.not_before(place.payment, now) for place in open_places),
            default=-inf,
        )
        return max(alone, _joint(open_places, payment, ahead, now))

    def refuse_oversize(self, payment: Payment) -> None:
        """Leave it to the store of each member, asked when its place is looked at."""

    def waits_for_itself(self, thread: int) -> bool:
        """Return whether only calls of this thread could make room, at every member."""
        return all(place.admission.store.waits_for_itself(thread) for place in self._places)


def admit_first(
    queue: Queue, waiter: Waiter, places: Sequence[Place], now: float, deadline: float
) -> drivers.Flow:
    """Wait for the turn of ``waiter``, and pay at the first place that can be paid.

    :param now: the time it is; all moments are seconds of the same clock.
    :param deadline: raise `WaitTimeout` at this moment, or before it as soon as it is
        certain that the call cannot go anywhere until then.
    """
    if deadline < inf:
        moment = yield Predict(waiter.payment, queue.ahead_of(waiter.rank))
        refuse_late(moment, now, deadline)
    try:
        queue.join(waiter)
        while True:
            wait = Wait(inf)
            if waiter.left:  # the queue went on without it while its event loop was stopped
                queue.join(waiter)
            if queue.head is waiter or _has_paid(places):
                wait = yield from _look(places, now)
                if _has_paid(places):
                    return
                refuse_late(wait.not_before, now, deadline)
            if now >= deadline and not wait.pending:
                raise timed_out()
            until = wait.until if wait.pending else min(wait.until, deadline)
            time = yield Park(until, partial(_refuse_blocking, queue, waiter, places))
            if isinstance(time, float):
                now = time
    finally:
        try:
            _leave(queue, waiter, places)
        finally:
            # Twice more, as in `flow.admit`: Ctrl-C may have cut it short.
            try:
                _leave(queue, waiter, places)
            finally:
                _leave(queue, waiter, places)


def _look(places: Sequence[Place], now: float) -> Generator[Take, Wait | float | None, Wait]:
    """Look at each place in turn until one is paid; return the wait for the first.

    Behind a place with an answer on its way no other one is looked at, so that a
    preferred member has its say first.
    """
    until, sure = inf, inf
    for place in sorted(places, key=lambda place: place.order()):
        if place.error is not None:
            continue
        opens = place.opens(now)
        if opens > now and not place.payment.paid:
            place.leave()
            until, sure = min(until, opens), min(sure, opens if opens < inf else -inf)
            continue
        place.join()
        if not place.is_next:
            sure = -inf
            continue
        again = inf if place.payment.paid else place.prepare()
        if place.error is not None:
            continue
        wait = yield Take(place.payment, place.waiter.rank)
        if not isinstance(wait, Wait):
            return Wait(now)
        if place.error is None:
            until, sure = min(until, wait.until, now + again), min(sure, wait.not_before)
        if wait.pending:
            return Wait(until, -inf, pending=True)
    errors = [place.error for place in places if place.error is not None]
    if len(errors) == len(places):
        raise errors[-1]
    return Wait(until, sure)


def _has_paid(places: Iterable[Place]) -> bool:
    return any(place.payment.paid for place in places)


def _leave(queue: Queue, waiter: Waiter, places: Sequence[Place]) -> None:
    """Leave all queues; the pool's first, so that its next head asks before others."""
    for place in places:
        place.payment.withdrawn = not place.payment.paid
    queue.leave(waiter)
    for place in places:
        place.leave()


def _refuse_blocking(queue: Queue, waiter: Waiter, places: Sequence[Place]) -> None:
    """Raise `ReentrantUse` if tasks of this very thread are in front everywhere."""
    queue.refuse_blocking(waiter)
    refused: ReentrantUse | None = None
    for place in places:
        try:
            if not place.waiter.left:
                place.admission.queue.refuse_blocking(place.waiter)
                return
        except ReentrantUse as error:
            refused = error
    if refused is not None:
        raise refused


def least_of(payments: Sequence[Payment]) -> Payment:
    """Return the payment of what a call certainly takes, wherever it goes."""
    names = set.intersection(*(set(payment.least) for payment in payments))
    least = {name: min(payment.least[name] for payment in payments) for name in names}
    amounts = {
        name: min(payment.at_once.get(name, 0.0) for payment in payments)
        for name in payments[0].amounts
    }
    payment = Payment(amounts)
    payment.reprice(amounts, 0.0, least, keeps=False)
    return payment


def _joint(places: Sequence[Place], payment: Payment, ahead: Amounts, now: float) -> float:
    """Return when all members together can have paid for this call and those in front.

    A lower bound: no call in front goes anywhere else, and none gives anything back of
    what it certainly takes.
    """
    latest = -inf
    stores = [place.admission.store for place in places]
    for name, before in ahead.items():
        if name != "requests" and not all(store.is_certain for store in stores):
            continue
        buckets = [
            [(store.full_at(one), one) for one in store.buckets_of(name)] for store in stores
        ]
        if not before or not all(buckets):
            continue
        smallest = min(one.burst for of_store in buckets for _, one in of_store)
        due = before + min(payment.amounts.get(name, 0.0), smallest)
        # Newton's steps from below on a concave sum of straight lines: each takes one
        # more limit for the tightest of its member, so they end.
        moment = now
        for _ in range(2 + sum(map(len, buckets))):
            tightest = [
                min(
                    (
                        (moment - full_at + one.window) / one.seconds_per_unit,
                        1 / one.seconds_per_unit,
                    )
                    for full_at, one in of_store
                )
                for of_store in buckets
            ]
            missing = due - sum(amount for amount, _ in tightest)
            if missing <= 0:
                break
            moment += missing / sum(rate for _, rate in tightest)
        soonest = min((store.ask_within for store in stores), default=inf)
        latest = max(latest, min(moment, now + soonest))
    return latest
