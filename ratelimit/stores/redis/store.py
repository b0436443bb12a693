"""Buckets that processes of many machines share through a Redis or Valkey server.

Owns the answers to a queue, and what becomes of calls while the server cannot be used.
The arithmetic is the script's. Must never choose when a step is taken (`courier.py`
does).

* A head that waits asks, and as many behind it as fit are admitted by the same step.
  The answer comes later: it is looked up when the head is woken. A call that fits
  within a moment is admitted at once, to go then.
* *Shared*: buckets, limits, corrections, pauses, calls in flight and deferred tokens of
  each process, and the place of each head that waits. *Own*: queues, leases, slack.
* Changes go to the server with the next step, in order, and each is applied once: a
  step that is sent again after its connection broke has the same number.
* *Loss.* Where the server cannot be used, `alone.py` says what happens until it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Final, TypeVar

from ratelimit.errors import caution
from ratelimit.stores.memory import lender_of
from ratelimit.stores.payments import (
    NOTHING,
    Asked,
    Evidence,
    Mark,
    Payment,
    Slot,
    Wait,
    Waiting,
)
from ratelimit.stores.redis import wire
from ratelimit.stores.redis.copy import Step
from ratelimit.stores.redis.link import LinkError
from ratelimit.stores.redis.tied import TiedStore
from ratelimit.stores.redis.wire import Call, Change, Grant, Reply

T = TypeVar("T")

MOST_CALLS: Final = 64
"""Calls that one step admits, at most."""
ANSWER_SECONDS: Final = 2.5
"""Seconds after which a step without a reply is lost, whatever its client waits for."""
GRACE_SECONDS: Final = 0.1
"""Seconds that asking may take: a call with no time to wait may go as well."""
FRESH_SECONDS: Final = 0.1
"""Seconds for which a reply is new enough to refuse a call by it."""
REMEMBERED_SECONDS: Final = 3_600.0
"""Seconds after which what a quota says of the server's level is worth nothing more."""


