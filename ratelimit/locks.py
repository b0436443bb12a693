"""Taking a lock so that no signal can leave it locked.

Owns the two ways in which this package takes a `threading.Lock`. Must never know what
the lock protects.

Python handles signals between bytecodes, at the end of a call among other places. A
Ctrl-C that arrives between ``lock.acquire()`` and the ``try`` that releases the lock
would leave it locked for good. ``with lock:`` is safe on CPython 3.11 to 3.13
(bpo-29988) but not on 3.14 (python/cpython#148874), and cannot be used to *try* a lock.
A step of a C iterator is safe on all of them: nothing is checked between the step that
takes the lock and the first instruction of the loop's body.

    for entered in try_steps:       # made once by `try_steps(lock)`
        if entered:
            break
        return                      # somebody else holds the lock
    try:
        ...
    finally:
        lock.release()

``tests/interruptions.py`` raises at every point of such a block and looks at the lock.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Final

from ratelimit.errors import ReentrantUse

LOCK_SECONDS: Final = 5.0
"""Seconds after which a lock is taken for one that this very thread holds.

Critical sections last microseconds, so nobody else holds a lock for that long.
"""


def try_steps(lock: threading.Lock) -> Iterator[bool]:
    """Return an endless iterator; each step tries ``lock`` without waiting.

    A step is True when it has taken the lock.
    """
    return itertools.starmap(lock.acquire, itertools.repeat((False,)))


def wait_steps(lock: threading.Lock) -> Iterator[bool]:
    """Return an endless iterator; each step waits for ``lock``.

    A step is False when the lock was not free for `LOCK_SECONDS`; the caller then
    raises `reentrant_use`.
    """
    return itertools.starmap(lock.acquire, itertools.repeat((True, LOCK_SECONDS)))


def reentrant_use() -> ReentrantUse:
    """Return the error for a lock that the calling thread itself holds further up."""
    return ReentrantUse(
        "the limiter was interrupted in this thread and asked to admit a call from inside; "
        "in a signal handler or finalizer set a flag or schedule the call instead"
    )
