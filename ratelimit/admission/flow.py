"""How a call is admitted, written once.

Owns the order of events: join the queue, become the head, pay, leave. Must never wait,
read a clock or touch a store: it yields what has to be done outside and is sent the
answer. `drivers.py` has one driver for async code and one for threads.

Only the head asks the store, and only the head waits on time; the store may admit some
of those behind it by the same answer. The others wait to be woken: by the head that
leaves (served, cancelled or out of time), or by whoever gives something back. A head
that is woken asks again, so a refund takes effect at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from math import inf

from ratelimit.admission.queue import Queue, Waiter
from ratelimit.errors import WaitTimeout
from ratelimit.limits import Amounts
from ratelimit.stores.payments import Payment, Wait


@dataclass(frozen=True, slots=True)
class Take:
    """Pay; the answer is None, or the wait until it makes sense to ask again."""

    payment: Payment
    rank: float = inf
    """The call's rank in the queue, for stores that processes share."""


@dataclass(frozen=True, slots=True)
class Predict:
    """Tell the moment (float) before which a payment cannot go, after ``ahead``."""

    payment: Payment
    ahead: Amounts


@dataclass(frozen=True, slots=True)
class Fit:
    """Raise `RequestTooLarge` if a payment never fits; the answer is None."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Park:
    """Wait until woken, at most until ``until``; the answer is the time then.

    A driver that blocks its thread calls ``refuse_blocking`` first: it raises if the
    thread would block for good, because tasks of the same thread are in front.
    """

    until: float
    refuse_blocking: Callable[[], object] = field(default=bool, compare=False)


Command = Take | Predict | Fit | Park
Answer = Wait | float | None


def admit(
    queue: Queue,
    waiter: Waiter,
    now: float,
    deadline: float = inf,
    *,
    answers_later: bool = False,
) -> Generator[Command, Answer, None]:
    """Wait for the turn of ``waiter`` and pay.

    :param now: the time it is; all moments are seconds of the same clock.
    :param deadline: raise `WaitTimeout` at this moment, or before it as soon as it is
        certain that the call cannot go until then.
    :param answers_later: whether the store has to be asked once, and its answer to be
        awaited, also where the deadline is near: it knows the deadline.
    """
    payment = waiter.payment
    payment.withdrawn = False
    pending = answers_later
    if deadline < inf:
        moment = yield Predict(payment, queue.ahead_of(waiter.rank, waiter.tenant))
        refuse_late(moment, now, deadline)
    try:
        queue.join(waiter)
        while True:
            until = inf
            if waiter.left or waiter.stale:
                yield from _again(queue, waiter)
            if queue.head is waiter or payment.paid:
                if now >= deadline and not pending:
                    raise timed_out()
                prepare = None if payment.paid else waiter.prepare
                again = inf if prepare is None else prepare()
                wait = yield Take(payment, waiter.rank)
                if not isinstance(wait, Wait):
                    return
                until, pending = min(wait.until, now + again), wait.pending
                refuse_late(wait.not_before, now, deadline)
            if now >= deadline and not pending:
                raise timed_out()
            if not pending:
                until = min(until, deadline)
            time = yield Park(until, partial(queue.refuse_blocking, waiter))
            if isinstance(time, float):
                now = time
    finally:
        try:
            payment.withdrawn = not payment.paid
            queue.leave(waiter)
        finally:
            # Twice more, if Ctrl-C cut it short, and a second one the repetition: a
            # waiter that stayed would hold up all those behind it.
            try:
                queue.leave(waiter)
            finally:
                queue.leave(waiter)


def _again(queue: Queue, waiter: Waiter) -> Generator[Command, Answer, None]:
    """Go on with a waiter that something has happened to."""
    if waiter.left:  # the queue went on without it while its event loop was stopped
        queue.join(waiter)
    if waiter.stale:  # other limits hold
        waiter.stale = False
        if waiter.price is not None and not waiter.payment.paid:
            waiter.price()
        yield Fit(waiter.payment)


def timed_out() -> WaitTimeout:
    """Return the error of a call that its timeout has ended."""
    return WaitTimeout("no capacity within the timeout; allow a longer one, or send less")


def refuse_late(moment: Answer, now: float, deadline: float) -> None:
    """Raise `WaitTimeout` if a certain moment lies beyond the deadline."""
    if not isinstance(moment, float) or not deadline < moment < inf:
        return
    wait, timeout = moment - now, max(deadline - now, 0.0)
    digits = 1
    while digits < 9 and f"{wait:.{digits}f}" == f"{timeout:.{digits}f}":
        digits += 1  # until the two figures differ
    raise WaitTimeout(
        f"the wait would be {wait:,.{digits}f} s, the timeout is {timeout:,.{digits}f} s; "
        "allow a longer one, or send less",
        retry_after=wait,
    )
