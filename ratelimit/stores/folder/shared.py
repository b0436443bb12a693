"""What the processes that share a quota tell each other, and what stays their own.

Owns the exchange between a record and the numbers of a memory store. Must never know
where the record is kept, or wait.
"""

from __future__ import annotations

import itertools
import struct
import weakref
from collections.abc import Iterable
from math import inf
from typing import ClassVar, Final, NamedTuple

from ratelimit.limits import Limits
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.folder.processes import process_of, this_process
from ratelimit.stores.folder.quota_file import (
    NAME_BYTES,
    Record,
    Row,
    packed_row,
    row_of,
)
from ratelimit.stores.holdings import smallest_of
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.written import limits_of, text_of

REAP_SECONDS: Final = 1.0
"""Seconds between two looks for processes that are gone, while one may hold us up."""

UNSEEN_SECONDS: Final = 3_600.0
"""Seconds after which a process that cannot be looked up, as one of another container,
is gone: no call takes that long.
"""

_NUMBER: Final = struct.Struct("<I")

_numbers: Final = itertools.count()
_living: Final[weakref.WeakValueDictionary[int, SharedStore]] = weakref.WeakValueDictionary()
"""The stores of this process, by their numbers."""


class Foreign(NamedTuple):
    """What all other processes hold."""

    admitted: int = 0
    in_flight: int = 0
    borrowing: int = 0
    deferred: float = 0.0
    waiting: tuple[tuple[float, float], ...] = ()
    """The rank of each head that waits, and until when that counts."""


class SharedStore(MemoryStore):
    """A memory store with numbers that other processes change, too.

    :param epoch: names the clock that ``now`` comes from. Processes of one machine
        share one as long as the machine runs.
    """

    shared: ClassVar[bool] = True

    def __init__(self, epoch: str, limits: Limits, now: float, slack: float = 0.0) -> None:
        super().__init__(limits, now, slack)
        self._epoch = epoch.encode()
        self._given = self._text = text_of(limits)
        self._texted: Limits | None = limits  # the limits of that text
        number = next(_numbers)
        _living[number] = self
        self._name = this_process().packed() + _NUMBER.pack(number)
        self._foreign = Foreign()
        self._rows: list[bytes] = []  # of the other processes
        self._departed = 0
        self._rank = 0.0  # of the head that waits
        self._waits_until = 0.0  # until when that counts, unless it asks again
        self._reap_at = -inf

    @property
    def given(self) -> Limits:
        """The limits that a user has given, here or in another process."""
        return limits_of(self._given)

    @property
    def processes(self) -> int:
        """How many processes share the quota, this one included."""
        size = NAME_BYTES - 4
        return len({row[:size] for row in self._rows} | {self._name[:size]})

    @property
    def in_flight(self) -> int:
        """Return the number of calls between admission and settlement, in all."""
        return self.admitted - self.ended + self._foreign.in_flight

    @property
    def admissions(self) -> int:
        """Return how many calls all processes have admitted."""
        return self.admitted + self._foreign.admitted + self._departed

    @property
    def full(self) -> bool:
        """Return whether as many calls are in flight as may be."""
        most, borrowing = self.concurrency, self._borrowing + self._foreign.borrowing
        return most is not None and self.in_flight - borrowing >= most

    def _adopt(self, record: Record, now: float) -> None:
        """Make what the file says this store's state; the rest stays this process's."""
        record = record.on_clock(self._epoch, now)
        rows = [row for row in record.rows if not row.startswith(self._name)]
        foreign = _sum_of(map(row_of, rows))
        buckets = self._buckets
        own_deferred = buckets.deferred - self._foreign.deferred
        limits = self.limits
        if record.limits != self._text:
            limits = limits_of(record.limits)
            buckets = Buckets(limits, now, self._slack)
        full_at, corrected, lowered = map(list, record.columns)

        # Nothing may come between these lines: no call, no loop.
        buckets.full_at, buckets.corrected, buckets.lowered_until = full_at, corrected, lowered
        buckets.deferred = own_deferred + foreign.deferred
        self._buckets, self.limits = buckets, limits
        self._text, self._texted, self._given = record.limits, limits, record.given
        self._foreign, self._rows, self._departed = foreign, rows, record.departed
        self.closed_until = record.closed_until
        self._cap = None if record.cap < 0 else record.cap
        self._cap_until = record.cap_until
        self.smallest = smallest_of(limits)
        self._find_obstacles()

    def _give(self, limits: Limits, now: float) -> None:
        self._given = text_of(limits)
        super()._give(limits, now)

    def _record(self, now: float) -> Record:
        """Return all that the other processes are to know."""
        buckets, limits = self._buckets, self.limits
        if limits is not self._texted:
            self._text, self._texted = text_of(limits), limits
        own = packed_row(
            self._name,
            self.admitted,
            self.admitted - self.ended,
            self._borrowing,
            buckets.deferred - self._foreign.deferred,
            self._rank,
            self._waits_until,
            now,
        )
        return Record(
            self._epoch,
            now,
            self.closed_until,
            -1 if self._cap is None else self._cap,
            self._cap_until,
            self._departed,
            self._given,
            self._text,
            (*buckets.full_at, *buckets.corrected, *buckets.lowered_until),
            (*self._rows, own),
        )

    def _reap(self, now: float, *, at_once: bool = False) -> None:
        """Forget what processes that are gone had in flight and had deferred."""
        if now < self._reap_at and not at_once:
            return
        self._reap_at = now + REAP_SECONDS
        rows = [row for row in self._rows if _is_alive(row, self._name, now)]
        if len(rows) == len(self._rows):
            return
        kept = set(rows)
        departed = sum(row_of(row).admitted for row in self._rows if row not in kept)
        foreign = _sum_of(map(row_of, rows))
        self._buckets.deferred += foreign.deferred - self._foreign.deferred
        self._rows, self._foreign = rows, foreign
        self._departed += departed


def _sum_of(rows: Iterable[Row]) -> Foreign:
    total = Foreign()
    for row in rows:
        waits = ((row.rank, row.waits_until),) if row.waits_until else ()
        total = Foreign(
            total.admitted + row.admitted,
            total.in_flight + row.in_flight,
            total.borrowing + row.borrowing,
            total.deferred + row.deferred,
            total.waiting + waits,
        )
    return total


def _is_alive(row: bytes, own: bytes, now: float) -> bool:
    """Return whether a row's process runs, and if it is this one, uses its store."""
    size = NAME_BYTES - _NUMBER.size
    if row[:size] == own[:size]:
        return _NUMBER.unpack_from(row, size)[0] in _living
    process = process_of(row)
    return process.runs and (process.is_near or row_of(row).seen > now - UNSEEN_SECONDS)
