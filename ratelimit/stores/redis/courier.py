"""The thread that takes steps for a store, when they are due.

Owns when. Must never know what a step says. One thread a family of models, from its
first call until the store is gone; it holds nobody up and keeps no program alive.
"""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
import time
import weakref
from math import inf
from typing import Final, Protocol

BEAT_SECONDS: Final = 2.0
"""Seconds between two steps of a process that has nothing to say: it is alive."""
LEAVE_SECONDS: Final = 1.0
"""Seconds that the end of the program waits for the last steps, at most."""


class Served(Protocol):
    """What the courier asks of a store."""

    def due(self, now: float) -> float:
        """Return when the next step is due."""

    def serve(self) -> None:
        """Take it."""

    def leave(self, until: float) -> None:
        """Take the last one, or give up then."""


class Courier:
    """Serves one store, in a thread of its own from the first ring on."""

    def __init__(self, store: Served) -> None:
        self._store = weakref.ref(store)
        self._bell: queue.SimpleQueue[Served | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.sleeps_until = -inf
        """Until when the thread sleeps; in the past while it is awake."""
        self.connection = threading.Lock()
        """Held by who takes a step: one at a time."""

    def ring(self, due: float) -> None:
        """Let a step be taken at ``due``, if none is due before. Never blocks."""
        if due < self.sleeps_until:
            self.sleeps_until = -inf  # one ring is enough
            self._bell.put(self._store())  # which lives until its news are sent

    def start(self) -> None:
        """Let a thread take the steps from now on; a second time nothing happens.

        The caller sees to it that no two threads are here at once.
        """
        alive = self._thread is not None and self._thread.is_alive()
        if not alive and not self._stopped:
            thread = threading.Thread(
                target=_serve, args=(self._store, weakref.ref(self), self._bell), daemon=True
            )
            thread.name = "ratelimit store"
            self._thread = thread
            _living.add(self)
            _leave_with_multiprocessing()
            thread.start()

    def stop(self) -> None:
        """Take no more steps."""
        self._stopped = True
        self._bell.put(None)

    def leave(self, until: float) -> None:
        """Let the store take its last step, or give up then."""
        store = self._store()
        if store is not None and not self._stopped:
            self.stop()
            store.leave(until)


def _serve(
    find: weakref.ref[Served],
    courier: weakref.ref[Courier],
    bell: queue.SimpleQueue[Served | None],
) -> None:
    latest = time.monotonic()
    while True:
        store, here = find(), courier()
        if store is None or here is None:
            return
        here.sleeps_until = latest + BEAT_SECONDS  # from here on it may ring
        now = time.monotonic()
        until = min(store.due(now), latest + BEAT_SECONDS)
        if until <= now:
            here.sleeps_until = -inf
            store.serve()
            latest = time.monotonic()
            continue
        here.sleeps_until = min(here.sleeps_until, until)
        seconds = until - now
        if until == latest + BEAT_SECONDS:  # else a store that is dropped has news to send
            store = None
        here = None
        try:
            store = bell.get(timeout=seconds)
        except queue.Empty:
            continue
        if store is None:
            return


_living: Final[weakref.WeakSet[Courier]] = weakref.WeakSet()
_registered: Final[set[int]] = set()
"""The processes that leave with `multiprocessing`."""


def _leave_with_multiprocessing() -> None:
    """Leave at the end of a process of `multiprocessing` as well: it runs no atexit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _registered:
        _registered.add(os.getpid())
        util.Finalize(None, _leave, exitpriority=1)


@atexit.register
def _leave() -> None:
    end = time.monotonic() + LEAVE_SECONDS
    for courier in list(_living):
        if time.monotonic() < end:
            courier.leave(end)
