"""How a call is admitted, written once.

Owns the order of events: join the line, become the head, pay everything, leave. Yields
what has to be done outside and is sent the answer, so it knows no clock, no store and
no way of waiting; `drive.py` has one driver for async and one for threads.

Only the head asks the store, and only the head waits on time. The others wait to be
woken: by the head that leaves (served, cancelled or out of time) or by whoever gives
something back. A head that is woken asks again, so a refund is heard of at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from math import inf, isfinite
from typing import TypeVar

from ratelimit.admission.queue import AskAgain, Queue, Waiter
from ratelimit.errors import WaitTimeout
from ratelimit.limits import Cost

GrantT = TypeVar("GrantT")


@dataclass(frozen=True, slots=True)
class Take:
    """Pay ``cost``; the answer is a grant, or the moment (float) at which to ask again."""

    cost: Cost


@dataclass(frozen=True, slots=True)
class When:
    """Tell the moment at which ``cost`` would fit after ``ahead``, the sum of several
    calls, was paid.
    """

    cost: Cost
    ahead: Cost


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait until woken, at most until the moment ``until``; the answer is the time it
    is then.

    Who blocks its thread calls ``refuse_blocking`` before: it raises where that would
    be for ever, because tasks of that thread are before it.
    """

    until: float
    refuse_blocking: Callable[[], object] = field(default=bool, compare=False)


Command = Take | When | Rest


def admit(
    line: Queue, place: Waiter, now: float, deadline: float = inf
) -> Generator[Command, GrantT | float, tuple[GrantT, Cost]]:
    """Wait for the turn of ``place`` and pay; return the grant and what was paid.

    :param now: the time it is; all moments are seconds of the same clock.
    :param deadline: raise `WaitTimeout` at this moment, or before it as soon as the
        predicted moment lies beyond it.
    """
    if deadline < inf:
        _check((yield When(place.cost, line.ahead_of(place.rank))), now, deadline)
    try:
        line.join(place)
        while True:
            until = inf
            if line.head is place:
                cost = place.price()
                answer = yield Take(cost)
                if not isinstance(answer, float):
                    return answer, cost
                until = answer
                if not isinstance(answer, AskAgain):
                    _check(until, now, deadline)
            if now >= deadline:
                raise WaitTimeout(
                    "no capacity within the timeout; allow a longer one, or send less"
                )
            answer = yield Rest(min(until, deadline), partial(line.refuse_blocking, place))
            now = answer if isinstance(answer, float) else now
    finally:
        try:
            line.leave(place)
        finally:
            # once more, if Ctrl-C cut it short: all behind a place that stays would
            # wait for ever
            line.leave(place)


def _check(moment: object, now: float, deadline: float) -> None:
    if isinstance(moment, float) and isfinite(moment) and moment > deadline:
        wait, timeout = moment - now, max(deadline - now, 0.0)
        # until they differ
        digits = next(
            (digits for digits in range(1, 10) if f"{wait:.{digits}f}" != f"{timeout:.{digits}f}"),
            1,
        )
        raise WaitTimeout(
            f"the wait would be {wait:,.{digits}f} s, the timeout is {timeout:,.{digits}f} s; allow a longer one, or send less",
            retry_after=wait,
        )
