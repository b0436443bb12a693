"""Buckets that the processes of one machine share through a file.

Owns what one step does, what of it is this process's own, and who is next. The
arithmetic is `memory.py`'s: a step locks the file, takes over what other processes have
written, does what the memory store does, and writes the result. Must never wait for
another process longer than `quota_file.LOCK_SECONDS`.

* *Shared*: buckets, limits, corrections, pauses, calls in flight and deferred tokens of
  each process, and the rank of each head that waits. *Own*: queues, leases, slack.
* *Order.* A head that must wait leaves its rank in its process's row, and a head of a
  later rank waits behind it. The rank counts for `WAITS_SECONDS` after its head has
  asked last, which it does every `ASK_SECONDS`, so that nobody waits for the dead.
* *Crashes.* What a process that is gone had in flight and had deferred counts no
  longer, at the latest `REAP_SECONDS` after somebody is held up by it. What it has
  debited stays debited: the server has taken it, too.
* *Loss.* Where the file cannot be used, `alone.py` says what happens until it can.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from math import inf
from typing import Final, TypeVar

from ratelimit.locks import reentrant_use
from ratelimit.stores.folder.joined import JoinedStore
from ratelimit.stores.payments import NOTHING, Payment, Wait

T = TypeVar("T")

ASK_SECONDS: Final = 0.05
"""Seconds after which a waiting head asks again: other processes give back unheard."""
BEHIND_SECONDS: Final = 0.005
"""Seconds, while the buckets can pay and another process has the turn."""
WAITS_SECONDS: Final = 0.5
"""Seconds for which the rank of a head counts after it has asked."""


class FileStore(JoinedStore):
    """Takes from all buckets of one family in one step, for all processes."""

    def take(
        self, payment: Payment, now: float, rank: float = inf, *, waits: bool = True
    ) -> Wait | None:
        """Debit every bucket in one step and return None, or none and return a wait.

        :param rank: of the call in its queue; without one it goes behind all that wait.
        :param waits: whether a call that is refused asks again, and keeps its place.

        Raises `RequestTooLarge` for a payment that no amount of waiting makes fit, and
        `StoreUnavailable` where the file is lost and that was asked for.
        """
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            return self._step(now, self._take_in_turn, payment, rank, waits)
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def _take_in_turn(
        self, entered: bool, now: float, payment: Payment, rank: float, waits: bool
    ) -> Wait | None:
        if not entered:
            if self._file is not None:
                return Wait(now + ASK_SECONDS)
            return self._alone.take(payment, now, self._take)
        if self._inbox:
            self._apply_inbox()
        waiting = self._foreign.waiting
        if waiting or (not self.buckets_only and self.full):
            self._reap(now)
        first = not waiting or self._is_first(rank, now)
        wait = self._take(payment, now) if first else Wait(inf)
        if wait is None:
            if self._rank == rank:  # the head that has left it goes
                self._rank = self._waits_until = 0.0
            return None
        if waits:
            self._rank, self._waits_until = rank, now + WAITS_SECONDS
        again = max(self.moment(payment.amounts, payment.deferred), now + BEHIND_SECONDS)
        return Wait(min(wait.until, again, now + ASK_SECONDS), wait.not_before)

    def _is_first(self, rank: float, now: float) -> bool:
        waiting = self._foreign.waiting
        return not any(earlier < rank and until > now for earlier, until in waiting)

    def settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        """End a call; what it used takes the place of its reserve. Never blocks."""
        self._latest = max(self._latest, now)
        self._soon(lambda: self._settle(payment, used, now))

    def spend(self, share: float, now: float) -> None:
        """Take a share of each limit, 0 to 1, that was used before."""
        self._soon(lambda: super(FileStore, self).spend(share, now))

    def cap(self, concurrency: int | None, until: float = inf) -> None:
        """Admit calls only while fewer are in flight in all, until then."""
        self._soon(lambda: super(FileStore, self).cap(concurrency, until))

    def not_before(
        self, payment: Payment, now: float, ahead: Mapping[str, float] = NOTHING
    ) -> float:
        """Return a moment before which a call cannot go, whatever is given back."""
        self.refresh(now)
        return super().not_before(payment, now, ahead)

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """Return the level of each bucket, by (name, period in seconds)."""
        self.refresh(now)
        return super().levels(now)

    def refresh(self, now: float) -> None:
        """Take over what other processes have written, unless a step is at work."""
        if self._inside:
            return
        for entered in self._try_steps:
            if entered:
                break
            return
        try:
            self._step(now, self._look)
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def _look(self, entered: bool, now: float) -> None:
        if entered:
            self._reap(now)

    def _empty_inbox(self) -> None:
        super()._empty_inbox()
        if self._inbox and not self._inside:  # the file is busy: nobody else may come by
            timer = threading.Timer(ASK_SECONDS, self._empty_inbox)
            timer.daemon = True
            timer.start()

    def _apply_inbox(self) -> bool:
        if self._inside:
            return super()._apply_inbox()
        return self._step(self._latest, self._apply)

    def _apply(self, entered: bool, _: float) -> bool:
        # Without a file there are this process's own buckets; with one, later.
        return (entered or self._file is None) and super()._apply_inbox()

    def _step(self, now: float, act: Callable[..., T], *arguments: object) -> T:
        """Act between locking the file and writing what has changed.

        :param act: takes whether the file could be locked, the time and the arguments.
        """
        try:
            return act(self._enter(now), now, *arguments)
        finally:
            # Twice more, if Ctrl-C cut it short, and a second one the repetition: what
            # was taken would be lost with the record, and the file stay locked.
            try:
                self._leave(now)
            finally:
                try:
                    if self._inside:
                        self._leave(now)
                finally:
                    if self._inside:
                        self._leave(now)
