"""The queue, the store and the clock of one family of models, as one object.

Owns the order "newcomers pass only an empty queue", the pause of a whole family, and
the two ways to wait. Must never know a request body, a price or what a server says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, nextafter

from ratelimit.admission import drivers
from ratelimit.admission.clock import Clock
from ratelimit.admission.fair import FairQueue
from ratelimit.admission.flow import admit
from ratelimit.admission.order import NESTED_FIRST
from ratelimit.admission.queue import Parker, Queue, Waiter
from ratelimit.limits import Limits
from ratelimit.stores.alone import OnOutage
from ratelimit.stores.opening import OpenStore
from ratelimit.stores.payments import Payment, Wait


@dataclass(frozen=True, slots=True)
class Terms:
    """By what a call waits; moments are seconds of the limiter's clock."""

    arrival: float
    patience: float = 0.0
    """Seconds by which later calls of less patience may overtake."""
    deadline: float = inf
    """When to raise `WaitTimeout`."""
    prepare: Callable[[], float] | None = None
    """Called before each look of the head at the store: more may be known by then.

    Returns in how many seconds the head has to look again, at the latest.
    """
    again: bool = False
    """Whether the call waited before and joins once more, before its equals."""
    tenant: str = ""
    """For whom the call is, where tenants have shares."""
    price: Callable[[], object] | None = None
    """Prices the call anew, after its limits have been replaced."""


class Admission:
    """Admits the calls of one family, in order.

    :param name: the family's.
    :param slack: how long after its admission a request arrives, at most, in seconds.
    :param open_store: makes its store.
    """

    def __init__(
        self, name: str, limits: Limits, clock: Clock, slack: float, open_store: OpenStore
    ) -> None:
        self.clock = clock
        self.now = clock.now
        self.queue = Queue()
        self._open_store = partial(open_store, name)
        self._on_outage: OnOutage = lambda _, __: None
        self._given = limits
        self.store = self._open_store(limits, clock.now(), slack)
        self.store.follow(self.queue.first, self.queue.wake_paid)
        self.longest_wait = 0.0
        self._slack = slack

    @property
    def idle(self) -> bool:
        """Return whether nobody waits and no call is in flight."""
        return not self.queue.entries and not self.store.in_flight

    def admit_nowait(
        self, payment: Payment, patience: float, now: float, *, waits: bool
    ) -> Wait | None:
        """Pay at once and return None, or return the wait until it may be possible.

        :param waits: whether the caller waits otherwise: a store that answers later is
            then asked from the queue.
        """
        queue = self.queue
        if queue.entries:
            queue.drop_dead()
            if not queue.admits(rank_of(payment, now, patience)):
                self.store.refuse_oversize(payment)
                return Wait(inf)
        if self.store.answers_later and waits:
            self.store.refuse_oversize(payment)
            return Wait(inf)
        if self.store.shared:
            return self.store.take(payment, now, rank_of(payment, now, patience), waits=False)
        return self.store.take(payment, now)

    def admit(self, payment: Payment, terms: Terms) -> None:
        """Wait in the calling thread until the call is paid."""
        parker = drivers.ThreadParker(self.clock)
        flow = self._flow(_waiter(payment, terms, parker), terms)
        drivers.run(flow, self.store, self.clock, parker)
        self.longest_wait = max(self.longest_wait, payment.admitted_at - terms.arrival)

    async def admit_async(self, payment: Payment, terms: Terms) -> None:
        """Wait in the calling task until the call is paid."""
        parker = drivers.TaskParker()
        flow = self._flow(_waiter(payment, terms, parker), terms)
        await drivers.run_async(flow, self.store, self.clock, parker)
        self.longest_wait = max(self.longest_wait, payment.admitted_at - terms.arrival)

    def _flow(self, waiter: Waiter, terms: Terms) -> drivers.Flow:
        later = self.store.answers_later
        return admit(self.queue, waiter, self.now(), terms.deadline, answers_later=later)

    def share(self, shares: Mapping[str, float]) -> None:
        """Let tenants take turns by their shares from now on."""
        FairQueue.become(self.queue, shares, self._seconds)

    def _seconds(self, amounts: Mapping[str, float]) -> float:
        """Return in how many seconds the slowest limit refills these amounts.

        1 where no limit is taken from: then calls count.
        """
        refills = [amounts.get(one.name, 0) * one.per / one.amount for one in self.store.limits]
        return max(refills, default=0.0) or 1.0

    def give(self, limits: Limits) -> None:
        """Note the limits that a user has given now, for a process that is forked."""
        self._given = limits

    def report(self, on_outage: OnOutage) -> None:
        """Call this when a shared store is lost, and when it is back."""
        self._on_outage = on_outage
        self.store.report(on_outage)

    def close(self, seconds: float) -> None:
        """Admit nobody for ``seconds``: one refusal pauses the queue for everybody."""
        self.store.close(self.now() + seconds)
        self.queue.nudge()

    def cap_level(self, name: str, per: float | None, remaining: float, after: float = 0.0) -> None:
        """Lower our level to what the server says is left of a limit; never raise it.

        Servers show no debts, so a figure below zero counts as zero.

        :param per: the limit's period in seconds; None: the shortest of that dimension,
            as a figure that names none must not stop calls for a day.
        :param after: in how many seconds that much is left.
        """
        now = self.now()
        buckets = self.store.buckets_of(name)
        if per is None:
            per = min((bucket.limit.per for bucket in buckets), default=None)
        for bucket in buckets:
            if bucket.limit.per != per:
                continue

            missing = max(bucket.burst - max(remaining, 0.0), 0.0)
            full_at = max(self.store.full_at(bucket), now)
            late = now + after + missing * bucket.seconds_per_unit - full_at
            if late > 0:
                self.store.correct(bucket, late, now)

    def next_in(self) -> float | None:
        """Return in how many seconds the head may go.

        None when nobody waits, and when the head waits for a call to end.
        """
        self.queue.drop_dead()
        head = self.queue.head
        if head is None or self.store.full:
            return None
        moment = self.store.moment(head.payment.amounts, head.payment.deferred)
        return max(moment - self.now(), 0.0)

    def reset_after_fork(self) -> None:
        """Start anew in a forked process.

        The waiters, the calls in flight and the holders of the locks belong to the
        parent process.
        """
        self.queue.reset_after_fork()
        before = self.store
        before.abandon()
        given = before.given if before.shared else self._given
        self.store = self._open_store(given, self.now(), self._slack)
        if not before.shared and before.limits != self._given:  # what was learned stays so
            self.store.replace(before.limits, self.now())
        self.store.follow(self.queue.first, self.queue.wake_paid)
        self.store.report(self._on_outage)
        self.store.close(before.closed_until)
        if before.marking:
            self.store.mark()


def rank_of(payment: Payment, arrival: float, patience: float) -> float:
    """Return the rank of a call in the queue: the lower, the sooner it goes."""
    if payment.slot is None or payment.around is None:
        return arrival + patience
    return arrival + patience - NESTED_FIRST * payment.slot.depth


def _waiter(payment: Payment, terms: Terms, parker: Parker) -> Waiter:
    rank = rank_of(payment, terms.arrival, terms.patience)
    if terms.again:
        rank = nextafter(rank, -inf)
    patience = terms.patience if rank > -NESTED_FIRST / 2 else -1.0  # nested calls by themselves
    return Waiter(
        rank,
        payment,
        parker,
        patience=patience,
        prepare=terms.prepare,
        deadline=terms.deadline,
        tenant=terms.tenant,
        price=terms.price,
    )
