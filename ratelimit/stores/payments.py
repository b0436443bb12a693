"""What one call pays, and what a store answers.

Owns the records that pass between a store and the rooms above it. Must never calculate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from ratelimit.stores.bucket import DEFERRING, Bucket

NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


class Wait(NamedTuple):
    """The answer of a store that cannot admit a call now.

    Moments are seconds of the caller's clock.
    """

    until: float
    """When to ask again; inf: only the end of another call helps."""
    not_before: float = -inf
    """Before this moment the call cannot go, whatever calls in flight give back."""
    pending: bool = False
    """Whether the answer is on its way: the head is woken when it is there."""


class Asked(NamedTuple):
    """A call that waits, as a store sees it; moments like those of `Wait`."""

    payment: Payment
    rank: float
    deadline: float
    """After this moment the call must not go."""
    thread: int
    """The thread in which it waits."""


Waiting = Callable[[int], Sequence[Asked]]
"""Returns the first calls of a queue, at most that many."""


class Mark(NamedTuple):
    """One bucket right after a payment: what this call's headers should confirm."""

    bucket: Bucket
    full_at: float
    """Less what had been corrected until then, in seconds of the caller's clock."""


class Evidence(NamedTuple):
    """What headers of an answer are compared with: its call's admission."""

    marks: Sequence[Mark]
    """One mark a bucket."""
    serial: int
    """Calls admitted by the store so far, this one included."""
    in_flight: int
    """Calls in flight right after the admission of this one, itself included."""


@dataclass(slots=True, eq=False)
class Slot:
    """How a call uses a concurrency slot: its own, or that of a call around it."""

    thread: int = 0
    """The thread in which the call was admitted, where calls in flight are limited."""

    parent: Payment | None = None
    """The call that makes this one, if any."""
    depth: int = 0
    """How many calls this call is nested in that were in flight when it was made."""
    task: object = None
    """What makes the call: a task, or a thread without an event loop."""
    borrower: Payment | None = None
    """The nested call that uses this call's concurrency slot now."""
    lender: Payment | None = None
    """The call that lends this one its concurrency slot; None: it has its own."""


@dataclass(slots=True, eq=False)
class Payment:
    """What one call has paid, and whether it still holds it.

    A store writes what is paid, ended and spent in the same step as its buckets: no
    signal and no other thread finds a bucket debited and its payment unpaid, or the
    reverse.
    """

    amounts: Mapping[str, float]
    """What the call costs, by dimension, what it defers included."""
    deferred: float = 0.0
    """Of these tokens, those that the server debits when the call ends."""
    keeps: bool = False
    """Whether all that is debited at admission stays debited."""
    paid: bool = field(default=False, init=False)
    """Whether the buckets have been debited."""
    withdrawn: bool = field(default=False, init=False)
    """Whether the call waits no longer: an answer that comes later is given back."""
    delivered: bool = field(default=False, init=False)
    """Whether the caller has the lease: from then on its call may have been sent."""
    ended: bool = field(default=False, init=False)
    """Whether the call is over: its slot is free and what it deferred is settled."""
    admitted_at: float = field(default=0.0, init=False)
    """When the buckets were debited, in seconds of the caller's clock."""
    spent: Mapping[str, float] | None = field(default=None, init=False)
    """What the call really used, as far as it was settled."""
    evidence: Evidence | None = field(default=None, init=False)
    """What headers are compared with, where headers are listened to."""
    slot: Slot | None = field(default=None, init=False)
    """How it uses a concurrency slot, where calls are limited or nested."""
    _least: Mapping[str, float] | None = field(default=None, init=False)

    def nest(self, parent: Payment, task: object = None) -> None:
        """Let this call use the slot of ``parent``, or of the calls around that.

        :param task: what makes both: a task, or a thread without an event loop.
        """
        depth = 0 if parent.slot is None else parent.slot.depth
        self.slot = Slot(parent=parent, depth=depth + 1, task=task)

    @property
    def around(self) -> Payment | None:
        """Return the innermost call in flight that this call is nested in."""
        slot = self.slot
        while slot is not None and slot.parent is not None:
            if not slot.parent.ended:
                return slot.parent
            slot = slot.parent.slot
        return None

    @property
    def deferred_around(self) -> float:
        """Return what the calls in flight that this call is nested in have deferred.

        None of them ends before this call does, so it must not wait for that.
        """
        total, around = 0.0, self.around
        while around is not None:
            total += around.deferred
            around = around.around
        return total

    @property
    def least(self) -> Mapping[str, float]:
        """Return what stays debited of this call, however little it uses."""
        if self._least is not None:
            return self._least
        return self.at_once if self.keeps else {"requests": self.amounts.get("requests", 0)}

    def reprice(
        self,
        amounts: Mapping[str, float],
        deferred: float,
        least: Mapping[str, float],
        *,
        keeps: bool,
    ) -> None:
        """Change what an unpaid call costs: more is known of the server by now."""
        self.amounts, self.deferred, self._least = amounts, deferred, least
        self.keeps = keeps

    @property
    def at_once(self) -> Mapping[str, float]:
        """Return what is debited at admission: the cost less what it defers."""
        if not self.deferred:
            return self.amounts
        return {**self.amounts, DEFERRING: self.amounts.get(DEFERRING, 0) - self.deferred}

    @property
    def held(self) -> Mapping[str, float]:
        """Return what the call holds: its reserve, or in its place what it used."""
        return self.amounts if self.spent is None else {**self.amounts, **self.spent}
