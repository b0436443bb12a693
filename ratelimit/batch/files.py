"""Writing files so that neither a full disk nor a kill loses what was there.

Owns replacing a file in one step, with its mode, its owner and its place behind links.
Must never know what is written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import lock_descriptor

_NEW: Final = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | os.O_APPEND
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
"""Flags of a temporary file: it is new, and it is no link."""
_LEFT: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of one that was left: neither a link is followed nor a pipe waited for."""


@contextmanager
def replacement(path: Path) -> Iterator[int]:
    """Yield the descriptor of a new file that takes the place of `path` at the end.

    An exception out of the block leaves `path` as it was. Links are followed: a
    symbolic link stays one, and the file that it points at is replaced. The new file
    has the mode, the extended attributes, the owner and the group of the old one.

    The descriptor is locked, so that no other replacement takes the new file for one
    that was killed; what such ones have left of this file is removed.

    Raises OSError where the disk refuses, where the owner cannot be kept, and for a
    file with several names (hard links), which replacing would separate.
    """
    place = place_of(path)
    old = place.stat() if place.exists() else None
    if old is not None and old.st_nlink > 1:
        raise OSError(
            errno.EMLINK,
            f"it has {old.st_nlink} names (hard links), which replacing it would separate",
        )
    _remove_left(place)
    descriptor, beside = _new_beside(place, 0o666 if old is None else 0o600)
    try:
        try:
            if old is not None:
                _adopt(descriptor, old)
                shutil.copystat(place, beside)
            yield descriptor
            os.fsync(descriptor)
            if sys.platform != "win32":
                beside.replace(place)
        finally:
            os.close(descriptor)
        if sys.platform == "win32":  # which renames no file that is open
            beside.replace(place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise

    _sync_folder(place.parent)


def _names_beside(place: Path) -> str:
    """Return how the names of new files begin that are to replace this one."""
    return f".ratelimit-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]}-"


def _new_beside(place: Path, mode: int) -> tuple[int, Path]:
    """Make a new file beside another one and lock it; return its number and path."""
    while True:
        beside = place.with_name(f"{_names_beside(place)}{secrets.token_hex(8)}.tmp")
        descriptor = os.open(beside, _NEW, mode)
        try:
            held = lock_descriptor(descriptor, blocking=False)
        except OSError:  # this file system locks nothing, so nothing is removed there
            return descriptor, beside
        if held and is_at(descriptor, beside):
            return descriptor, beside
        os.close(descriptor)  # another replacement has just taken it for a leftover


def _remove_left(place: Path) -> None:
    """Remove new files that were to replace this one: their processes were killed."""
    for beside in place.parent.glob(f"{_names_beside(place)}*.tmp"):
        # What cannot be opened and locked is no leftover of this user, or in use.
        with suppress(OSError):
            descriptor = os.open(beside, _LEFT)
            try:
                ours = stat.S_ISREG(os.fstat(descriptor).st_mode)
                if ours and lock_descriptor(descriptor, blocking=False):
                    beside.unlink()
            finally:
                os.close(descriptor)


def is_at(descriptor: int, place: Path) -> bool:
    """Return whether a path leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False


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
