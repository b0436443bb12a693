"""A server's absence in the middle of a run, and the requests that wait for its end.

Owns which of them is sent next to see whether the server is back, and how long the run
waits before each. Must never send, or decide that the server is away.
"""

from __future__ import annotations

from typing import Final

import anyio

FIRST_DELAY: Final = 1.0
"""Seconds before the first look; they double with each."""

LONGEST_DELAY: Final = 15.0
"""Seconds between two looks at most."""


class Outage:
    """The requests of a run take turns in looking whether the server is back.

    One at a time is sent, after a wait; each looks in its turn, so that a request which
    alone breaks its server holds up nothing else.

    :param error: what showed that the server is away.
    :param since: when it did, in seconds of the event loop.
    :param patience: seconds for which the run waits.
    """

    def __init__(self, error: Exception, since: float, patience: float) -> None:
        self.error = error
        self.since = since
        self.patience = patience
        self._delay = FIRST_DELAY
        self._turn = anyio.Lock()
        self._back = anyio.Event()

    def end(self) -> None:
        """Let all go on: the server is back."""
        self._back.set()

    def waited(self) -> float:
        """Return the seconds since the server went away."""
        return anyio.current_time() - self.since

    def is_over_patience(self, now: float) -> bool:
        """Return whether the run has waited long enough."""
        return now - self.since >= self.patience

    async def wait_for_turn(self) -> None:
        """Wait until the calling task may look; it calls `pass_turn` afterwards.

        A cancelled wait has no turn to pass.
        """
        await self._turn.acquire()
        try:
            left = self.since + self.patience - anyio.current_time()
            with anyio.move_on_after(max(min(self._delay, left), 0.0)):
                await self._back.wait()
        except BaseException:
            self._turn.release()
            raise

        self._delay = min(self._delay * 2, LONGEST_DELAY)

    def pass_turn(self) -> None:
        """Let the next task look."""
        self._turn.release()
