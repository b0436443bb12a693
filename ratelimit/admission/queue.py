"""The calls that wait, in order.

Owns the order, who is the head, and how the head is woken. Must never read a clock or
wait: ranks are numbers given by the caller, and waking is a callable of the waiter.

The queue is ordered by rank, then by arrival. A rank is ``arrival + patience`` in
seconds, so a patient call can be overtaken for at most its patience and nobody starves:
the ranks of newcomers only grow.

Invariant: the first entry of the heap is never a waiter that has left. So the head can
be read, and woken, without the lock, also by a finalizer or a signal handler that
interrupted the holder of the lock.

Interruptions: each change is prepared first and then written by plain assignments with
no call between them, so that Ctrl-C finds it whole or not begun (see
`ratelimit.locks`), and a `leave` that was cut short can be repeated.

The dead: a waiter never leaves by itself after its event loop was closed. `drop_dead`
takes the waiters of closed loops out wherever they stand. It looks at each loop, not at
each waiter. A head in a loop that is stopped between two runs is taken out as well when
it is woken, so that it holds up nobody; it joins again when its loop goes on.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Protocol, TypeVar

from ratelimit.admission.ahead import Ahead
from ratelimit.admission.order import first_of
from ratelimit.errors import ReentrantUse
from ratelimit.locks import reentrant_use, try_steps, wait_steps
from ratelimit.stores.payments import NOTHING, Asked, Payment

T = TypeVar("T")


class Parker(Protocol):
    """How one waiter rests and is woken; see `drivers.py`."""

    loop: object | None
    """The event loop that the waiter needs to go on; None for a thread."""

    def wake(self) -> bool:
        """Let the waiter go on, from any thread; False if its loop is not running."""

    def gone(self) -> bool:
        """Return whether the waiter can never go on: its event loop is closed."""


class Waiter:
    """One call in the queue.

    :param rank: arrival plus patience, in seconds.
    :param payment: what the call pays when its turn has come.
    :param prepare: called before the head looks at the store, each time: more may be
        known of the server by then. Returns in how many seconds to look again.
    :param deadline: after this moment it must not go, in seconds like ``rank``.
    :param tenant: for whom the call is, where tenants have shares; see `turns.py`.
    :param price: prices an unpaid call anew, after its limits have been replaced.
    :param elsewhere: whether it may go elsewhere as well: then nothing of its payment
        is certain to be taken here.
    """

    __slots__ = (
        "deadline",
        "elsewhere",
        "left",
        "parker",
        "patience",
        "payment",
        "prepare",
        "price",
        "queued",
        "rank",
        "serial",
        "stale",
        "tenant",
        "thread",
    )

    def __init__(
        self,
        rank: float,
        payment: Payment,
        parker: Parker,
        *,
        patience: float = 0.0,
        prepare: Callable[[], float] | None = None,
        deadline: float = inf,
        tenant: str = "",
        price: Callable[[], object] | None = None,
        elsewhere: bool = False,
    ) -> None:
        self.rank = rank
        self.deadline = deadline
        self.elsewhere = elsewhere
        self.payment = payment
        self.parker = parker
        self.patience = patience
        self.prepare = prepare
        self.price = price
        self.stale = False  # whether other limits hold since it was priced
        self.tenant = tenant
        self.serial = 0
        self.thread = threading.get_ident()
        self.queued = False
        self.left = False


Entry = tuple[float, int, Waiter]
"""Rank, serial and waiter."""


class Queue:
    """Waiters in order; joining and leaving are safe from any thread."""

    __slots__ = (
        "_ahead",
        "_head_may_be_dead",
        "_lock",
        "_loops",
        "_serial",
        "_tasks",
        "_try_steps",
        "_wait_steps",
        "_waiting",
        "entries",
        "turns",
    )

    def __init__(self) -> None:
        self.turns: Any = None  # of tenants; see `turns.py`
        self.entries: list[Entry] = []
        """A heap of rank, serial and waiter; those that left from the middle included.
        """
        self._serial = itertools.count(1)
        self._lock = threading.Lock()
        self._try_steps = try_steps(self._lock)
        self._wait_steps = wait_steps(self._lock)
        self._ahead = Ahead()
        self._waiting = 0
        self._loops: dict[object, Parker] = {}  # every loop that has waiters, with one of them
        self._tasks: dict[int, int] = {}  # tasks that wait, by the thread of their loop
        self._head_may_be_dead = False

    def __len__(self) -> int:
        return self._waiting

    @property
    def head(self) -> Waiter | None:
        """Return the first waiter, or None."""
        try:
            return self.entries[0][2]
        except IndexError:
            return None

    def admits(self, rank: float) -> bool:
        """Return whether a newcomer of this rank would be the head."""
        head = self.head
        return head is None or rank < head.rank

    def _locked(self, act: Callable[..., T], *args: object) -> T:
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            return act(*args)
        finally:
            self._lock.release()
            if self._head_may_be_dead:
                self._head_may_be_dead = False
                self.drop_dead()
                self.nudge()

    def join(self, waiter: Waiter) -> None:
        """Queue a waiter behind all of the same or a lower rank.

        A waiter that is interrupted here has to `leave`, like every other.
        """
        self.drop_dead()
        waiter.left = False
        self._locked(self._join, waiter)

    def _join(self, waiter: Waiter) -> None:
        serial = next(self._serial)
        entry = (waiter.rank, serial, waiter)
        sums = self._ahead.of(waiter.patience)
        least = NOTHING if waiter.elsewhere else waiter.payment.least
        length = sums.write(waiter.rank, serial, least) if sums else 0
        loop = waiter.parker.loop
        if loop is not None:
            self._loops.setdefault(loop, waiter.parker)
            tasks = self._tasks.get(waiter.thread, 0) + 1
            self._tasks[waiter.thread] = tasks
        waiter.serial = serial
        if sums is not None:
            sums.length = length
        self._waiting += 1
        waiter.queued = True
        heapq.heappush(self.entries, entry)

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out, served or not, and wake the new head if it was the head.

        Leaving twice is leaving once, or the end of a `leave` that was cut short.
        """
        if not waiter.left:
            if self._locked(self._leave, waiter):
                self.nudge()
            waiter.left = True

    def _leave(self, waiter: Waiter) -> bool:
        """Take the waiter out; return whether the next head may not know its turn."""
        passes_on = self.head is waiter or not waiter.queued
        if waiter.queued:
            self._ahead.remove(waiter.patience, waiter.serial)
            tasks = self._tasks.get(waiter.thread, 0) - (waiter.parker.loop is not None)
            self._tasks[waiter.thread] = tasks
            self._waiting -= 1
            waiter.queued = False
        self._clean()
        return passes_on

    def _clean(self) -> None:
        """Drop the entries of waiters that have left, as far as they cost anything."""
        while self.entries and not self.entries[0][2].queued:
            heapq.heappop(self.entries)
        if not self.entries:
            self._ahead.clear()
            self._loops = {}
            self._tasks = {}
        elif len(self.entries) > 64 and len(self.entries) > 2 * self._waiting:
            entries = [entry for entry in self.entries if entry[2].queued]
            heapq.heapify(entries)
            self.entries = entries

    def drop_dead(self) -> bool:
        """Take out all waiters of closed event loops; return whether there were any.

        Never blocks: when the lock is held, its holder does it.
        """
        if not any(parker.gone() for parker in list(self._loops.values())):
            return False
        self._head_may_be_dead = True
        for entered in self._try_steps:
            if entered:
                break
            return True
        try:
            self._head_may_be_dead = False
            self._drop_dead()
        finally:
            self._lock.release()
        self.nudge()
        return True

    def _drop_dead(self) -> None:
        closed = [loop for loop, parker in self._loops.items() if parker.gone()]
        for _, _, waiter in list(self.entries):
            if waiter.queued and waiter.parker.loop in closed:
                self._leave(waiter)
                waiter.left = True
        self._loops = {loop: parker for loop, parker in self._loops.items() if loop not in closed}
        entries = [entry for entry in self.entries if entry[2].queued]
        heapq.heapify(entries)
        self.entries = entries  # so that nothing keeps the frames of the dead alive

    def nudge(self) -> None:
        """Wake the head: its call may fit now. Never blocks."""
        while True:
            head = self.head
            if head is None or head.parker.wake():
                return
            self._head_may_be_dead = True
            for entered in self._try_steps:
                if entered:
                    break
                return  # the holder of the lock nudges when it has released it
            try:
                self._head_may_be_dead = False
                self._drop_dead()
                if self.head is head:  # its loop has stopped: it joins again when that goes on
                    self._leave(head)
                    head.left = True
            finally:
                self._lock.release()

    def refuse_blocking(self, waiter: Waiter) -> None:
        """Raise `ReentrantUse` if a task of this very thread waits in front.

        While the thread is blocked, neither could ever go on.
        """
        if self.head is waiter or not self._tasks.get(waiter.thread):
            return
        if self._locked(self._blocks, waiter):
            raise ReentrantUse(
                "this call would block the thread that calls before it wait in, and none of them "
                "could ever go on: in async code use `await` or `async with` for each call, or "
                "make this one in another thread; in a signal handler set a flag instead"
            )

    def _blocks(self, waiter: Waiter) -> bool:
        mine = (waiter.rank, waiter.serial)
        return any(
            (rank, serial) < mine
            and other.queued
            and other.thread == waiter.thread
            and not other.parker.gone()
            for rank, serial, other in self.entries
        )

    def first(self, count: int) -> list[Asked]:
        """Return the first calls that wait, in order, at most ``count``."""
        return [
            Asked(waiter.payment, waiter.rank, waiter.deadline, waiter.thread)
            for waiter in self._locked(self._first, count)
        ]

    def wake_paid(self, count: int) -> None:
        """Wake those of the first ``count`` calls that are paid, and the head."""
        for waiter in self._locked(self._first, count):
            if waiter.payment.paid:
                waiter.parker.wake()
        self.nudge()

    def _first(self, count: int) -> list[Waiter]:
        return list(first_of(self.entries, count))

    def recheck(self) -> None:
        """Let every waiter see whether it still fits: other limits hold from now on.

        Never blocks.
        """
        for _, _, waiter in self.entries.copy():
            waiter.stale = True
            waiter.parker.wake()
        self.nudge()

    def waiting_by_tenant(self) -> Mapping[str, int]:
        """Return how many calls of each tenant wait; empty where none has a share."""
        return {}

    def ahead_of(self, rank: float, tenant: str = "") -> Mapping[str, float]:  # noqa: ARG002
        """Return what the waiters in front of a newcomer certainly take, summed."""
        if not self.entries:
            return {}
        self.drop_dead()
        return self._locked(self._ahead.before, rank)

    def in_front_of(self, rank: float, tenant: str = "") -> int:  # noqa: ARG002
        """Return how many waiters are in front of a newcomer, or a few less."""
        return self._locked(self._ahead.count_before, rank) if self.entries else 0

    def reset_after_fork(self) -> None:
        """Drop everybody: after a fork the waiters belong to the parent process."""
        fresh = Queue()
        for name in Queue.__slots__:
            setattr(self, name, getattr(fresh, name))