class RedisStore(TiedStore):
    """Takes from all buckets of one family in one step, for all processes."""

    _answer: tuple[Payment, Wait] | None = None  # for the head that asked last
    _waiting: Waiting | None = None
    _wake: Callable[[int], object]
    _asking = False  # whether a head waits for its first answer, or for a new one
    _asking_since: float | None = None
    _looking = False  # whether somebody wants to know the levels

    def follow(self, waiting: Waiting, wake: Callable[[int], object]) -> None:
        """Serve a queue; without one each call is answered at once."""
        self._waiting, self._wake = waiting, wake

    def _ring(self) -> None:
        if self._waiting is not None:
            self._courier.ring(self._send_by)

    def take(
        self, payment: Payment, now: float, rank: float = inf, *, waits: bool = True
    ) -> Wait | None:
        """Return None if the call is admitted and may go, else until when to wait.

        :param rank: of the call in its queue; without one it goes behind all that wait.
        :param waits: whether the answer may come later; else the calling thread waits
            for the server, and the call keeps no place.

        Raises `RequestTooLarge` for a payment that no amount of waiting makes fit, and
        `StoreUnavailable` where the server is lost and that was asked for.
        """
        if waits and self._waiting is not None:
            self._say()
            return self._locked(self._take_later, payment, now)
        if not payment.paid and not self.is_lost:
            self._locked(self.refuse_oversize, payment)
            latest = inf if waits else now
            asked = Asked(payment, rank, latest, 0)
            self.step([asked], keeps_ticket=not waits)
        self._say()
        return self._locked(self._take_now, payment, max(now, self._time()))

    def _say(self) -> None:
        """Warn whoever takes of what the thread of the steps has met."""
        if self.is_lost:
            self._alone.warn()
        elif self._notice:
            notice, self._notice = self._notice, ""
            caution(notice, stacklevel=2)

    def _take_now(self, payment: Payment, now: float) -> Wait | None:
        if payment.paid:
            return None if payment.admitted_at <= now else Wait(payment.admitted_at)
        if self.is_lost:
            return self._alone.take(payment, now, self._take)
        if self._inbox:
            self._apply_inbox()
        self.refuse_oversize(payment)
        answer = self._answer
        if answer is not None and answer[0] is payment and now < answer[1].until:
            return answer[1]
        return Wait(now + ANSWER_SECONDS, pending=True)

    def _take_later(self, payment: Payment, now: float) -> Wait | None:
        wait = self._take_now(payment, now)
        if wait is not None and wait.pending:
            since = self._asking_since
            if since is not None and now - since > ANSWER_SECONDS:
                self._lose(LinkError("the server does not answer"), now)
                return self._take_now(payment, now)
            self._asking_since = now if since is None else since
            self._asking = True
            self._courier.start()
            self._courier.ring(now)
        return wait

    def not_before(
        self, payment: Payment, now: float, ahead: Mapping[str, float] = NOTHING
    ) -> float:
        """Return a moment before which a call cannot go, whatever is given back.

        What other processes have given back lately is not known: then it is now.
        """
        if not self.is_lost and now - self._asked_at > FRESH_SECONDS:
            return now
        return super().not_before(payment, now, ahead)

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """Return the level of each bucket, by (name, period in seconds).

        As they were known last; the server is asked for newer ones.
        """
        if self._waiting is not None and now - self._asked_at > FRESH_SECONDS:
            self._looking = True
            self._locked(self._courier.start)
            self._courier.ring(now)
        return super().levels(now)

    def due(self, now: float) -> float:
        """Return when the next step is due, in seconds of the caller's clock."""
        if self.is_lost:
            return self._alone.again_at
        if self._asking or self._looking:
            return now
        return self._send_by

    def serve(self) -> None:
        """Take one step for the queue that is followed, and wake its head."""
        self._asking = self._looking = False
        asked = [] if self._waiting is None else self._waiting(MOST_CALLS)
        self.step([one for one in asked if not one.payment.paid])
        self._asking_since = None
        if self._waiting is not None:
            self._wake(MOST_CALLS)

    def _call(self, asked: Asked, now: float) -> Call:
        payment = asked.payment
        lent = payment.slot is not None and lender_of(payment) is not None
        around = payment.deferred_around if payment.slot is not None else 0.0
        amounts = {name: amount for name, amount in payment.amounts.items() if amount}
        latest = asked.deadline - now
        if -GRACE_SECONDS < latest < 0:
            latest = 0.0
        return Call(asked.rank - now, latest, lent, payment.deferred, around, amounts)

    def _grant(self, step: Step, reply: Reply, received: float) -> None:
        for asked, call, grant in zip(step.asked, step.calls, reply.grants, strict=False):
            self._admit(asked, call, grant, received)
        rest = step.asked[len(reply.grants) :]
        if rest:
            not_before = super().not_before(rest[0].payment, received)
            wait = Wait(received + max(reply.wait, 0.0), not_before)
            self._answer = rest[0].payment, wait

    def _admit(self, asked: Asked, call: Call, grant: Grant, received: float) -> None:
        """Take note that a call was admitted, with the lock held."""
        payment = asked.payment
        goes = self._known.now + grant.delay - self._ahead if self._known and grant.delay else 0.0
        admitted_at = max(goes, received)
        if self.marking:
            pairs = zip(self._buckets.all, grant.marks, strict=False)
            marks = [Mark(bucket, moment - self._ahead) for bucket, moment in pairs]
            payment.evidence = Evidence(marks, grant.serial, grant.in_flight)
        lender = lender_of(payment) if payment.slot is not None else None
        if lender is not None and payment.slot is not None:
            lender.slot = lender.slot or Slot()
            lender.slot.borrower = payment
            payment.slot.lender = lender
            self._borrowing += 1
        if self.concurrency is not None and asked.thread:
            payment.slot = payment.slot or Slot()
            payment.slot.thread = asked.thread
            self._in_flight_of[asked.thread] = self._in_flight_of.get(asked.thread, 0) + 1
        payment.amounts, payment.deferred = call.amounts, call.deferred
        self._buckets.deferred += call.deferred
        self.admitted += 1
        self.admitted_at = payment.admitted_at = admitted_at
        if payment.keeps:
            self._keeping += 1
        payment.paid = True
        if payment.withdrawn:
            self._give_up(payment, received)

    def _give_up(self, payment: Payment, now: float) -> None:
        """Give back what a call was granted that waits no longer."""
        used = dict.fromkeys(payment.amounts, 0.0)
        back = self._back(payment, used)
        self._keep([Change(wire.GIVE, name, amount) for name, amount in back.items()])
        self._settle(payment, used, now)
