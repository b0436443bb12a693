"""A queue in which tenants take turns by their shares.

Owns what differs from a plain queue: who the head is, and who is in front of whom. Must
never know what a call costs, or a share: `turns.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.admission.order import NESTED_FIRST
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.admission.turns import Cost, Turns


class FairQueue(Queue):
    """A queue in which tenants take turns by their shares."""

    __slots__ = ()

    turns: Turns

    @classmethod
    def become(cls, queue: Queue, shares: Mapping[str, float], cost: Cost) -> None:
        """Make a queue one of these, with all that wait in it.

        It stays the same object: those that wait and those that wake them hold it.
        """
        turns = Turns(shares, cost)

        def change() -> None:
            for entry in queue.entries:
                if entry[2].queued:
                    turns.join(entry)
            queue.turns = turns
            queue.__class__ = cls

        queue._locked(change)  # noqa: SLF001  # its own class's, from here on
        queue.nudge()

    @property
    def head(self) -> Waiter | None:
        """Return the waiter that has the turn, or None."""
        return self.turns.chosen

    def admits(self, rank: float) -> bool:
        """Return whether a newcomer of this rank would be the head for sure."""
        head = self.head
        return head is None or (rank < head.rank and rank < -NESTED_FIRST / 2)

    def _join(self, waiter: Waiter) -> None:
        super()._join(waiter)
        self.turns.join((waiter.rank, waiter.serial, waiter))

    def _leave(self, waiter: Waiter) -> bool:
        before, was_queued = self.head, waiter.queued
        passes_on = super()._leave(waiter)
        if not self.entries:
            self.turns.rest()
        elif was_queued:
            self.turns.leave(waiter)
        else:  # the end of a `leave` that was cut short
            self.turns.rebuild()
        # A call that was paid behind the head passes the turn on as well.
        return passes_on or before is waiter or self.head is not before

    def _drop_dead(self) -> None:
        super()._drop_dead()
        self.turns.rebuild()

    def _blocks(self, waiter: Waiter) -> bool:
        for other in self.turns.in_order(len(self)):
            if other is waiter:
                return False
            if other.thread == waiter.thread and not other.parker.gone():
                return True
        return False

    def _first(self, count: int) -> list[Waiter]:
        return self.turns.in_order(count)

    def ahead_of(self, rank: float, tenant: str = "") -> Mapping[str, float]:
        """Return what the waiters in front of a newcomer certainly take, summed."""
        total: dict[str, float] = {}
        for waiter in self._in_front(rank, tenant):
            for name, amount in waiter.payment.least.items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def in_front_of(self, rank: float, tenant: str = "") -> int:
        """Return how many waiters are in front of a newcomer, or a few less."""
        return len(self._in_front(rank, tenant))

    def _in_front(self, rank: float, tenant: str) -> list[Waiter]:
        if not self.entries:
            return []
        self.drop_dead()
        return self._locked(self.turns.in_front, rank, tenant)

    def waiting_by_tenant(self) -> Mapping[str, int]:
        """Return how many calls of each tenant wait."""
        found: dict[str, int] = {}
        for _, _, waiter in self.entries.copy():
            if waiter.queued:
                found[waiter.tenant] = found.get(waiter.tenant, 0) + 1
        return found

    def reset_after_fork(self) -> None:
        """Drop everybody: after a fork the waiters belong to the parent process."""
        turns = Turns(self.turns.shares, self.turns.cost)
        super().reset_after_fork()
        self.turns = turns
