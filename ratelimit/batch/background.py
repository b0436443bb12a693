"""A task that belongs to the event loop, and the stream by which it hands things over.

Owns starting such a task on asyncio and trio, and the scopes that end it. Must never
know what the task does.

An async generator that kept tasks of its own could not be left early: tasks must end
where they began, and a generator may be closed from anywhere.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """A task outside the code that starts it, which may end it from anywhere."""

    def __init__(self) -> None:
        self._inlet, self.results = anyio.create_memory_object_stream[T]()
        self.send = self._inlet.send
        self.running = anyio.CancelScope()
        """Around everything."""
        self.taking = anyio.CancelScope()
        """Around taking new work; what was begun goes on without it."""
        self.ended = anyio.Event()
        self._task: object = None

    def start(self, work: Callable[[Self], Awaitable[None]]) -> None:
        """Run ``work(self)`` in a task of the event loop."""

        async def main() -> None:
            try:
                await work(self)
            finally:
                self.end()

        native: Any = anyio.lowlevel.current_token().native_token
        if hasattr(native, "create_task"):
            # The loop holds tasks weakly, so a reference is kept.
            self._task = native.create_task(main(), name="ratelimit.run")
        else:
            import trio  # noqa: PLC0415  # no dependency; here it runs

            trio.lowlevel.spawn_system_task(
                main, name="ratelimit.run", context=contextvars.copy_context()
            )

    def end(self) -> None:
        """Close the stream: nothing more is handed over."""
        self._inlet.close()
        self.ended.set()
