"""The file through which the processes of one machine share a quota.

Owns the layout of the file, its lock, and that a record is there whole or not at all.
Must never calculate a level or judge a process.

The file is mapped into memory and holds two records. A new one is written over the
older of the two, and counts from the moment at which its number is written: one store
of eight bytes. So a process that is killed at any instruction leaves the last whole
record, and a reader needs no lock. What the kernel has of the file outlives every
process; what a loss of power leaves is recognised by its checksum.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import weakref
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from filelock import lock_descriptor, unlock_descriptor

from ratelimit.stores.folder.making import (
    FILE_BYTES,
    FIRST,
    MAGIC,
    RECORD_BYTES,
    QuotaFileClosed,
    close,
    open_whole,
)
from ratelimit.stores.folder.processes import PACKED

MOST_PROCESSES: Final = 200

LOCK_SECONDS: Final = 0.02
"""Seconds for which `QuotaFile.lock` tries, at most; a holder needs microseconds."""

RESTART_SECONDS: Final = 60.0
"""A clock that is behind a record by that many seconds has started anew since."""

_NUMBER: Final = struct.Struct("<Q")
_NUMBER_AT: Final = len(MAGIC)
_NUMBER_END: Final = _NUMBER_AT + _NUMBER.size
_CHECKSUM: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<QIIdddidQHHHHH")
_CHECKED_FROM: Final = _NUMBER.size + _CHECKSUM.size
"""What its checksum is of begins behind a record's number and the checksum."""
_ROW: Final = struct.Struct("<qiidddd")
NAME_BYTES: Final = PACKED.size + 4
"""A row begins with its process and the number of the store in it."""
ROW_BYTES: Final = NAME_BYTES + _ROW.size


class Row(NamedTuple):
    """What one process has to tell the others. Moments are seconds of its clock."""

    admitted: int = 0
    in_flight: int = 0
    borrowing: int = 0
    """Of these, calls in their parents' slots."""
    deferred: float = 0.0
    """Tokens that its calls in flight have deferred."""
    rank: float = 0.0
    """The rank of its head, while it waits."""
    waits_until: float = 0.0
    """Until when that counts, unless the head asks again."""
    seen: float = 0.0
    """When the process was here last."""


def packed_row(name: bytes, *figures: float) -> bytes:
    """Return the figures of a `Row` as the file keeps them."""
    return name + _ROW.pack(*figures)


def row_of(packed: bytes) -> Row:
    """Return a row that the file has kept."""
    return Row(*_ROW.unpack_from(packed, NAME_BYTES))


class Record(NamedTuple):
    """All that processes share of one family. Moments are seconds of one clock."""

    epoch: bytes
    """The clock: its moments mean nothing to another one."""
    saved_at: float
    closed_until: float
    cap: int
    """How many calls may be in flight; -1: as many as the limits say."""
    cap_until: float
    departed: int
    """Calls that were admitted by processes that have ended."""
    given: bytes
    """The limits that were given, as text."""
    limits: bytes
    """The limits that are held, as text."""
    buckets: Sequence[float]
    """``full_at`` of each bucket, then what corrections moved each by in all, and then
    until when what they took will have refilled.
    """
    rows: Sequence[bytes]
    """One a process, packed."""
    wall: float = 0.0
    """When it was written by the calendar: clocks start anew with the machine."""

    @property
    def columns(self) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
        """The three figures of `buckets`, each of all buckets."""
        size = len(self.buckets) // 3
        return self.buckets[:size], self.buckets[size : 2 * size], self.buckets[2 * size :]

    def on_clock(self, epoch: bytes, now: float) -> Record:
        """Return the record with moments of this clock: the machine may have restarted.

        The calendar tells how much time has passed, and no process of then runs.
        """
        if epoch == self.epoch and now >= self.saved_at - RESTART_SECONDS:
            return self
        later = now - (self.saved_at + max(time.time() - self.wall, 0.0))
        full_at, corrected, lowered_until = self.columns
        buckets = (
            *(moment + later for moment in full_at),
            *corrected,
            *(moment + later for moment in lowered_until),
        )
        return self._replace(
            epoch=epoch,
            saved_at=self.saved_at + later,
            closed_until=self.closed_until + later,
            cap_until=self.cap_until + later,
            buckets=buckets,
            rows=(),
        )


