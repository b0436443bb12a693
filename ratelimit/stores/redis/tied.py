"""A store's tie to its server: joining a quota, steps and replies, losing it.

Owns that each step is taken once, and what becomes of the numbers when the server is
lost or back; `alone.py` has the arithmetic of an outage. Must never take or settle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ratelimit.limits import Limits
from ratelimit.locks import reentrant_use
from ratelimit.stores.alone import ASK_SECONDS, Alone, OnOutage
from ratelimit.stores.bucket import DEFERRING
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.payments import Asked
from ratelimit.stores.redis import wire
from ratelimit.stores.redis.copy import Copy, Foreign, Step
from ratelimit.stores.redis.courier import Courier
from ratelimit.stores.redis.link import Link, LinkError
from ratelimit.stores.redis.wire import Change, Reply
from ratelimit.stores.written import is_opinion, limits_of, text_of

T = TypeVar("T")

REMEMBERED_SECONDS: Final = 3_600.0
"""Seconds after which what a quota says of the server's level is worth nothing more."""


class TiedStore(Copy):
    """A copy with its quota in a server, as long as that can be used.

    :param key: of the family.
    :param alone: what happens while the server cannot be used.
    """

    def __init__(
        self,
        link: Link,
        key: str,
        alone: Alone,
        limits: Limits,
        now: float,
        slack: float,
        time: Callable[[], float],
    ) -> None:
        self._alone = alone
        super().__init__(limits, now, slack, time)
        self._link = link
        self._key = key
        self._courier = Courier(self)
        self._notice = ""  # what is to be said when somebody takes
        self._join()

    @property
    def round_trips(self) -> int:
        """How often the server was asked, for all families of the limiter."""
        return self._link.round_trips

    @property
    def concurrency(self) -> int | None:
        """Return how many calls may be in flight at once, in all or here alone."""
        most = super().concurrency
        return self._alone.slots(most) if self.is_lost and most is not None else most

    def report(self, on_outage: OnOutage) -> None:
        """Call this when the server is lost, and when it is back."""
        self._alone.on_change = on_outage

    def abandon(self) -> None:
        """Leave the connection to the process that this one was forked from."""
        self._courier.stop()

    def _locked(self, act: Callable[..., T], *arguments: object) -> T:
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            return act(*arguments)
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def due(self, now: float) -> float:
        """Return when the next step is due, in seconds of the caller's clock."""
        raise NotImplementedError

    def serve(self) -> None:
        """Take the next step."""
        raise NotImplementedError

    def step(self, asked: Sequence[Asked] = (), *, keeps_ticket: bool = False) -> None:
        """Take one step; a lost server stays lost, or is back after it.

        Called by the courier, or by a thread that waits for the answer. One at a time.
        """
        with self._courier.connection:
            try:
                if self._step is not None:  # its reply was lost: it goes again as it was
                    self._send(self._step)
                if self.is_lost:
                    asked = ()
                self._send(self._locked(self._made, asked, keeps_ticket))
            except LinkError as error:
                self._locked(self._lose, error, self._time())

    def leave(self, until: float) -> None:
        """Send what is left, and take this process out of the quota.

        :param until: when to give up, in seconds of the caller's clock: the server then
            finds out by itself, but for what was spent without it.
        """
        with self._courier.connection:
            while True:
                try:
                    self._finish()
                except LinkError as error:
                    self._locked(self._lose, error, self._time())
                else:
                    return
                if self._time() > until:
                    return

    def _finish(self) -> None:
        if self._step is not None:
            self._send(self._step)
        while self.is_lost or self._changes:
            self._send(self._locked(self._made, (), False))
        self._send(self._locked(self._made, (), False, True))

    def _made(self, asked: Sequence[Asked], keeps_ticket: bool, ends: bool = False) -> Step:
        return self._next(asked, keeps_ticket=keeps_ticket, ends=ends)

    def _send(self, step: Step) -> None:
        reply = None
        seed = None
        for _ in range(3):
            sent = self._time()
            ask = wire.packed_step(
                step.own,
                step.changes,
                () if step.given_up else step.calls,
                sent,
                seed=seed,
                keeps_ticket=step.keeps_ticket,
                ends=step.ends,
            )
            try:
                reply = wire.reply_of(self._link.step(self._key, ask))
            except ValueError as error:
                raise LinkError(str(error)) from None
            if reply is not None:
                break
            seed = self._seed(sent)
        if reply is None:
            raise LinkError("the quota is emptied again and again")
        self._locked(self._answered, step, reply, sent, self._time())

    def _answered(self, step: Step, reply: Reply, sent: float, received: float) -> None:
        """Take a reply, with the lock held."""
        spent = self._spent(received) if self._outage else []
        is_first = self._known is None
        if self._outage:
            self._alone.end(received)
        self._adopt(reply, sent, received)
        self.is_lost = self._outage = False
        self._step = None
        if spent:
            self._keep(spent)
            for change in spent:
                self._redo(change, received)
        if is_first:
            self._compare(reply)
        if not step.given_up:
            self._grant(step, reply, received)
            return
        for call, _ in zip(step.calls, reply.grants, strict=False):
            amounts = {**call.amounts}
            amounts[DEFERRING] = amounts.get(DEFERRING, 0.0) - call.deferred
            self._keep([Change(wire.GIVE, *item) for item in amounts.items()])

    def _grant(self, step: Step, reply: Reply, received: float) -> None:
        """Take note of what a step has admitted, with the lock held."""
        raise NotImplementedError

    def _join(self) -> None:
        """Go on from what the server remembers, or be the first to tell it."""
        self.step()
        known = self._known
        if known is not None:
            self.remembers = bool(known.saved) and known.now - known.saved < REMEMBERED_SECONDS

    def _compare(self, reply: Reply) -> None:
        """Hold the limits that were given here, if any, whatever was given before."""
        if reply.texts is None or not is_opinion(self._own):
            return
        before = limits_of(reply.texts[1])
        if reply.texts[1] == text_of(self._own):
            return
        if reply.processes > 1 and is_opinion(before):
            self._notice = (
                f"the processes that share a quota were given different limits: {before!r}, and "
                f"now {self._own!r}, which hold from now on; give all of them the same"
            )
        self._change(Change(wire.REPLACE, first=1, limits=self._own))

    def _lose(self, error: Exception, now: float) -> None:
        """Go on without the server, as far as that was asked for; the lock is held."""
        if self._step is not None:
            self._step.given_up = True
        self.is_lost = True
        if self._outage:
            self._alone.again_at = now + ASK_SECONDS
            return
        self._outage = True
        self._lost_at = now
        shared = self._buckets
        self._alone.begin(error, list(shared.full_at), self.processes, now)
        own = Buckets(self._alone.share(self.limits), now, self._slack)
        own.full_at = list(shared.full_at)
        own.deferred = max(shared.deferred - self._foreign.deferred, 0.0)
        self._buckets, self._foreign = own, Foreign()

    def _spent(self, now: float) -> list[Change]:
        """Return what calls of an outage have taken, as changes of each bucket."""
        seconds = self._alone.spent(self._buckets.full_at, now)
        return [
            Change(wire.OWE, bucket.name, limit.per, late)
            for bucket, limit, late in zip(self._buckets.all, self.limits, seconds, strict=False)
            if late
        ]

    def _replaced(self, limits: Limits, now: float, *, carries: bool) -> Buckets:
        if self._outage:
            limits = self._alone.share(limits)
        return super()._replaced(limits, now, carries=carries)
