"""What one call pays, and what a store answers.

Owns the records that pass between a store and the rooms above it. Must never calculate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class Mark(NamedTuple):
    """One bucket right after a payment: what this call's headers should confirm."""

    bucket: Bucket
    full_at: float
    """Less what had been corrected until then, in seconds of the caller's clock."""


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
    nested: bool = field(default=False, init=False)
    """Whether this call is made inside another one, or another one inside this."""
    paid: bool = field(default=False, init=False)
    """Whether the buckets have been debited."""
    delivered: bool = field(default=False, init=False)
    """Whether the caller has the lease: from then on its call may have been sent."""
    ended: bool = field(default=False, init=False)
    """Whether the call is over: its slot is free and what it deferred is settled."""
    admitted_at: float = field(default=0.0, init=False)
    """When the buckets were debited, in seconds of the caller's clock."""
    spent: Mapping[str, float] | None = field(default=None, init=False)
    """What the call really used, as far as it was settled."""
    marks: Sequence[Mark] = field(default=(), init=False)
    """One mark a bucket, where headers are listened to."""
    serial: int = field(default=0, init=False)
    """Calls admitted by the store so far, this one included."""
    in_flight: int = field(default=0, init=False)
    """Calls in flight right after the admission of this one, itself included."""
    thread: int = field(default=0, init=False)
    """The thread in which the call was admitted, where calls in flight are limited."""
    task: object = field(default=None, init=False)
    """What makes a nested call: a task, or a thread without an event loop."""
    parent: Payment | None = field(default=None, init=False)
    """The call that makes this one, if any; see `nest`."""
    depth: int = field(default=0, init=False)
    """How many calls this call is nested in that were in flight when it was made."""
    borrower: Payment | None = field(default=None, init=False)
    """The nested call that uses this call's concurrency slot now."""
    lender: Payment | None = field(default=None, init=False)
    """The call that lends this one its concurrency slot; None: it has its own."""
    _least: Mapping[str, float] | None = field(default=None, init=False)

    def nest(self, parent: Payment) -> None:
        """Let this call use the slot of ``parent``, or of the calls around that."""
        self.parent = parent
        self.nested = parent.nested = True
        self.depth = parent.depth + 1

    @property
    def around(self) -> Payment | None:
        """Return the innermost call in flight that this call is nested in."""
        parent = self.parent
        while parent is not None and parent.ended:
            parent = parent.parent
        return parent

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
