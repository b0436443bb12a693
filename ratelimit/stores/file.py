"""Buckets that the processes of one machine share through a file.

Owns when the file is read and written, what of it is this process's own, and who is
next. The arithmetic is `memory.py`'s: a step locks the file, takes over what other
processes have written, does what the memory store does, and writes the result. Must
never wait for another process longer than `quota_file.LOCK_SECONDS`.

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

from ratelimit.errors import caution
from ratelimit.limits import Limits
from ratelimit.locks import reentrant_use
from ratelimit.stores.alone import Alone
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.payments import NOTHING, Payment, Wait
from ratelimit.stores.quota_file import LOCK_SECONDS, QuotaFile, Record, Row, limits_of
from ratelimit.stores.shared import Foreign, SharedStore

T = TypeVar("T")

ASK_SECONDS: Final = 0.05
"""Seconds after which a waiting head asks again: other processes give back unheard."""
BEHIND_SECONDS: Final = 0.005
"""Seconds, while the buckets can pay and another process has the turn."""
WAITS_SECONDS: Final = 0.5
"""Seconds for which the rank of a head counts after it has asked."""
STUCK_SECONDS: Final = 1.0
"""Seconds after which a file that stays locked counts as lost: its holder is frozen."""
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks whether the path still leads to the same file."""
REMEMBERED_SECONDS: Final = 3_600.0
"""Seconds after which what a file says of the server's level is worth nothing more."""


