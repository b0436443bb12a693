"""What is held of one family: its numbers, its limits, and what else keeps calls back.

Owns the state of a store and every change to it but a payment and its settlement; the
changes that come from answers never block. Must never wait for anything but its lock,
read a clock or know a queue. `memory.py` has the payments.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import ClassVar

from ratelimit.limits import Limit, Limits
from ratelimit.locks import try_steps, wait_steps
from ratelimit.stores.alone import OnOutage
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.payments import NOTHING, Payment, Waiting


class Holdings:
    """The buckets of one family and its calls in flight.

    :param limits: any number of limits; none at all admits everything.
    :param now: the time it is, in seconds of the caller's clock.
    :param slack: the first guess of it, in seconds; see `ratelimit.stores.bucket`.
    """

    def __init__(self, limits: Limits, now: float, slack: float = 0.0) -> None:
        self.limits = self._own = limits
        self.smallest = smallest_of(limits)
        """The smallest limit of each dimension, per its own period."""
        self.marking = False
        """Whether payments carry marks: whether headers are listened to."""
        self.admitted = 0
        self.admitted_at = now
        """When a call was admitted last, or the store was made."""
        self.ended = 0
        self._slack = slack
        self._buckets = Buckets(limits, now, slack)
        self._keeping = 0  # calls in flight that give nothing back
        self._in_flight_of: dict[int, int] = {}  # by thread, if concurrency is limited
        self._borrowing = 0  # calls in flight in their parents' slots
        self._cap: int | None = None
        self._cap_until = inf
        self.closed_until = -inf
        """Before this moment nobody is admitted."""
        self.ask_within = inf
        """Seconds after which a waiting head asks again, whatever it waits for."""
        self.buckets_only = self._plain = True
        """Whether buckets are all that can keep a call back now."""
        self._find_obstacles()
        self._lock = threading.Lock()
        self._try_steps = try_steps(self._lock)
        self._wait_steps = wait_steps(self._lock)
        self._inbox: deque[Callable[[], None]] = deque()

    shared: ClassVar[bool] = False
    """Whether other processes take from the same buckets."""
    answers_later: ClassVar[bool] = False
    """Whether `take` asks, and the answer is there when the head is woken."""
    remembers: bool = False
    """Whether the levels at the start were another process's, not a guess."""

    @property
    def processes(self) -> int:
        """How many processes take from these buckets, this one included."""
        return 1

    @property
    def given(self) -> Limits:
        """The limits that a user has given, here or in another process."""
        return self._own

    @property
    def round_trips(self) -> int:
        """How often a server was asked."""
        return 0

    @property
    def in_flight(self) -> int:
        """Return the number of calls between admission and settlement."""
        return self.admitted - self.ended

    @property
    def is_certain(self) -> bool:
        """Return whether no call in flight gives back anything but requests."""
        return self.in_flight == self._keeping

    @property
    def admissions(self) -> int:
        """Return how many calls have been admitted, by all processes."""
        return self.admitted

    @property
    def concurrency(self) -> int | None:
        """Return how many calls may be in flight at once; None: any number."""
        return self._cap or self.limits.concurrency

    @property
    def asks_alone(self) -> bool:
        """Return whether one call goes alone, until headers have shown the level."""
        return self._cap == 1 and self._cap_until < inf

    def waits_for_itself(self, thread: int) -> bool:
        """Return whether only calls of this thread are in flight, as many as may be."""
        return self.full and self._in_flight_of.get(thread, 0) >= self.in_flight

    @property
    def is_capped(self) -> bool:
        """Return whether the cap alone, and no limit, keeps the next call back."""
        limit = self.limits.concurrency
        flying = self.in_flight - self._borrowing
        return self._cap is not None and self.full and (limit is None or flying < limit)

    @property
    def full(self) -> bool:
        """Return whether as many calls are in flight as may be."""
        concurrency = self.concurrency
        return concurrency is not None and self.in_flight - self._borrowing >= concurrency

    def _find_obstacles(self) -> None:
        """Note whether buckets are all that has to be looked at for a call."""
        self.buckets_only = self.concurrency is None and self.closed_until == -inf
        self._plain = self.buckets_only and not self.marking

    def abandon(self) -> None:
        """Leave what is shared to the process that this one was forked from."""

    def report(self, on_outage: OnOutage) -> None:
        """Call this when what is shared is lost, and when it is back."""

    def follow(self, waiting: Waiting, wake: Callable[[int], object]) -> None:
        """Serve a queue, where answers come later.

        :param waiting: returns the first calls that wait, at most that many.
        :param wake: lets those of them that are paid by now go on, and the first one
            look at the store again.
        """

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
        self._set_cap(concurrency, until)

    def _set_cap(self, concurrency: int | None, until: float) -> None:
        self._cap = concurrency
        self._cap_until = until
        self._find_obstacles()

    def close(self, until: float) -> None:
        """Admit nobody before ``until``; a later moment wins. Never blocks."""

        def apply() -> None:
            self.closed_until = max(self.closed_until, until)
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
            lowered_until = list(buckets.lowered_until)
            full_at[place] = max(full_at[place], now) + seconds
            corrected[place] += seconds
            lowered_until[place] = max(lowered_until[place], now) + seconds

            buckets.full_at = full_at
            buckets.corrected = corrected
            buckets.lowered_until = lowered_until
            done = True

        self._soon(apply)

    def revert(self, limits: Limits, now: float) -> bool:
        """Drop what was said from outside; return whether that changes anything.

        Opens the store, holds these limits, and takes back what corrections have
        lowered and has not refilled since: what is left is what was counted here.
        """
        lowered = any(until > now for until in self._buckets.lowered_until)
        if not lowered and self.closed_until <= now and limits == self.limits:
            return False
        self._revert(now)
        if limits != self.limits:
            self.replace(limits, now)
        return True

    def _revert(self, now: float) -> None:
        def apply() -> None:
            buckets = self._buckets
            full_at, corrected = buckets.after_revert(now)
            lowered_until = [now] * len(full_at)

            buckets.full_at = full_at
            buckets.corrected = corrected
            buckets.lowered_until = lowered_until
            self.closed_until = -inf
            self._find_obstacles()

        self._soon(apply)

    def corrected(self, bucket: Bucket) -> float | None:
        """Return the seconds by which `correct` moved a bucket; None: it is no more."""
        buckets = self._buckets
        return buckets.corrected[buckets.all.index(bucket)] if bucket in buckets.all else None

    def full_at(self, bucket: Bucket) -> float:
        """Return the moment at which a bucket of this store is next full."""
        return self._buckets.full_at[self._buckets.all.index(bucket)]

    def give(self, limits: Limits, now: float) -> None:
        """Hold what a user gives in place of the former limits. Never blocks.

        What is used of a limit stays used, also where its period is another one now.
        """
        self._soon(lambda: self._give(limits, now))

    def _give(self, limits: Limits, now: float) -> None:
        self._own = limits
        self._hold(limits, now, carries=True)

    def replace(self, limits: Limits, now: float) -> None:
        """Hold other limits; what is owed under a like one stays owed. Never blocks."""
        self._soon(lambda: self._hold(limits, now))

    def _hold(self, limits: Limits, now: float, *, carries: bool = False) -> None:
        buckets, smallest = self._replaced(limits, now, carries=carries), smallest_of(limits)

        self._buckets = buckets
        self.limits = limits
        self.smallest = smallest
        self._find_obstacles()

    def _replaced(self, limits: Limits, now: float, *, carries: bool) -> Buckets:
        return self._buckets.replaced(limits, now, self._slack, carries=carries)

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
                done = self._apply_inbox()
            finally:
                self._lock.release()
            if not done:
                return

    def _apply_inbox(self) -> bool:
        # An entry is taken out only after it is applied, and applying it once more,
        # when a signal came in between, changes nothing.
        while self._inbox:
            self._inbox[0]()
            self._inbox.popleft()
        return True

    def not_before(
        self, payment: Payment, now: float, ahead: Mapping[str, float] = NOTHING
    ) -> float:
        """Return a moment before which a call cannot go, whatever is given back.

        :param ahead: what certainly stays debited of the calls in front, summed.
        """
        amounts, deferred = payment.amounts, payment.deferred
        moment = self._buckets.not_before(amounts, deferred, ahead, self.is_certain)
        return min(max(moment, self.closed_until), now + self.ask_within)

    def moment(
        self,
        amounts: Mapping[str, float],
        deferred: float = 0.0,
        ahead: Mapping[str, float] = NOTHING,
    ) -> float:
        """Return when a call fits at the earliest; past if it fits now.

        See `Buckets.moment`; nothing fits while the store is closed.
        """
        return max(self.closed_until, self._buckets.moment(amounts, deferred, ahead))

    def latest(
        self, amounts: Mapping[str, float], deferred: float, ahead: Mapping[str, float] = NOTHING
    ) -> Limit | None:
        """Return the limit for which a call waits longest; see `Buckets.latest`."""
        return self._buckets.latest(amounts, deferred, ahead)

    @property
    def alone(self) -> bool:
        """Return whether one call goes alone now, and the rest wait for its answer."""
        return self._cap == 1 and self._cap_until < inf

    def refuse_oversize(self, payment: Payment) -> None:
        """Raise `RequestTooLarge` for a payment that no amount of waiting makes fit."""
        self._buckets.refuse_oversize(payment.amounts, payment.deferred)

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """Return the level of each bucket, by (name, period in seconds)."""
        levels = self._buckets.levels(now)  # of a share of the limits, where a store is lost
        pairs = zip(self.limits, levels, strict=False)
        return {(limit.name, limit.per): level for limit, level in pairs}

    def buckets_of(self, name: str) -> Sequence[Bucket]:
        """Return the buckets of one dimension."""
        return [bucket for bucket in self._buckets.all if bucket.name == name]


def smallest_of(limits: Limits) -> dict[str, float]:
    """Return the smallest amount of each dimension, whatever its period."""
    smallest: dict[str, float] = {}
    for limit in limits:
        smallest[limit.name] = min(limit.amount, smallest.get(limit.name, limit.amount))
    return smallest
