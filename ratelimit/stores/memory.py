"""Buckets in this process's memory.

Owns the numbers of one family's buckets, the calls in flight, and one lock over them.
Must never wait for anything but that lock, read a clock or know a queue.

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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf

from ratelimit.limits import Limits
from ratelimit.locks import reentrant_use, try_steps, wait_steps
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.payments import NOTHING, Payment, Wait


class MemoryStore:
    """The buckets of one family and its calls in flight.

    :param limits: any number of limits; none at all admits everything.
    :param now: the time it is, in seconds of the caller's clock.
    :param slack: the first guess of it, in seconds; see `ratelimit.stores.bucket`.
    """

    def __init__(self, limits: Limits, now: float, slack: float = 0.0) -> None:
        self.limits = limits
        self.marking = False
        """Whether payments carry marks: whether headers are listened to."""
        self.admitted = 0
        self.admitted_at = now
        """When a call was admitted last, or the store was made."""
        self.ended = 0
        self._slack = slack
        self._buckets = Buckets(limits, now, slack)
        self._keeping = 0  # calls in flight that give nothing back
        self._borrowing = 0  # calls in flight in their parents' slots
        self._cap: int | None = None
        self._cap_until = inf
        self._closed_until = -inf
        self.ask_within = inf
        """Seconds after which a waiting head asks again, whatever it waits for."""
        self._buckets_only = self._plain = True
        self._find_obstacles()
        self._lock = threading.Lock()
        self._try_steps = try_steps(self._lock)
        self._wait_steps = wait_steps(self._lock)
        self._inbox: deque[Callable[[], None]] = deque()

    @property
    def in_flight(self) -> int:
        """Return the number of calls between admission and settlement."""
        return self.admitted - self.ended

    @property
    def concurrency(self) -> int | None:
        """Return how many calls may be in flight at once; None: any number."""
        return self._cap or self.limits.concurrency

    @property
    def full(self) -> bool:
        """Return whether as many calls are in flight as may be."""
        concurrency = self.concurrency
        return concurrency is not None and self.in_flight - self._borrowing >= concurrency

    def take(self, payment: Payment, now: float) -> Wait | None:
        """Debit every bucket in one step and return None, or none and return a wait.

        Raises `RequestTooLarge` for a payment that no amount of waiting makes fit.
        """
        for entered in self._try_steps:
            if entered:
                break
            return self._take_later(payment, now)
        try:
            buckets = self._buckets
            if self._inbox or not self._plain or payment.nested or payment.deferred:
                return self._take(payment, now)
            if buckets.deferred:
                return self._take(payment, now)

            # The common case of `_take`, with `Bucket.moment` and `Bucket.taken` in one
            # frame: every call pays for them (benchmarks/overhead.py, row
            # "uncontended").
            amounts = payment.amounts
            full_at = buckets.full_at.copy()
            place = -1
            for name, burst, seconds_per_unit, window, slack in buckets.figures:
                place += 1
                amount = amounts.get(name)
                if amount:
                    due = amount * seconds_per_unit
                    start = full_at[place]
                    if amount > burst or start + (due - window) > now:
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
        if not self._buckets_only:
            wait = self._obstacle(payment, now)
            if wait is not None:
                return wait

        buckets = self._buckets
        full_at = buckets.after_take(payment, now)
        if full_at is None:
            until = min(buckets.wait(payment), now + self.ask_within)
            return Wait(until, self.not_before(payment, now))

        marks = buckets.marks(full_at) if self.marking else ()
        lender = None if self._buckets_only else _lender(payment)
        serial = self.admitted + 1

        # Nothing may come between these lines: no call, no loop.
        buckets.full_at = full_at
        if payment.deferred:
            buckets.deferred += payment.deferred
        self.admitted = serial
        self.admitted_at = now
        if payment.keeps:
            self._keeping += 1
        payment.paid = True
        payment.admitted_at = now
        if marks:
            payment.marks = marks
            payment.serial = serial
            payment.in_flight = serial - self.ended
        if lender is not None:
            lender.borrower = payment
            payment.lender = lender
            self._borrowing += 1
        return None

    def _obstacle(self, payment: Payment, now: float) -> Wait | None:
        """Return what else than the buckets keeps a call back, if anything."""
        if now >= self._cap_until:
            self.cap(None)
        if self.full and _lender(payment) is None:
            self._buckets.refuse_oversize(payment.amounts, payment.deferred)
            return Wait(self._cap_until)
        if self._closed_until > now:
            self._buckets.refuse_oversize(payment.amounts, payment.deferred)
            until = self.moment(payment.amounts, payment.deferred)
            return Wait(min(until, now + self.ask_within), self.not_before(payment, now))
        self._closed_until = -inf
        self._find_obstacles()
        return None

    def _find_obstacles(self) -> None:
        """Note whether buckets are all that has to be looked at for a call."""
        self._buckets_only = self.concurrency is None and self._closed_until == -inf
        self._plain = self._buckets_only and not self.marking

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
            if payment.ended or payment.deferred or payment.keeps or payment.nested:
                self._settle(payment, used, now)
                return

            # The common case of `_settle`, with `Bucket.given` in one frame: every call
            # pays for it (benchmarks/overhead.py, row "uncontended").
            buckets, reserved = self._buckets, payment.amounts
            full_at = buckets.full_at.copy()
            place = -1
            for name, _, seconds_per_unit, _, _ in buckets.figures:
                place += 1
                if name in used:
                    back = (reserved.get(name, 0) - used[name]) * seconds_per_unit
                    start = full_at[place]
                    full_at[place] = (start if start > now else now) - back

            # Nothing may come between these lines: no call, no loop.
            buckets.full_at = full_at
            self.ended += 1
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
        lender, heir = payment.lender, payment.borrower
        borrowing = self._borrowing - (lender is not None or heir is not None)
        around = payment.parent and payment.around

        # Nothing may come between these lines: no call, no loop.
        buckets.full_at = full_at
        buckets.deferred = deferred
        self.ended += 1
        if payment.keeps:
            self._keeping -= 1
        payment.spent = spent
        payment.ended = True
        self._borrowing = borrowing
        payment.parent = around  # so that no chain of ended calls is kept
        payment.lender = payment.borrower = None
        if lender is not None:
            lender.borrower = heir
        if heir is not None:
            heir.lender = lender

    def mark(self) -> None:
        """Let payments carry marks from now on: headers are listened to."""
        self.marking = True
        self._find_obstacles()

    def spend(self, share: float, now: float) -> None:
        """Take a share of each limit, 0 to 1, that was used before."""
        self._buckets.full_at = self._buckets.after_spending(share, now)

    def expect(self, slack: float) -> None:
        """Date debits ``slack`` seconds after admission from now on."""
        self._slack = slack
        self._buckets.expect(slack)

    def cap(self, concurrency: int | None, until: float = inf) -> None:
        """Admit calls only while fewer than ``concurrency`` are in flight, until then.

        None goes back to what the limits say.
        """
        self._cap = concurrency
        self._cap_until = until
        self._find_obstacles()

    def close(self, until: float) -> None:
        """Admit nobody before ``until``; a later moment wins. Never blocks."""

        def apply() -> None:
            self._closed_until = max(self._closed_until, until)
            self._find_obstacles()

        self._soon(apply)

    def correct(self, bucket: Bucket, seconds: float, now: float) -> None:
        """Move the ``full_at`` of one bucket: later (positive) is a lower level.

        Never blocks. A bucket that has been replaced since is left alone.
        """
        done = False

        def apply() -> None:
            nonlocal done
            buckets = self._buckets
            if done or bucket not in buckets.all:
                return
            place = buckets.all.index(bucket)
            full_at, corrected = list(buckets.full_at), list(buckets.corrected)
            full_at[place] = max(full_at[place], now) + seconds
            corrected[place] += seconds
            buckets.full_at = full_at
            buckets.corrected = corrected
            done = True

        self._soon(apply)

    def revert(self, limits: Limits, now: float) -> bool:
        """Drop what was said from outside; return whether that changes anything.

        Opens the store, holds these limits, and takes back the corrections that have
        lowered a level: what is left is what was counted here.
        """
        buckets = self._buckets
        lowered = any(seconds > 0 for seconds in buckets.corrected)
        if not lowered and self._closed_until <= now and limits == self.limits:
            return False

        def apply() -> None:
            buckets = self._buckets
            moved = zip(buckets.full_at, buckets.corrected, strict=True)
            full_at = [full - max(seconds, 0.0) for full, seconds in moved]
            corrected = [min(seconds, 0.0) for seconds in buckets.corrected]
            buckets.full_at = full_at
            buckets.corrected = corrected
            self._closed_until = -inf
            self._find_obstacles()

        self._soon(apply)
        if limits != self.limits:
            self.replace(limits, now)
        return True

    def corrected(self, bucket: Bucket) -> float | None:
        """Return the seconds by which `correct` moved a bucket; None: it is no more."""
        buckets = self._buckets
        return buckets.corrected[buckets.all.index(bucket)] if bucket in buckets.all else None

    def full_at(self, bucket: Bucket) -> float:
        """Return the moment at which a bucket of this store is next full."""
        return self._buckets.full_at[self._buckets.all.index(bucket)]

    def replace(self, limits: Limits, now: float) -> None:
        """Hold other limits; what is owed under a like one stays owed. Never blocks."""

        def apply() -> None:
            buckets = self._buckets.replaced(limits, now, self._slack)
            self._buckets = buckets
            self.limits = limits
            self._find_obstacles()

        self._soon(apply)

    def _soon(self, apply: Callable[[], None]) -> None:
        self._inbox.append(apply)
        self._empty_inbox()

    def _empty_inbox(self) -> None:
        # A caller that does not get in may leave: the holder of the lock looks into the
        # inbox after it has released it.
        while self._inbox:
            for entered in self._try_steps:
                if entered:
                    break
                return
            try:
                self._apply_inbox()
            finally:
                self._lock.release()

    def _apply_inbox(self) -> None:
        # An entry is taken out only after it is applied, and applying it once more,
        # when a signal came in between, changes nothing.
        while self._inbox:
            self._inbox[0]()
            self._inbox.popleft()

    def not_before(
        self, payment: Payment, now: float, ahead: Mapping[str, float] = NOTHING
    ) -> float:
        """Return a moment before which a call cannot go, whatever is given back.

        :param ahead: what certainly stays debited of the calls in front, summed.
        """
        sure = self.in_flight == self._keeping
        moment = self._buckets.not_before(payment.amounts, payment.deferred, ahead, sure)
        return min(max(moment, self._closed_until), now + self.ask_within)

    def moment(
        self,
        amounts: Mapping[str, float],
        deferred: float = 0.0,
        ahead: Mapping[str, float] = NOTHING,
    ) -> float:
        """Return when a call fits at the earliest; past if it fits now.

        See `Buckets.moment`; nothing fits while the store is closed.
        """
        return max(self._closed_until, self._buckets.moment(amounts, deferred, ahead))

    def refuse_oversize(self, payment: Payment) -> None:
        """Raise `RequestTooLarge` for a payment that no amount of waiting makes fit."""
        self._buckets.refuse_oversize(payment.amounts, payment.deferred)

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """Return the level of each bucket, by (name, period in seconds)."""
        return self._buckets.levels(now)

    def buckets_of(self, name: str) -> Sequence[Bucket]:
        """Return the buckets of one dimension."""
        return [bucket for bucket in self._buckets.all if bucket.name == name]


def _lender(payment: Payment) -> Payment | None:
    """Return the call that can lend its slot to a nested call now."""
    around = payment.around
    if around is None or not around.paid or around.borrower is not None:
        return None
    return around