class QuotaFile:
    """One quota file, mapped; made if it is missing.

    :param only_read: open a file that is there, to look at it: it is neither made nor
        locked nor changed. Raises `FileNotFoundError` where there is none yet.

    Raises `OSError` where the file cannot be used.
    """

    def __init__(self, path: Path, *, only_read: bool = False) -> None:
        self.path = path
        self._only_read = only_read
        self._descriptor = open_whole(path, only_read=only_read)
        access = mmap.ACCESS_READ if only_read else mmap.ACCESS_WRITE
        try:
            self._map = mmap.mmap(self._descriptor, FILE_BYTES, access=access)
        except ValueError as error:  # it was cut short since it was opened
            os.close(self._descriptor)
            raise OSError(f"{path} is not whole: {error}") from None
        except BaseException:
            os.close(self._descriptor)
            raise
        self._inode = os.fstat(self._descriptor).st_ino
        self._open = [self._descriptor]
        self._closed = weakref.finalize(self, close, self._map, self._open)
        self._closed.atexit = False  # the process's end closes it, too

    def fileno(self) -> int:
        """Return the number of the open file.

        Raises `QuotaFileClosed` once that may be another file's.
        """
        if not self._open:
            raise QuotaFileClosed(f"{self.path} was closed")
        return self._descriptor

    def close(self) -> None:
        """Give the file up, as its end does; a second time nothing happens."""
        self._closed()

    @property
    def is_current(self) -> bool:
        """Whether the path still leads to this file, and to all of it."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return found.st_ino == self._inode and found.st_size >= FILE_BYTES

    def lock(self, patience: float = LOCK_SECONDS) -> bool:
        """Lock the file; False if another process does not let go of it in time.

        :param patience: seconds.
        """
        descriptor = self.fileno()
        if self._only_read:
            raise OSError(f"{self.path} is only read here")
        self.refuse_if_cut()
        if lock_descriptor(descriptor, blocking=False):
            return True
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(0.000_05)
            if lock_descriptor(descriptor, blocking=False):
                return True
        return False

    def refuse_if_cut(self) -> None:
        """Raise `OSError` if the file is shorter than it was made.

        What is missing of it cannot be read: the kernel would end the process.
        """
        if os.fstat(self.fileno()).st_size < FILE_BYTES:
            raise OSError(f"{self.path} was cut short")

    def clear(self) -> None:
        """Make the file one without a record, with the lock held."""
        self._map[_NUMBER_AT:_NUMBER_END] = _NUMBER.pack(0)

    def unlock(self) -> None:
        """Unlock the file; nothing happens if it is not locked."""
        unlock_descriptor(self.fileno())

    @property
    def number(self) -> int:
        """The number of the last record; 0: there is none yet."""
        number: int = _NUMBER.unpack_from(self._map, _NUMBER_AT)[0]
        return number

    def read(self) -> Record | None:
        """Return the last whole record; None if there is none.

        Raises `OSError` where the file was cut short.
        """
        self.refuse_if_cut()
        number = self.number
        return self._read(number) or self._read(max(number - 1, 0))

    def _read(self, number: int) -> Record | None:
        if not number:
            return None
        start = FIRST + number % 2 * RECORD_BYTES
        head = _HEAD.unpack_from(self._map, start)
        found, checksum, length = head[:3]
        if found != number or not _HEAD.size <= length <= RECORD_BYTES:
            return None
        checked = self._map[start + _CHECKED_FROM : start + length]
        if checksum != zlib.crc32(checked, found & 0xFFFF_FFFF):
            return None

        body = checked[_HEAD.size - _CHECKED_FROM :]
        lengths, buckets, rows = head[9:12], head[12], head[13]
        texts, at = [], 0
        for size in lengths:
            texts.append(body[at : at + size])
            at += size
        figures = _figures(3 * buckets).unpack_from(body, at)
        at += 24 * buckets
        packed = [body[at + ROW_BYTES * row : at + ROW_BYTES * (row + 1)] for row in range(rows)]
        saved_at, wall, closed_until, cap, cap_until, departed = head[3:9]
        return Record(
            epoch=texts[0],
            saved_at=saved_at,
            wall=wall,
            closed_until=closed_until,
            cap=cap,
            cap_until=cap_until,
            departed=departed,
            given=texts[1],
            limits=texts[2],
            buckets=figures,
            rows=packed,
        )

    def write(self, record: Record) -> int:
        """Write a record, with the lock held, and return its number.

        Raises `OSError` if it is too long.
        """
        number = self.number + 1
        (
            epoch,
            saved_at,
            closed_until,
            cap,
            cap_until,
            departed,
            given,
            limits,
            buckets,
            rows,
            _,
        ) = record
        body = b"".join((epoch, given, limits, _figures(len(buckets)).pack(*buckets), *rows))
        length = _HEAD.size + len(body)
        if length > RECORD_BYTES or len(rows) > MOST_PROCESSES:
            raise OSError(f"{len(rows)} processes share {self.path}, at most {MOST_PROCESSES} can")
        head = _HEAD.pack(
            number,
            0,
            length,
            saved_at,
            time.time(),
            closed_until,
            cap,
            cap_until,
            departed,
            len(epoch),
            len(given),
            len(limits),
            len(buckets) // 3,
            len(rows),
        )
        checked = head[_CHECKED_FROM:] + body
        checksum = _CHECKSUM.pack(zlib.crc32(checked, number & 0xFFFF_FFFF))
        start = FIRST + number % 2 * RECORD_BYTES
        self._map[start : start + length] = head[: _NUMBER.size] + checksum + checked
        self._map[_NUMBER_AT:_NUMBER_END] = _NUMBER.pack(number)
        return number


@cache
def _figures(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}d")
