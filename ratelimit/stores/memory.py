"""Buckets in this process's memory.

Owns payments and settlements: one step over all buckets of a family. Must never wait
for anything but the store's lock, read a clock or know a queue. `holdings.py` has the
state.

Every change is calculated first and written by a few plain assignments with no call and
no loop between them. Python handles signals only at calls and at the ends of loops, so
a Ctrl-C finds each change whole or not begun, whenever it comes.

`settle` must also work when it interrupts the holder of the lock in the same thread: in
the finalizer of an abandoned stream that the garbage collector runs in the middle of
`take`, or in a signal handler. It therefore never blocks. What cannot be done at once
is left in an inbox, which the holder empties after it has released the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from math import inf

from ratelimit.locks import reentrant_use
from ratelimit.stores.holdings import Holdings
from ratelimit.stores.payments import Evidence, Payment, Slot, Wait


class MemoryStore(Holdings):
    """Takes from all buckets of one family in one step, and gives back."""

    def take(
        self,
        payment: Payment,
        now: float,
        rank: float = inf,  # noqa: ARG002  # for stores that processes share
        *,
        waits: bool = True,  # noqa: ARG002  # likewise
    ) -> Wait | None:
        """Debit every bucket in one step and return None, or none and return a wait.

        Raises `RequestTooLarge` for a payment that no amount of waiting makes fit.
        """
        for entered in self._try_steps:
            if entered:
                break
            return self._take_later(payment, now)
        try:
            buckets = self._buckets
            if (
                self._inbox
                or not self._plain
                or payment.deferred
                or buckets.deferred
                or payment.slot is not None
            ):
                return self._take(payment, now)

            # The common case of `_take`, with `Bucket.moment` and `Bucket.taken` in one
            # frame: every call pays for them (benchmarks/overhead.py, row
            # "uncontended").
            amounts, full_at = payment.amounts, buckets.full_at.copy()
            for place, name, seconds_per_unit, window, slack in buckets.figures:
                amount = amounts.get(name)
                if amount:
                    due, start = amount * seconds_per_unit, full_at[place]
                    beyond = due - window
                    if beyond > 0 or start + beyond > now:
                        return self._take(payment, now)
                    arrival = now + slack
                    full_at[place] = (start if start > arrival else arrival) + due

            # Nothing may come between these lines: no call, no loop.
            buckets.full_at = full_at
            self.admitted += 1
            self.admitted_at = payment.admitted_at = now
            if payment.keeps:
                self._keeping += 1
            payment.paid = True
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()
        return None

    def _take_later(self, payment: Payment, now: float) -> Wait | None:
        """Take when the lock is free; another thread holds it for microseconds."""
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            return self._take(payment, now)
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def _take(self, payment: Payment, now: float) -> Wait | None:
        """Take with the lock held."""
        if self._inbox:
            self._apply_inbox()  # what is given back by now counts for this call
        if not self.buckets_only:
            wait = self._obstacle(payment, now)
            if wait is not None:
                return wait

        buckets = self._buckets
        full_at = buckets.after_take(payment, now)
        if full_at is None:
            until = min(buckets.wait(payment), now + self.ask_within)
            return Wait(until, self.not_before(payment, now))

        serial, evidence = self.admissions + 1, None
        if self.marking:
            evidence = Evidence(buckets.marks(full_at), serial, self.in_flight + 1)
        lender = None if self.buckets_only else lender_of(payment)
        thread = 0 if self.buckets_only else threading.get_ident()
        slot = payment.slot or (Slot() if thread else None)
        lent = None if lender is None else lender.slot or Slot()
        of_thread = self._in_flight_of.get(thread, 0) + 1

        # Nothing may come between these lines: no call, no loop.
        buckets.full_at = full_at
        payment.slot = slot
        if slot is not None and thread:
            slot.thread = thread
            self._in_flight_of[thread] = of_thread
        if payment.deferred:
            buckets.deferred += payment.deferred
        self.admitted += 1
        self.admitted_at = now
        if payment.keeps:
            self._keeping += 1
        payment.paid = True
        payment.admitted_at = now
        payment.evidence = evidence
        if lender is not None and lent is not None and slot is not None:
            lent.borrower = payment
            lender.slot = lent
            slot.lender = lender
            self._borrowing += 1
        return None

    def _obstacle(self, payment: Payment, now: float) -> Wait | None:
        """Return what else than the buckets keeps a call back, if anything."""
        if now >= self._cap_until:
            self._set_cap(None, inf)
        if self.full and lender_of(payment) is None:
            self._buckets.refuse_oversize(payment.amounts, payment.deferred)
            return Wait(self._cap_until)
        if self.closed_until > now:
            self._buckets.refuse_oversize(payment.amounts, payment.deferred)
            until = self.moment(payment.amounts, payment.deferred)
            return Wait(min(until, now + self.ask_within), self.not_before(payment, now))
        self.closed_until = -inf
        self._find_obstacles()
        return None

    def settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        """End a call; what it used takes the place of what it reserved. Never blocks.

        The difference goes back, or is debited late. Settling again corrects earlier
        figures.

        :param used: what the call used, by dimension; what is missing keeps its
            reserve.
        """
        for entered in self._try_steps:
            if entered:
                break
            self._soon(partial(self._settle, payment, used, now))
            return
        try:
            if self._inbox:
                self._apply_inbox()  # an earlier figure for the same call may wait there
            if payment.ended or payment.deferred or payment.slot is not None:
                self._settle(payment, used, now)
                return

            # The common case of `_settle`, with `Bucket.given` in one frame: every call
            # pays for it (benchmarks/overhead.py, row "uncontended").
            buckets, reserved = self._buckets, payment.amounts
            full_at = buckets.full_at.copy()
            for place, name, seconds_per_unit, _, _ in buckets.figures:
                if name in used:
                    back, start = reserved.get(name, 0) - used[name], full_at[place]
                    full_at[place] = (start if start > now else now) - back * seconds_per_unit

            # Nothing may come between these lines: no call, no loop.
            buckets.full_at = full_at
            self.ended += 1
            if payment.keeps:
                self._keeping -= 1
            payment.spent = used
            payment.ended = True
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def _settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        """Apply a settlement; applying the same one again changes nothing."""
        buckets = self._buckets
        full_at = buckets.after_settlement(payment, used, now)
        spent = {**payment.spent, **used} if payment.spent else used
        if payment.ended:
            buckets.full_at, payment.spent = full_at, spent
            return

        deferred = buckets.deferred
        if payment.deferred:
            deferred = max(deferred - payment.deferred, 0.0)
        # A nested call that outlives this one goes on in its slot, or in the slot that
        # this one uses itself.
        slot = payment.slot
        lender, heir, thread = (
            (slot.lender, slot.borrower, slot.thread) if slot else (None, None, 0)
        )
        lent = None if lender is None else lender.slot
        inherited = None if heir is None else heir.slot
        borrowing = self._borrowing - (lender is not None or heir is not None)
        around = payment.around
        of_thread = self._in_flight_of.get(thread, 0) - 1

        # Nothing may come between these lines: no call, no loop.
        buckets.full_at = full_at
        buckets.deferred = deferred
        self.ended += 1
        if payment.keeps:
            self._keeping -= 1
        payment.spent = spent
        payment.ended = True
        if thread:
            self._in_flight_of[thread] = of_thread
        self._borrowing = borrowing
        if slot is not None:
            slot.parent = around  # so that no chain of ended calls is kept
            slot.lender = slot.borrower = None
        if lent is not None:
            lent.borrower = heir
        if inherited is not None:
            inherited.lender = lender


def lender_of(payment: Payment) -> Payment | None:
    """Return the call that can lend its slot to a nested call now.

    The call around it, or, where that lends its slot already, the borrower if the same
    task made it: while that task makes this call, its borrower cannot go on (a stream
    that is open, say), and to wait for it would be to wait for good.
    """
    lender = payment.around
    if lender is None or not lender.paid:
        return None
    task = payment.slot and payment.slot.task
    while lender.slot is not None and lender.slot.borrower is not None:
        lender = lender.slot.borrower
        if task is None or lender.slot is None or lender.slot.task != task:
            return None
    return lender
