"""Writing files so that neither a full disk nor a kill loses what was there.

Owns replacing a file in one step, with its mode, its owner and its place behind links.
Must never know what is written.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_NEW: Final = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | os.O_APPEND
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
"""Flags of a temporary file: it is new, and it is no link."""


@contextmanager
def replacement(path: Path) -> Iterator[int]:
    """Yield the descriptor of a new file that takes the place of `path` at the end.

    An exception out of the block leaves `path` as it was. Links are followed: a
    symbolic link stays one, and the file that it points at is replaced. The new file
    has the mode, the extended attributes, the owner and the group of the old one.

    Raises OSError where the disk refuses, where the owner cannot be kept, and for a
    file with several names (hard links), which replacing would separate.
    """
    place = place_of(path)
    beside = place.with_name(f".ratelimit-{secrets.token_hex(8)}.tmp")
    old = place.stat() if place.exists() else None
    if old is not None and old.st_nlink > 1:
        raise OSError(
            errno.EMLINK,
            f"it has {old.st_nlink} names (hard links), which replacing it would separate",
        )
    descriptor = os.open(beside, _NEW, 0o666 if old is None else 0o600)
    try:
        try:
            if old is not None:
                _adopt(descriptor, old)
                shutil.copystat(place, beside)
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise

    _sync_folder(place.parent)


def _adopt(descriptor: int, old: os.stat_result) -> None:
    """Give a new file the owner and the group of an old one."""
    if sys.platform == "win32":
        return

    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return

    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError:
        raise PermissionError(
            errno.EPERM, "it belongs to another user or group, which replacing it would change"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Put a replaced name on the disk, where the system knows how."""
    if sys.platform == "win32":
        return

    # Some network file systems sync no folders; the file itself is synced already.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however few bytes the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, through links or other spellings."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        pass

    try:
        return place_of(one) == place_of(other)
    except OSError:  # nor is the folder that they are in
        return one == other


def place_of(path: Path) -> Path:
    """Return where a path leads; raise nothing but OSError where it leads nowhere.

    `Path.resolve` raises RuntimeError for links in a circle, which opening them tells
    in the system's words.
    """
    return Path(os.path.realpath(path))
