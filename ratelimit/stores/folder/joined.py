"""A store's tie to its quota file: joining it, stepping in and out, losing it.

Owns when the file is locked, read and written, and what becomes of the numbers when it
is lost or back; `alone.py` has the arithmetic of an outage. Must never take or settle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ratelimit.errors import caution
from ratelimit.limits import Limits
from ratelimit.stores.alone import Alone, OnOutage
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.folder.making import QuotaFileClosed
from ratelimit.stores.folder.quota_file import LOCK_SECONDS, QuotaFile, Record
from ratelimit.stores.folder.shared import Foreign, SharedStore
from ratelimit.stores.written import is_opinion, limits_of

STUCK_SECONDS: Final = 1.0
"""Seconds after which a file that stays locked counts as lost: its holder is frozen."""
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks whether the path still leads to the same file."""
REMEMBERED_SECONDS: Final = 3_600.0
"""Seconds after which what a file says of the server's level is worth nothing more."""


class JoinedStore(SharedStore):
    """A shared store with its numbers in a file, as long as that can be used.

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
        self._alone = alone
        self._file: QuotaFile | None = None
        super().__init__(epoch, limits, now, slack)
        self._open_file = open_file
        self._number = 0  # of the record that was read or written last
        self._look_at = now + LOOK_SECONDS
        self._busy_since = now
        self._busy_number = -1  # of the record since which the file was found locked
        self._inside = False  # whether the file may be locked by this store
        self._entered = False  # whether what it says is known here, and is to be written
        self._abandoned = False
        self._unsaid = False  # whether limits were given that the file does not know yet
        self._latest = now
        with self._lock:
            self._join(now)

    @property
    def concurrency(self) -> int | None:
        """Return how many calls may be in flight at once, in all or here alone."""
        most = super().concurrency
        return most if self._file is not None or most is None else self._alone.slots(most)

    def report(self, on_outage: OnOutage) -> None:
        """Call this when the file is lost, and when it is back."""
        self._alone.on_change = on_outage

    def abandon(self) -> None:
        """Leave the file to the process that this one was forked from."""
        self._abandoned = True
        if self._file is not None:
            self._file.close()
            self._file = None

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
                if file.number != self._number:
                    self._read(file, now)
                self._entered = True
        except QuotaFileClosed:  # a call was dropped with its limiter: nothing is lost
            self.abandon()
            self._inside = False
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
        record = file.read()
        if record is None:
            raise OSError(f"{file.path} is damaged")
        self._adopt(record, now)
        self._number = file.number

    def _save(self, file: QuotaFile, now: float) -> None:
        self._number = file.write(self._record(now))

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
                record, given = record.on_clock(self._epoch, now), self._given
                self._adopt(record, now)
                self._reap(now, at_once=True)
                self.remembers = now - record.saved_at < REMEMBERED_SECONDS
                if record.given != given and is_opinion(self._own):
                    self._given = given
                    self._warn_of_difference(record)
                    self._hold(self._own, now)
        finally:
            self._leave(now)

    def _opened(self, patience: float = LOCK_SECONDS) -> QuotaFile:
        """Open and lock the file; raise `OSError` where that cannot be in time."""
        file = self._open_file()
        number = -1
        while number != file.number:  # its holders are at work, not frozen
            number = file.number
            if file.lock(patience):
                if number and file.read() is None:
                    file.clear()
                    caution(
                        f"the quota in {file.path} was damaged: it starts anew, from what the "
                        "processes know that run now",
                        stacklevel=2,
                    )
                return file
        file.close()
        raise OSError(f"{file.path} stays locked by another process")

    def _lose(self, error: Exception, now: float) -> None:
        """Go on without the file, as far as that was asked for."""
        shared, file = self._buckets, self._file
        self._alone.begin(error, shared.full_at, self.processes, now)
        self._alone.warn()
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
        self._alone.end(now)
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
        if self._unsaid:
            self._give(self._own, now)
        return file

    def _give(self, limits: Limits, now: float) -> None:
        self._unsaid = self._file is None
        super()._give(limits, now)

    def _replaced(self, limits: Limits, now: float, *, carries: bool) -> Buckets:
        if self._file is None:
            limits = self._alone.share(limits)
        return super()._replaced(limits, now, carries=carries)

    def _warn_of_difference(self, record: Record) -> None:
        """Say that processes which run now were given other limits, if any were."""
        if self._rows and is_opinion(limits_of(record.given)):
            caution(
                f"the processes that share a quota were given different limits: "
                f"{limits_of(record.given)!r}, and now {limits_of(self._given)!r}, which hold "
                "from now on; give all of them the same",
                stacklevel=2,
            )
