"""Real time, and how a thread waits in it.

Owns the clock and the flag that one waiting thread parks on. Must never know what is
waited for. `ratelimit.testing` has clocks of virtual time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

LONGEST: Final = threading.TIMEOUT_MAX
"""Seconds, some centuries: the longest time that a lock can be waited for."""


@cache
def _machine_epoch() -> str:
    """Return a name for the time since this machine was started."""
    try:
        return "boot " + Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # no Linux: the clock that starts anew tells it
        return "boot"


class Clock:
    """Real, monotonic time."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    """Return the seconds since some fixed moment.

    An attribute instead of a method: the hot path calls it once less.
    """

    @property
    def epoch(self) -> str:
        """A name for where this clock's zero is: its moments mean nothing elsewhere."""
        return _machine_epoch() if self.now is time.monotonic else f"clock {os.getpid()} {id(self)}"

    def park(self, flag: Flag, seconds: float | None) -> None:
        """Block the calling thread until ``flag`` is set, at most ``seconds``."""
        flag.wait(seconds)


class Flag:
    """A `threading.Event` for one waiter, which may be set from inside its own wait.

    A signal handler or finalizer runs in the thread that waits, and may settle the very
    call that this thread waits for. The lock inside an `Event` is then held by that
    thread already, and taking it would block for good. Releasing a bare lock is one
    step that waits for nothing.
    """

    __slots__ = ("_lock", "_set")

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._set

    def set(self) -> None:
        """Let the waiter go on, now or as soon as it waits; callable from anywhere."""
        self._set = True
        try:  # noqa: SIM105  # a context manager in Python could be interrupted in between
            self._lock.release()
        except RuntimeError:  # "release unlocked lock": the flag was set before
            pass

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the flag is set, at most ``seconds``, and at most `LONGEST`."""
        if not self._set:
            self._lock.acquire(timeout=LONGEST if seconds is None else min(seconds, LONGEST))
