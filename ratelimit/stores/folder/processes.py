"""Which process it is that shares a quota, and whether it still runs.

Owns the identity of a process on this machine. Must never know what a process holds.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

PACKED: Final = struct.Struct("<IQQ")
"""A process as a file keeps it."""


class Process(NamedTuple):
    """One process of this machine; the number alone is given to another one later."""

    pid: int
    space: int
    """The namespace of that number, as containers have one each; 0: not known."""
    started: int
    """When it started, in ticks since the machine did; 0: not known."""

    def packed(self) -> bytes:
        """Return what a file keeps of it."""
        return PACKED.pack(*self)

    @property
    def is_near(self) -> bool:
        """Whether the process can be looked up: its number is of our namespace."""
        return self.space == _space()

    @property
    def runs(self) -> bool:
        """Whether the process may still run.

        One of another namespace cannot be looked up, so it is taken for a running one.
        """
        if not self.is_near:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is another user's, and there
            return True
        found = _started(self.pid)
        return found == self.started or not self.started


def process_of(packed: bytes) -> Process:
    """Return the process that a file has kept."""
    return Process(*PACKED.unpack_from(packed))


def this_process() -> Process:
    """Return the process that this code runs in."""
    pid = os.getpid()
    return Process(pid, _space(), _started(pid))


@cache
def _space() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # no Linux
        return 0


def _started(pid: int) -> int:
    """Return when a process started; 0 if that is not known or it is dead already."""
    try:
        # The name of the program, in brackets, may hold blanks and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return 0
    state, started = fields[0], fields[19]
    return -1 if state in "ZX" else int(started)
