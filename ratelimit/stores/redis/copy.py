"""This process's copy of a quota in a server, and what it changes there.

Owns what is shared and what is not, how changes are kept until the server has them, and
how a reply becomes the state of a store. Must never connect or choose when.

Changes count here at once, so that predictions and corrections are right before the
server has them. A reply replaces the shared numbers, and what was not on its way yet is
applied once more.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Final, NamedTuple

from ratelimit.limits import Limits
from ratelimit.stores.bucket import DEFERRING, Bucket
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.holdings import smallest_of
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Asked, Payment
from ratelimit.stores.redis import wire
from ratelimit.stores.redis.wire import Call, Change, Own, Reply, Seed
from ratelimit.stores.written import limits_of, text_of

MOST_CHANGES: Final = 2_000
"""Changes that one step carries, at most."""
SETTLE_SECONDS: Final = 0.2
"""Seconds until a refund is sent by itself: until then it goes with the next call."""


def _name_of_store() -> bytes:
    """Return a name that no other store of any process has."""
    host = platform.node().encode("ascii", "replace")[: wire.LONGEST_ID - 40]
    return b"%s %d %s" % (host, os.getpid(), os.urandom(6).hex().encode())


class Foreign(NamedTuple):
    """What all other processes hold."""

    in_flight: int = 0
    borrowing: int = 0
    deferred: float = 0.0


@dataclass(slots=True)
class Step:
    """What goes to the server at once, until its reply is there."""

    own: Own
    changes: Sequence[Change]
    asked: Sequence[Asked]
    calls: Sequence[Call]
    keeps_ticket: bool
    ends: bool
    given_up: bool = False
    """Whether its calls went without the server: what it admits is given back."""


class Copy(MemoryStore):
    """The numbers of one family, as the server has known them last.

    :param time: the time it is, in seconds of the same clock as ``now``.
    """

    shared: ClassVar[bool] = True
    answers_later: ClassVar[bool] = True

    def __init__(self, limits: Limits, now: float, slack: float, time: Callable[[], float]) -> None:
        self._foreign = Foreign()
        super().__init__(limits, now, slack)
        self._time = time
        self._id = _name_of_store()
        self._first_slack = slack
        self._given = text_of(limits)
        self._known: Reply | None = None
        self._shared_limits = limits  # as the server holds them
        self._ahead = 0.0  # seconds by which the server's clock is ahead of ours
        self._asked_at = -inf  # when the latest reply was asked for
        self._number = 0  # of the last step
        self._step: Step | None = None  # the one that has no reply yet
        self._changes: list[Change] = []
        self._send_by = inf
        self._lost_at = -inf  # when the server was lost
        self._outage = False  # whether this process has gone on without the server
        self.is_lost = True
        """Whether the server is not known to be there."""

    @property
    def given(self) -> Limits:
        """The limits that a user has given, here or in another process."""
        return limits_of(self._given)

    @property
    def processes(self) -> int:
        """How many processes share the quota, this one included."""
        return 1 if self._known is None else self._known.processes

    @property
    def in_flight(self) -> int:
        """Return the number of calls between admission and settlement, in all."""
        return self.admitted - self.ended + self._foreign.in_flight

    @property
    def admissions(self) -> int:
        """Return how many calls all processes have admitted."""
        return self.admitted if self._known is None else self._known.admitted

    @property
    def full(self) -> bool:
        """Return whether as many calls are in flight as may be."""
        most, borrowing = self.concurrency, self._borrowing + self._foreign.borrowing
        return most is not None and self.in_flight - borrowing >= most

    def _find_obstacles(self) -> None:
        self.buckets_only = self._plain = False  # nothing is known before the server has answered

    def settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        """End a call; what it used takes the place of its reserve. Never blocks."""
        kept = False

        def apply() -> None:
            nonlocal kept
            buckets = self._buckets
            full_at = buckets.full_at
            is_shared = payment.admitted_at <= self._lost_at  # if the server is lost
            if not kept:
                back = self._back(payment, used)
                changes = [Change(wire.GIVE, name, amount) for name, amount in back.items()]
                if self.is_lost and is_shared:
                    self._changes += changes
                self._keep(changes)
                kept = True
            self._settle(payment, used, now)
            if self.is_lost and is_shared:
                buckets.full_at = full_at  # the server's will have it, not our share

        self._soon(apply)

    def _back(self, payment: Payment, used: Mapping[str, float]) -> dict[str, float]:
        """Return what goes back of each dimension; see `Buckets.after_settlement`."""
        spent = payment.spent or {}
        back = {
            name: spent.get(name, payment.amounts.get(name, 0)) - amount
            for name, amount in used.items()
        }
        if payment.deferred and not payment.ended:
            back[DEFERRING] = back.get(DEFERRING, 0) - payment.deferred
        return {name: amount for name, amount in back.items() if amount}

    def correct(self, bucket: Bucket, seconds: float, now: float) -> None:  # noqa: ARG002
        """Move the ``full_at`` of one bucket: later (positive) is a lower level."""
        if self.corrected(bucket) is not None:
            self._change(Change(wire.CORRECT, bucket.name, bucket.limit.per, seconds))

    def close(self, until: float) -> None:
        """Admit nobody before ``until``; a later moment wins. Never blocks."""
        self._change(Change(wire.CLOSE, until=until))

    def cap(self, concurrency: int | None, until: float = inf) -> None:
        """Admit calls only while fewer are in flight in all, until then."""
        self._change(Change(wire.CAP, first=concurrency or -1, until=until))

    def spend(self, share: float, now: float) -> None:  # noqa: ARG002
        """Take a share of each limit, 0 to 1, that was used before."""
        if share:
            self._change(Change(wire.SPEND, first=share))

    def give(self, limits: Limits, now: float) -> None:  # noqa: ARG002
        """Hold what a user gives, for all processes. Never blocks."""
        self._own = limits
        self._change(Change(wire.REPLACE, first=1, limits=limits))

    def replace(self, limits: Limits, now: float) -> None:  # noqa: ARG002
        """Hold other limits; what is owed under a like one stays owed. Never blocks."""
        self._change(Change(wire.REPLACE, limits=limits))

    def _revert(self, now: float) -> None:  # noqa: ARG002
        self._change(Change(wire.REVERT))

    def _change(self, change: Change) -> None:
        """Let a change count here, and let the server have it."""
        kept = done = False

        def apply() -> None:
            nonlocal kept, done
            if not kept:
                self._keep([change])
                kept = True
            if not done:
                self._redo(change, self._time())
                done = True

        self._soon(apply)

    def _keep(self, changes: Sequence[Change]) -> None:
        """Keep changes for the next step; of an outage, its end tells the sum.

        None at all: a call has ended that gives nothing back but its place.
        """
        if self.is_lost:
            self._changes += [one for one in changes if one.kind == wire.REPLACE and one.first]
            return
        refunds = all(change.kind == wire.GIVE for change in changes)
        waits = refunds and self.concurrency is None  # where it is limited, somebody may wait
        self._changes += changes
        self._send_by = min(self._send_by, self._time() + SETTLE_SECONDS * waits)
        self._ring()

    def _ring(self) -> None:
        """Let the time of the next step be looked at again."""

    def _redo(self, change: Change, now: float) -> None:
        """Apply a change to the numbers here."""
        kind, name, first, second, until, limits = change
        buckets = self._buckets
        if kind == wire.CLOSE and until is not None:
            self.closed_until = max(self.closed_until, until)
        elif kind == wire.CAP and until is not None:
            self._set_cap(None if first < 0 else int(first), until)
        elif kind == wire.REPLACE and limits is not None:
            if first:
                self._given = text_of(limits)
            self._hold(limits, now, carries=bool(first))
        elif kind == wire.REVERT:
            buckets.full_at, buckets.corrected = buckets.after_revert(now)
            buckets.lowered_until = [now] * len(buckets.all)
            self.closed_until = -inf
        elif kind == wire.SPEND:
            buckets.full_at = buckets.after_spending(first, now)
        else:
            self._move(name, first, second, now, kind)

    def _move(self, name: str, first: float, second: float, now: float, kind: int) -> None:
        buckets = self._buckets
        full_at, corrected = list(buckets.full_at), list(buckets.corrected)
        lowered = list(buckets.lowered_until)
        for place, bucket in enumerate(buckets.all):
            if bucket.name != name or (kind != wire.GIVE and bucket.limit.per != first):
                continue
            seconds = -first * bucket.seconds_per_unit if kind == wire.GIVE else second
            full_at[place] = max(full_at[place], now) + seconds
            if kind == wire.CORRECT:
                corrected[place] += seconds
                lowered[place] = max(lowered[place], now) + seconds
        buckets.full_at, buckets.corrected, buckets.lowered_until = full_at, corrected, lowered

    def _next(
        self, asked: Sequence[Asked], *, keeps_ticket: bool = False, ends: bool = False
    ) -> Step:
        """Make the next step; the lock is held."""
        if self._inbox:
            self._apply_inbox()
        now = self._time()
        own = Own(
            id=self._id,
            number=self._number + 1,
            birth=0.0 if self._known is None else self._known.birth,
            version=0.0 if self._known is None else self._known.version,
            elapsed=now - self._asked_at,
            slack=self._slack,
            first_slack=self._first_slack,
            in_flight=self.admitted - self.ended,
            borrowing=self._borrowing,
            deferred=max(self._buckets.deferred - self._foreign.deferred, 0.0),
        )
        calls = [self._call(one, now) for one in asked]
        most = 0 if ends else MOST_CHANGES  # a step of a forgotten process would count again
        changes, rest = self._changes[:most], self._changes[most:]
        step = Step(own, changes, asked, calls, keeps_ticket, ends)

        # Nothing may come between these lines: no call, no loop.
        self._step, self._changes, self._number = step, rest, own.number
        self._send_by = now if rest else inf
        return step

    def _call(self, asked: Asked, now: float) -> Call:
        raise NotImplementedError

    def _seed(self, now: float) -> Seed:
        """Return what is known here, for a server that knows less."""
        limits, owed = self.limits, [0.0] * len(self.limits)
        if self._known is not None:
            limits = self._shared_limits
            columns = self._known.columns[0]
            owed = [max(full_at - self._ahead - now, 0.0) for full_at in columns]
        return Seed(max(self.closed_until - now, 0.0), self._given, limits, owed)

    def _adopt(self, reply: Reply, sent: float, received: float) -> None:
        """Make what the server says this store's state; the rest stays this process's.

        The lock is held.
        """
        latest, earliest = reply.now - sent, reply.now - received
        ahead = self._ahead
        if self._known is None:
            ahead = (latest + earliest) / 2
        ahead = min(max(ahead, earliest), latest)

        limits, buckets = self.limits, self._buckets
        own_deferred = max(buckets.deferred - self._foreign.deferred, 0.0)
        if reply.texts is not None:
            self._given = reply.texts[1]
            same = reply.texts[0] == text_of(limits)
            self._shared_limits = limits if same else limits_of(reply.texts[0])
        if self._outage or self._shared_limits is not limits:
            limits = self._shared_limits
            buckets = Buckets(limits, received, self._slack)
        full_at, corrected, lowered = reply.columns
        buckets.full_at = [moment - ahead for moment in full_at]
        buckets.corrected = list(corrected)
        buckets.lowered_until = [moment - ahead for moment in lowered]
        buckets.deferred = own_deferred + reply.deferred
        self._buckets, self.limits, self.smallest = buckets, limits, smallest_of(limits)
        self._foreign = Foreign(reply.in_flight, reply.borrowing, reply.deferred)
        self.closed_until = reply.closed - ahead if reply.closed > reply.now else -inf
        self._cap = None if reply.cap < 0 else reply.cap
        self._cap_until = reply.cap_until - ahead
        self._known, self._ahead, self._asked_at = reply, ahead, sent
        for change in self._changes:
            self._redo(change, received)