class FileStore(SharedStore):
    """Takes from all buckets of one family in one step, for all processes.

    :param open_file: opens the quota file of this family; raises `OSError` where it
        cannot be used.
    :param epoch: names the clock that ``now`` comes from. Processes of one machine
        share one as long as the machine runs.
    :param alone: what happens while the file cannot be used.
    """

    def __init__(
        self,
        open_file: Callable[[], QuotaFile],
        epoch: str,
        alone: Alone,
        limits: Limits,
        now: float,
        slack: float = 0.0,
    ) -> None:
        super().__init__(epoch, limits, now, slack)
        self._open_file = open_file
        self._alone = alone
        self._number = 0  # of the record that was read or written last
        self._look_at = now + LOOK_SECONDS
        self._busy_since = now
        self._busy_number = -1  # of the record since which the file was found locked
        self._inside = False  # whether the file may be locked by this store
        self._entered = False  # whether what it says is known here, and is to be written
        self._abandoned = False
        self._file: QuotaFile | None = None
        self._latest = now
        with self._lock:
            self._join(now)

    def take(self, payment: Payment, now: float, rank: float = inf) -> Wait | None:
        """Debit every bucket in one step and return None, or none and return a wait.

        :param rank: of the call in its queue; without one it goes behind all that wait.

        Raises `RequestTooLarge` for a payment that no amount of waiting makes fit, and
        `StoreUnavailable` where the file is lost and that was asked for.
        """
        for waited in self._wait_steps:
            if waited:
                break
            raise reentrant_use()
        try:
            return self._step(now, self._take_in_turn, payment, rank)
        finally:
            self._lock.release()
            if self._inbox:
                self._empty_inbox()

    def _take_in_turn(
        self, entered: bool, now: float, payment: Payment, rank: float
    ) -> Wait | None:
        if not entered:
            if self._file is not None:
                return Wait(now + ASK_SECONDS)
            return self._alone.take(payment, now, self._take)
        if self._inbox:
            self._apply_inbox()
        if self._foreign.waiting or self.full:
            self._reap(now)
        wait = self._take(payment, now) if self._is_first(rank, now) else Wait(inf)
        if wait is None:
            self._row = Row()
            return None
        self._row = Row(rank=rank, waits_until=now + WAITS_SECONDS)
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

    def abandon(self) -> None:
        """Leave the file to the process that this one was forked from."""
        self._abandoned = True
        if self._file is not None:
            self._file.close()
            self._file = None

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

    def _enter(self, now: float) -> bool:
        """Lock the file and take over what stands there; False where that cannot be."""
        self._latest = max(self._latest, now)
        if self._abandoned:
            return False
        file = self._file or self._rejoin(now)
        if file is None:
            return False
        self._inside = True  # before it is locked: an unlocked file can be unlocked, too
        try:
            if self._locked(file, now):
                self._read(file, now)
                self._entered = True
        except (OSError, ValueError) as error:
            self._lose(error, now)
        return self._entered

    def _locked(self, file: QuotaFile, now: float) -> bool:
        """Lock the file; raise `OSError` where it is lost, or its holder frozen."""
        if not file.lock():
            if file.number != self._busy_number:  # its holders are at work, not frozen
                self._busy_number, self._busy_since = file.number, now
            if now - self._busy_since > STUCK_SECONDS:
                raise OSError(f"{file.path} stays locked by another process")
            return False
        self._busy_number = -1
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if not file.is_current:
                raise OSError(f"{file.path} was deleted or replaced")
        return True

    def _leave(self, now: float) -> None:
        """Write what has changed and unlock the file; a second time nothing happens."""
        file = self._file
        if self._inside and file is not None:
            if self._entered:
                try:
                    self._save(file, now)
                except (OSError, ValueError) as error:
                    self._lose(error, now)
                    return
            file.unlock()
        self._inside = self._entered = False

    def _read(self, file: QuotaFile, now: float) -> None:
        if file.number == self._number:
            return
        record = file.read()
        if record is None:
            raise OSError(f"{file.path} is damaged")
        self._adopt(record, now)
        self._number = file.number

    def _save(self, file: QuotaFile, now: float) -> None:
        file.write(self._record(now))
        self._number = file.number

    def _join(self, now: float) -> None:
        """Go on from what the file remembers, or be the first to write it."""
        try:
            file = self._opened(STUCK_SECONDS)
        except OSError as error:
            self._lose(error, now)
            return
        self._file, self._inside = file, True
        try:
            record = file.read()
            self._entered = True
            if record is not None:
                record = record.on_clock(self._epoch, now)
                self._adopt(record, now)
                self._reap(now, at_once=True)
                self.remembers = now - record.saved_at < REMEMBERED_SECONDS
                if record.given != self._given:
                    self._warn_of_difference(record)
                    self._hold(limits_of(self._given), now)
        finally:
            self._leave(now)

    def _opened(self, patience: float = LOCK_SECONDS) -> QuotaFile:
        """Open and lock the file; raise `OSError` where that cannot be in time."""
        file = self._open_file()
        if file.lock(patience):
            return file
        file.close()
        raise OSError(f"{file.path} stays locked by another process")

    def _lose(self, error: Exception, now: float) -> None:
        """Go on without the file, as far as that was asked for."""
        shared, file = self._buckets, self._file
        self._alone.begin(error, shared.full_at, self.processes, now)
        own = Buckets(self._alone.share(self.limits), now, self._slack)
        own.full_at = list(shared.full_at)
        own.deferred = shared.deferred - self._foreign.deferred
        nobody = Foreign()

        # Nothing may come between these lines: no call, no loop.
        self._file = None
        self._inside = self._entered = False
        self._buckets, self._foreign = own, nobody

        if file is not None:
            file.close()

    def _rejoin(self, now: float) -> QuotaFile | None:
        """Look for the file again, when it is time, and return it if it is back.

        What was spent meanwhile is debited. A file that is new starts from what this
        process knows.
        """
        if now < self._alone.again_at:
            return None
        self._alone.again_at = now + LOOK_SECONDS
        try:
            file = self._opened()
        except OSError:
            return None  # it was said when the file was lost; the next look is due then
        record = file.read()
        spent = self._alone.spent(self._buckets.full_at, now)
        shared = Buckets(self.limits, now, self._slack)
        shared.full_at = list(self._buckets.full_at)
        shared.deferred = self._buckets.deferred
        self._buckets, self._number, self._file = shared, 0, file
        self._text, self._texted = b"", None  # another share's buckets are none of these
        if record is not None:
            self._adopt(record, now)
            self._number = file.number
            pairs = zip(self._buckets.full_at, spent, strict=False)
            self._buckets.full_at = [
                max(full_at, now) + seconds if seconds else full_at for full_at, seconds in pairs
            ]
        return file

    def _replaced(self, limits: Limits, now: float) -> Buckets:
        if self._file is None:
            return self._buckets.replaced(self._alone.share(limits), now, self._slack)
        return super()._replaced(limits, now)

    def _warn_of_difference(self, record: Record) -> None:
        """Say that processes which run now were given other limits, if any were."""
        if self._rows:
            caution(
                f"the processes that share a quota were given different limits: "
                f"{limits_of(record.given)!r}, and now {limits_of(self._given)!r}, which hold "
                "from now on; give all of them the same",
                stacklevel=2,
            )
