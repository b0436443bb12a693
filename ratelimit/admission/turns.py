"""Which call has the turn, where tenants have shares.

Owns that order: weighted fair queueing by start times (Goyal, Vin and Cheng,
SIGCOMM 1996). Must never read a clock or a store: what a call costs is a callable of
its owner.

Each tenant has a *start*, a virtual time: the cost of what it was admitted so far,
divided by its share. The tenant that waits with the lowest start has the turn, and the
cost of its call, divided by its share, is added to its start. So the starts of all that
wait stay together, and what they are admitted is in proportion to their shares:

    shares a: 3, b: 1; every call costs 6          start of a      start of b
    both wait                                       0               0
    a goes (it came first): 0 + 6 / 3               2               0
    b goes:                 0 + 6 / 1               2               6
    a, a and a go                                   4, 6, 8         6
    b goes, and so on: three of a, one of b         8               12

A tenant that joins starts at the virtual time of the call that was admitted last, not
at zero: it gets its share from now on, and nothing for the time in which it was idle,
which the others have used. It waits for one call of each other tenant at most before
its share begins. Nobody starves: each call that goes raises the start of its tenant.

A cost is in seconds: those in which the limit refills what the call takes, of the limit
that it takes most of. It is corrected when the call is settled, since shares are of
what was used, not of estimates.

Within one tenant the queue's own order holds: arrival plus patience. A call inside a
call in flight goes before all tenants: what is around it holds a slot until it ends.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import inf
from typing import Final

from ratelimit.admission.order import NESTED_FIRST, first_of
from ratelimit.admission.queue import Entry, Waiter
from ratelimit.stores.payments import Payment

Cost = Callable[[Mapping[str, float]], float]
"""Returns the seconds in which its limit refills these amounts."""

NESTED: Final = ("nested",)
"""The key of calls inside calls in flight, which no share is counted for."""

Key = tuple[str, ...]
"""The key of one tenant: its name, or `NESTED`."""

MOST_COST: Final = 1e9
"""Seconds that one call counts for at most."""

LOOKED_AT: Final = 1_000
"""Waiters of each tenant that a prediction looks at; with more it is too low."""

CORRECTED: Final = 4
"""Calls in flight that are looked at, whether they have ended, for each call that goes.
"""

FEW: Final = 64
"""Entries of waiters that have left, or tenants that are idle, before they are dropped.
"""


class Tenant:
    """What is known of one tenant of one queue."""

    __slots__ = ("entries", "flights", "nested", "share", "start", "waiting")

    def __init__(self, share: float, *, nested: bool = False) -> None:
        self.share = share
        self.nested = nested
        self.start = -inf if nested else 0.0
        """When its next call starts, in seconds of virtual time."""
        self.entries: list[Entry] = []
        """A heap of its waiters; those that have left from the middle included."""
        self.waiting = 0
        self.flights: deque[tuple[Payment, float]] = deque()
        """Its calls in flight, with the cost that was counted for each."""

    def first(self) -> Entry | None:
        """Drop waiters that have left from the top and return the first one left."""
        entries = self.entries
        while entries and not entries[0][2].queued:
            heapq.heappop(entries)
        if len(entries) > FEW and len(entries) > 2 * self.waiting:
            self.entries = entries = [entry for entry in entries if entry[2].queued]
            heapq.heapify(entries)
            self.waiting = len(entries)
        return entries[0] if entries else None

    def starts(self, virtual: float) -> float:
        """Return when a call starts that joins at this virtual time."""
        return self.start if self.entries or self.nested else max(self.start, virtual)


class Turns:
    """The turns of the tenants of one queue.

    :param shares: by tenant; any other tenant has a share of 1.
    :param cost: what amounts cost.
    """

    def __init__(self, shares: Mapping[str, float], cost: Cost) -> None:
        self.shares = shares
        self.cost = cost
        self._tenants: dict[Key, Tenant] = {}
        self._most = FEW  # tenants, before idle ones are dropped
        self._order: list[tuple[float, float, int, Waiter, Tenant]] = []
        """A heap of the first waiters of all tenants, by the starts of these; entries
        that hold no longer included.
        """
        self._virtual = 0.0
        """The start of the tenant that has the turn, or had it last."""
        self.chosen: Waiter | None = None
        """The head; never a waiter that has left."""

    def join(self, entry: Entry) -> None:
        """Take a waiter in."""
        waiter = entry[2]
        key = key_of(waiter.rank, waiter.tenant)
        tenant = self._tenants.get(key)
        if tenant is None:
            tenant = self._tenants[key] = Tenant(self._share(key), nested=key == NESTED)
        if tenant.first() is None:
            tenant.start = tenant.starts(self._virtual)
        heapq.heappush(tenant.entries, entry)
        tenant.waiting += 1
        if tenant.entries[0] is entry:
            self._push(tenant, entry)
        self.choose()

    def _share(self, key: Key) -> float:
        return self.shares.get(key[1], 1.0) if len(key) > 1 else 1.0

    def _push(self, tenant: Tenant, entry: Entry) -> None:
        heapq.heappush(self._order, (tenant.start, *entry, tenant))

    def leave(self, waiter: Waiter) -> None:
        """Count what a waiter has paid, if anything, which is out of the queue now."""
        tenant = self._tenants.get(key_of(waiter.rank, waiter.tenant))
        if tenant is None:
            return
        tenant.waiting = max(tenant.waiting - 1, 0)
        if waiter.payment.paid and not tenant.nested:
            cost = self._cost(waiter.payment.amounts)
            tenant.start += cost / tenant.share
            tenant.flights.append((waiter.payment, cost))
            self._correct(tenant)
        entry = tenant.first()
        if entry is not None:
            self._push(tenant, entry)
        self.choose()
        self._forget()

    def _correct(self, tenant: Tenant) -> None:
        """Count calls that have ended by what they used."""
        flights = tenant.flights
        for _ in range(min(CORRECTED, len(flights))):
            payment, cost = flights.popleft()
            if payment.ended:
                tenant.start += (self._cost(payment.held) - cost) / tenant.share
            else:
                flights.append((payment, cost))

    def _cost(self, amounts: Mapping[str, float]) -> float:
        return min(self.cost(amounts), MOST_COST)

    def choose(self) -> None:
        """Find the head."""
        order = self._order
        while order and not _holds(order[0]):
            heapq.heappop(order)
        if len(order) > FEW and len(order) > 4 * len(self._tenants):
            self._renew()
            order = self._order
        if order:
            start, chosen, tenant = order[0][0], order[0][3], order[0][4]
            if not tenant.nested:
                self._virtual = start
            self.chosen = chosen
        else:
            self.chosen = None

    def _renew(self) -> None:
        """Order the tenants anew, without what holds no longer."""
        rows = [(tenant, tenant.first()) for tenant in self._tenants.values()]
        order = [(tenant.start, *entry, tenant) for tenant, entry in rows if entry is not None]
        heapq.heapify(order)
        self._order = order

    def rebuild(self) -> None:
        """Drop every waiter that has left, so that nothing keeps it."""
        for tenant in self._tenants.values():
            tenant.entries = [entry for entry in tenant.entries if entry[2].queued]
            heapq.heapify(tenant.entries)
            tenant.waiting = len(tenant.entries)
        self._renew()
        self.choose()

    def _forget(self) -> None:
        """Drop the tenants that would start where any newcomer does."""
        if len(self._tenants) > self._most:
            self._tenants = {
                key: tenant
                for key, tenant in self._tenants.items()
                if tenant.entries or tenant.start > self._virtual
            }
            self._most = max(2 * len(self._tenants), FEW)

    def rest(self) -> None:
        """Nobody waits: all tenants start anew."""
        self._tenants, self._order, self._virtual, self.chosen = {}, [], 0.0, None

    def _tagged(self, tenant: Tenant, most: int) -> Iterator[tuple[float, Waiter]]:
        """Yield when each of a tenant's first waiters starts."""
        start = tenant.start
        for waiter in first_of(tenant.entries, most):
            yield start, waiter
            start += self._cost(waiter.payment.amounts) / tenant.share

    def in_order(self, count: int) -> list[Waiter]:
        """Return the first waiters, at most ``count``."""
        rows = heapq.merge(
            *(self._tagged(tenant, count) for tenant in self._tenants.values()),
            key=lambda row: (row[0], row[1].rank, row[1].serial),
        )
        return [waiter for _, waiter in islice(rows, count)]

    def _earliest(self, tenant: Tenant) -> float:
        """Return when a tenant's next call starts at the earliest.

        What its calls in flight may give back is left out.
        """
        start = tenant.start
        for payment, cost in tenant.flights:
            if payment.ended:
                start += (self._cost(payment.held) - cost) / tenant.share
            elif not payment.keeps:
                start -= cost / tenant.share
        return start if tenant.entries or tenant.nested else max(start, self._virtual)

    def in_front(self, rank: float, name: str) -> list[Waiter]:
        """Return who goes before a newcomer, or some of them where there are many."""
        key = key_of(rank, name)
        mine = self._tenants.get(key)
        share = self._share(key)
        start = -inf if key == NESTED else self._virtual
        found: list[Waiter] = []
        if mine is not None:
            start = self._earliest(mine)
            for waiter in first_of(mine.entries, LOOKED_AT):
                if waiter.rank > rank:
                    break
                found.append(waiter)
                start += self._cost(waiter.payment.amounts) / share
        for other in self._tenants.values():
            if other is mine or other.start > start or not other.entries:
                continue
            if other.waiting == len(other.entries) == 1:  # many tenants with a call each
                waiter = other.entries[0][2]
                if other.start < start or waiter.rank <= rank:
                    found.append(waiter)
                continue
            for tag, waiter in self._tagged(other, LOOKED_AT):
                if tag > start or (tag == start and waiter.rank > rank):
                    break
                found.append(waiter)
        return found


def _holds(row: tuple[float, float, int, Waiter, Tenant]) -> bool:
    """Return whether an entry is still that of its tenant's first waiter."""
    start, _, _, waiter, tenant = row
    return waiter.queued and start == tenant.start and tenant.entries[0][2] is waiter


def key_of(rank: float, tenant: str) -> Key:
    """Return the key of what a waiter counts for."""
    return NESTED if rank < -NESTED_FIRST / 2 else ("tenant", tenant)
