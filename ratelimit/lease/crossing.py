"""Calls that wait for each other, so that none of them could ever end by itself.

Owns the search for them. Must never admit, wait or end a call.

A call of one family that makes a call of another one keeps its slot until that has
ended. Where calls in flight are limited in both, the second one may wait for a slot of
a call that itself waits for the first one's.
"""

from __future__ import annotations

from math import inf
from typing import Final, Self

from ratelimit.control.family import ModelFamily
from ratelimit.errors import ReentrantUse, caution
from ratelimit.lease.admitted import AdmittedLease, enclosing_lease
from ratelimit.lease.flights import Flight, caller, flights_of

OWN_SECONDS: Final = 60.0
"""Seconds after which a task is warned that waits for its own calls."""


class Inside:
    """Around the wait of a call that may be made inside calls of other families.

    Raises `ReentrantUse` where none of those that wait could ever go on.
    """

    __slots__ = ("_around", "_family")

    def __init__(self, lease: AdmittedLease) -> None:
        self._family = family = lease.family
        self._around: list[Flight] = []
        store, around = family.admission.store, enclosing_lease()
        if around is None or store.concurrency is None or lease.payment.slot is not None:
            return
        while around is not None and not around.ended:
            if around.family.admission.store.concurrency is not None:
                self._around.append(flights_of(around.family).note(around))
            around = around.around

    def __enter__(self) -> Self:
        for flight in self._around:
            flight.waits_for.append(self._family)
        self.refuse()
        return self

    def refuse(self) -> None:
        """Raise `ReentrantUse` if the wait would never end."""
        if self._around and _is_crossed(self._family):
            self._leave()
            raise ReentrantUse(
                "this call would wait for good: each call in flight that it waits for waits for a "
                "call that is made inside it, of other limits with concurrency=. Make calls inside "
                "each other in one order of their limits, or allow more in flight"
            )

    def _leave(self) -> None:
        around, self._around = self._around, []
        for flight in around:
            flight.waits_for.remove(self._family)

    def __exit__(self, *_: object) -> None:
        self._leave()


def warn_of_own_calls(family: ModelFamily, since: float) -> float:
    """Warn once a family where a task has long waited for calls that it made itself.

    All calls in flight are its own, and by hand, as a call made inside another one uses
    that one's slot. Another task may end them, and often does: nobody can tell.

    :param since: when the wait began, in seconds of the clock.

    Returns in how many seconds to look again.
    """
    store, flights = family.admission.store, flights_of(family)
    if flights.warned:
        return inf
    maker, calls = caller(), flights.all()
    if len(calls) < store.in_flight or any(flight.maker != maker for _, flight in calls):
        return inf
    rest = since + OWN_SECONDS - family.admission.now()
    if rest > 0:
        return rest
    flights.warned = True
    caution(
        f"this call has waited for {OWN_SECONDS:.0f} s for calls that this same task has in "
        f"flight, as many as concurrency={store.concurrency} allows: unless another task or "
        "thread ends one of them, it waits for good. Settle or close each lease before the next "
        "call, or use `with limiter.reserve(...)`, inside which calls share a slot; timeout= "
        "bounds the wait",
        stacklevel=11,
    )
    return inf


def _is_crossed(family: ModelFamily) -> bool:
    """Return whether no call in flight that a call of this family waits for can end."""
    seen: set[ModelFamily] = set()
    rest = [family]
    while rest:
        here = rest.pop()
        if here in seen:
            continue
        seen.add(here)
        store, flights = here.admission.store, flights_of(here).all()
        if not store.full or store.is_capped or len(flights) < store.in_flight:
            return False
        for _, flight in flights:
            if not flight.waits_for:
                return False
            rest += flight.waits_for
    return True
