"""One writer for a file of results: a lock that dies with its process, however that
ends.

Owns the lock file beside the results. Must never come in: what is written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Self

from ratelimit.errors import InvalidArgument

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """Held while entered; raises `InvalidArgument` when another process, or another run
    in this one, holds it.

    The operating system forgets the lock when its holder ends, also by SIGKILL: a lock
    file that was left lying about locks nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._what = path
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
            except (BlockingIOError, PermissionError):  # Unix, Windows
                os.close(descriptor)
                raise InvalidArgument(
                    f"another run is writing to {self._what}; wait for its end, or give this one another output"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            if self._stands(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        return self

    def _stands(self, descriptor: int) -> bool:
        """Whether what was locked is still the file of that name: its last holder
        removes it when done.
        """
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # an open file cannot be removed there, and a closed one may be another's
        # already
        if sys.platform != "win32":
            self.path.unlink(missing_ok=True)
        os.close(descriptor)
