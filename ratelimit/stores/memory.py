"""Buckets in this process's memory.

Owns atomicity: one lock over all buckets of a family, taken so that no signal can leave
it locked (see `ratelimit.locks`). Never waits for anything but that lock, knows no clock and no
line.

`give` must also work when it interrupts the holder of the lock in the same thread (a
finalizer of an abandoned stream, run by the garbage collector in the middle of `take`;
a signal handler). It therefore never blocks: what cannot be done at once is left in an
inbox that the holder empties after it has let go of the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf

from ratelimit.admission.queue import AskAgain
from ratelimit.errors import RequestTooLarge
from ratelimit.limits import Cost, Limits, whole
from ratelimit.locks import reentrant_use, try_steps, wait_steps
from ratelimit.stores import NOTHING, Grant
from ratelimit.stores.bucket import HELD, Bucket, give_all, take_all


class MemoryStore:
    """The buckets of one family, full at the start.

    :param limits: any number of limits; none at all admits everything.
    :param now: seconds of the clock whose moments all other calls will name.
    :param slack: the first guess of it, in seconds; see `bucket.py`.
    """

    __slots__ = (
        "_buckets",
        "_closed_until",
        "_concurrency",
        "_held",
        "_held_until",
        "_inbox",
        "_lock",
        "_plain",
        "_slack",
        "_try_steps",
        "_wait_steps",
        "admitted",
        "ended",
        "limits",
        "marking",
    )

    def __init__(self, limits: Limits, now: float, slack: float = 0.0) -> None:
        self.limits = limits
        self._slack = slack
        self._buckets = tuple(Bucket(limit, now, slack) for limit in limits)
        self._held: int | None = None
        self._held_until = inf
        self._concurrency = limits.concurrency
        # whether grants carry marks: only who listens to headers pays for them
        self.marking = False
        self.admitted = 0
        self.ended = 0
        self._closed_until = -inf
        self._plain = True
        self._sort()
        self._lock = threading.Lock()
        self._try_steps = try_steps(self._lock)
        self._wait_steps = wait_steps(self._lock)
        self._inbox: deque[Callable[[], None]] = deque()

    @property
    def in_flight(self) -> int:
        """Calls between admission and settlement."""
        return self.admitted - self.ended

    @property
    def concurrency(self) -> int | None:
        """How many calls may be in flight at once, as was given or is held; None: any
        number.
        """
        return self._concurrency

    @property
    def full(self) -> bool:
        """Whether as many calls are in flight as may be."""
        return self._concurrency is not None and self.in_flight >= self._concurrency

    def take(self, cost: Cost, now: float) -> Grant | float:
        """Pay every bucket in one step, or none: then answer the moment at which to ask
        again (inf: when a call ends).

        Raises `RequestTooLarge` for a cost that no amount of waiting makes fit.
        """
        lock = self._lock
        for entered in self._try_steps:
            if entered:
                break
            for insisted in self._wait_steps:
                if insisted:
                    break
                raise reentrant_use()
            break
        try:
            if self._inbox:
                # what was given before this call came must count: nobody wakes it for
                # that again
                self._read_inbox()
            if not self._plain and (moment := self._not_before(cost, now)) is not None:
                return moment
            buckets = self._buckets
            if not take_all(buckets, cost, now):
                return self._later(cost)
            self.admitted += 1
            if not self.marking:
                return ()
            marks = []
            for bucket in buckets:  # a comprehension would be a frame of its own before Python 3.12
                marks.append((bucket, bucket.full_at - bucket.corrected))  # noqa: PERF401
            return self.admitted, self.admitted - self.ended, marks
        finally:
            lock.release()
            if self._inbox:
                self._empty_inbox()

    def _not_before(self, cost: Cost, now: float) -> float | None:
        """What else than the buckets keeps a call back: the moment at which to ask
        again, None when nothing does.
        """
        if now >= self._held_until:
            self.hold(None)
        if self.full:
            self.refuse_oversize(cost)
            return AskAgain(self._held_until)
        if self._closed_until > now:
            self.refuse_oversize(cost)
            return self.moment(cost)
        self._closed_until = -inf
        self._sort()
        return None

    def _sort(self) -> None:
        """See whether buckets are all that has to be looked at for a call: the common
        case, and the fast one.
        """
        self._plain = self._concurrency is None and self._closed_until == -inf

    def mark(self) -> None:
        """Let grants carry marks from now on: headers are listened to."""
        self.marking = True

    def _later(self, cost: Cost) -> float:
        self.refuse_oversize(cost)
        held = cost.get(HELD, 0)
        shares = [
            (bucket, amount, held if bucket.holds else 0)
            for bucket in self._buckets
            if (amount := cost.get(bucket.name))
        ]
        return max(bucket.moment(amount - share, share) for bucket, amount, share in shares)

    def give(self, cost: Cost, now: float, ends: bool) -> None:
        """Give amounts back, or debit late what is negative; never blocks."""
        lock = self._lock
        for entered in self._try_steps:
            if entered:
                break
            self._soon(partial(self._give, cost, now, ends))
            return
        try:  # as `_give`, in one frame the less
            if ends:
                self.ended += 1
            give_all(self._buckets, cost, now)
        finally:
            lock.release()
        if self._inbox:
            self._empty_inbox()

    def _give(self, cost: Cost, now: float, ends: bool) -> None:
        if ends:
            self.ended += 1
        give_all(self._buckets, cost, now)

    def spend(self, share: float, now: float) -> None:
        """Take this share of each limit, 0 to 1, out of its bucket: it was used before
        anybody looked.

        Dated like a debit: the server's bucket, too, is looked at only when the first
        request arrives.
        """
        for bucket in self._buckets:
            left = (1 - share) * bucket.limit.amount
            if share and left < bucket.burst:
                bucket.give(left - bucket.burst, now + bucket.slack)

    def expect(self, slack: float) -> None:
        """Expect requests to arrive at most ``slack`` seconds after they were admitted."""
        self._slack = slack
        for bucket in self._buckets:
            bucket.expect(slack)

    def hold(self, concurrency: int | None, until: float = inf) -> None:
        """Let at most so many calls be in flight until then; None goes back to what the
        limits say.
        """
        self._held = concurrency
        self._held_until = until
        self._concurrency = concurrency or self.limits.concurrency
        self._sort()

    def close(self, until: float) -> None:
        """Admit nobody before ``until``; a later moment wins."""

        def apply() -> None:
            self._closed_until = max(self._closed_until, until)
            self._sort()

        self._soon(apply)

    def correct(self, bucket: Bucket, seconds: float, now: float) -> None:
        """Move one bucket's ``full_at``; never blocks."""
        self._soon(lambda: bucket.correct(seconds, now))

    def replace(self, limits: Limits, now: float) -> None:
        """Hold other limits; a bucket of the same name and period keeps what is owed:
        as much, or as long, if that is less.
        """

        def apply() -> None:
            owed = {
                (b.name, b.limit.per): (b.owed(now), max(b.full_at - now, 0.0))
                for b in self._buckets
            }
            held = {(b.name, b.limit.per): b.held for b in self._buckets}
            self.limits = limits
            self._concurrency = self._held or limits.concurrency
            self._sort()
            self._buckets = tuple(Bucket(limit, now, self._slack) for limit in limits)
            for bucket in self._buckets:
                amount, seconds = owed.get((bucket.name, bucket.limit.per), (0.0, 0.0))
                bucket.full_at = now + min(amount * bucket.seconds_per_unit, seconds)
                bucket.held = held.get((bucket.name, bucket.limit.per), 0.0)

        self._soon(apply)

    def _soon(self, apply: Callable[[], None]) -> None:
        self._inbox.append(apply)
        self._empty_inbox()

    def _empty_inbox(self) -> None:
        # Whoever does not get in may leave: the one inside looks into the inbox after
        # letting go.
        while self._inbox:
            for entered in self._try_steps:
                if entered:
                    break
                return
            try:
                self._read_inbox()
            finally:
                self._lock.release()

    def _read_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def moment(self, cost: Cost, ahead: Cost = NOTHING) -> float:
        """When ``cost`` fits at the earliest if ``ahead``, the sum of several calls, is
        paid first; past if it fits now.

        What calls hold for their answers is left out: no time frees it, but an end may,
        and at any moment.
        """
        latest = self._closed_until
        for bucket in self._buckets:
            amount, before = cost.get(bucket.name, 0), ahead.get(bucket.name, 0)
            share = cost.get(HELD, 0) if bucket.holds else 0
            if bucket.holds:
                before -= ahead.get(HELD, 0)
            if amount or before:
                amount = min(amount - share, bucket.burst)
                latest = max(
                    latest,
                    bucket.full_at + (before + amount) * bucket.seconds_per_unit - bucket.window,
                )
                if share and not before and not bucket.held:
                    latest = max(latest, bucket.moment(amount, share))
        return latest

    def refuse_oversize(self, cost: Cost) -> None:
        """Raise `RequestTooLarge` for a cost that no amount of waiting makes fit."""
        for limit in self.limits:
            amount = cost.get(limit.name, 0) - (cost.get(HELD, 0) if limit.name == "tokens" else 0)
            if amount > limit.amount:
                raise RequestTooLarge(
                    f"this call needs {whole(amount)} {limit.name}, the limit is {limit}: it can never be admitted; "
                    "shorten the prompt, lower max_tokens, split the call, or raise the limit if the account allows more",
                    name=limit.name,
                    amount=amount,
                    limit=limit.amount,
                )

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """The level of each bucket, by (name, period in seconds)."""
        return {(bucket.name, bucket.limit.per): bucket.level(now) for bucket in self._buckets}

    def buckets_of(self, name: str) -> Sequence[Bucket]:
        """The buckets of one dimension."""
        return [bucket for bucket in self._buckets if bucket.name == name]
