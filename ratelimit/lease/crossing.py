"""Calls that wait for each other crosswise, so that none of them could ever end.

Owns the search for them. Must never admit, wait or end a call.

A call of one family that makes a call of another one keeps its slot until that has
ended. Where calls in flight are limited in both, the second one may wait for a slot of
a call that itself waits for the first one's.
"""

from __future__ import annotations

from typing import Self

from ratelimit.control.family import ModelFamily
from ratelimit.errors import ReentrantUse
from ratelimit.lease.admitted import AdmittedLease, enclosing_lease
from ratelimit.lease.flights import Flight, flights_of


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
