"""The queue inside a server that lets calls wait before it refuses any, as R does.

Owns the order and the waits. Must never admit a call, or know what a limit is.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelimit.testing.admission import Refusal

__all__ = ["Turns"]


class Turns:
    """First come, first served, one queue for each name."""

    def __init__(self) -> None:
        self._heads: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ended = asyncio.Event()

    def ended(self) -> None:
        """A call has ended, which may let the next one pass."""
        self._ended.set()

    async def wait(
        self, name: str, refused: Callable[[], Refusal | None], *, patience: float
    ) -> None:
        """Return when `refused` returns None, or when `patience` seconds are over.

        A call that is too large does not wait.
        """
        try:
            async with asyncio.timeout(patience), self._heads[name]:
                while refusal := self._look(refused):
                    if refusal.reason == "too_large":
                        return

                    await self._pass(refusal.wait)
        except TimeoutError:
            return

    def _look(self, refused: Callable[[], Refusal | None]) -> Refusal | None:
        self._ended.clear()
        return refused()

    async def _pass(self, seconds: float | None) -> None:
        """Sleep until the named moment, or until a call has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return
