"""How a quota file is opened, made and closed.

Owns its size, and the refusal of what is no quota file. Must never read a record.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from pathlib import Path
from typing import Final

from filelock import lock_descriptor, unlock_descriptor

MAGIC: Final = b"ratelimit quota\x01"
RECORD_BYTES: Final = 24_576
"""Bytes for one record: `MOST_PROCESSES` and the longest texts of limits fit."""
FIRST: Final = 64
"""Where the first record starts, behind the magic and the number of the last one."""
FILE_BYTES: Final = FIRST + 2 * RECORD_BYTES

CREATION_SECONDS: Final = 5.0
"""Seconds for which a new file may be locked by the process that makes it."""


class NoQuotaFile(OSError):
    """The path leads to a file of something else, or of somebody else."""


class QuotaFileClosed(OSError):
    """The file was closed here: the garbage collector has begun to take its store."""


def close(mapped: mmap.mmap, descriptors: list[int]) -> None:
    """Give a file up; ``descriptors`` is empty then."""
    mapped.close()
    os.close(descriptors.pop())


def open_whole(path: Path, *, only_read: bool) -> int:
    """Return a descriptor of a quota file that has its whole size."""
    if only_read:
        flags = os.O_RDONLY | os.O_NONBLOCK  # a pipe is refused, and not waited for
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        _refuse_what_is_none(descriptor, path, FILE_BYTES if only_read else 0)
        if os.fstat(descriptor).st_size < FILE_BYTES:
            _extend(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_what_is_none(descriptor: int, path: Path, least: int) -> None:
    """Raise `NoQuotaFile` for a file of something else, or of somebody else.

    Raise `FileNotFoundError` for one of fewer than ``least`` bytes: it is being made.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise NoQuotaFile(f"{path} is not a file of this user")
    begin = os.pread(descriptor, len(MAGIC), 0)
    torn = found.st_size == FILE_BYTES and not any(begin)  # as a loss of power leaves it
    if not MAGIC.startswith(begin) and not torn:
        raise NoQuotaFile(f"{path} is a file of something else")
    if found.st_size < least:
        raise FileNotFoundError(errno.ENOENT, "it is being made", str(path))


def _extend(descriptor: int, path: Path) -> None:
    """Give a new file its size; another process may be about to do the same.

    It is written, not only made longer: a full disk says so here, and not by a signal
    when the map is used.
    """
    until = time.monotonic() + CREATION_SECONDS
    while not lock_descriptor(descriptor, blocking=False):
        if time.monotonic() > until:
            raise OSError(f"{path} stays locked by another process")
        time.sleep(0.001)
    try:
        os.pwrite(descriptor, MAGIC, 0)
        while (size := os.fstat(descriptor).st_size) < FILE_BYTES:
            os.pwrite(descriptor, bytes(FILE_BYTES - size), size)
    finally:
        unlock_descriptor(descriptor)
