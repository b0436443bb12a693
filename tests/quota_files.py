"""What the tests of a shared quota have in common: limiters on it, and what is left.

The folder and its one file are the fixtures `store` and `path`. Owns no expectation.
"""

from __future__ import annotations

import time
from typing import Any

from ratelimit import RateLimiter
from ratelimit.admission.clock import Clock
from ratelimit.stores.folder.store import FileStore
from ratelimit.testing import ThreadClock


def limiter(store: str, **options: Any) -> RateLimiter:
    """A limiter of this process on the quota."""
    return RateLimiter(arrival_slack=0, store=store, **options)


def store_of(a_limiter: RateLimiter) -> FileStore:
    """The store of its one family."""
    found = a_limiter._engine.families()["*"].admission.store
    assert isinstance(found, FileStore)
    return found


def level(of: RateLimiter, name: str = "requests/60s") -> float:
    """What is left of a limit."""
    return of.statistics().families["*"].levels[name]


class MachineClock(ThreadClock):
    """Virtual time that goes on from the machine's: moments that real processes have
    written are moments of it, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = time.monotonic()

    @property
    def epoch(self) -> str:
        """The machine's."""
        return Clock().epoch
