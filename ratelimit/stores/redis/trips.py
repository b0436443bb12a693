"""A step that the head of a queue takes itself, in its own task or thread.

Owns such a step from its departure until its answer is there or somebody else gets it.
Must never wait: the head does.

To hand a step to the thread of the steps, and to be woken by it, costs more than the
step. So the head sends it on a connection that is there already, and reads the answer
when it can be read. Whatever goes wrong - the head is cancelled, its event loop is held
up, the connection breaks - the step is sent again in the usual way: it has a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from ratelimit.stores.alone import ASK_SECONDS
from ratelimit.stores.payments import Asked
from ratelimit.stores.redis import wire
from ratelimit.stores.redis.copy import Step
from ratelimit.stores.redis.line import Line, LinkError
from ratelimit.stores.redis.tied import TiedStore

OWN_SECONDS: Final = 0.25
"""Seconds that a step is its head's; then the thread of the steps sends it again."""


class Trip:
    """One step on its way."""

    __slots__ = ("_store", "line", "sent", "step", "until")

    def __init__(self, store: TravellingStore, line: Line, step: Step, sent: float) -> None:
        self._store = store
        self.line = line
        self.step = step
        self.sent = sent
        self.until = sent + OWN_SECONDS

    def fileno(self) -> int:
        """Return the number of the socket that can be read when the answer is there."""
        return self.line.fileno()

    def end(self) -> None:
        """Take the answer; called when it can be read, or by a thread that may wait."""
        self._store.arrive(self)

    def abandon(self) -> None:
        """Let the store get the answer in another way."""
        self._store.take_over(self)


class TravellingStore(TiedStore):
    """A store that a head can ask by itself."""

    _asking = False  # whether the thread of the steps is to ask for a head
    _line_from = -inf  # when one is made that is wanted

    def _depart(self, asked: Sequence[Asked]) -> Trip | None:
        """Send a step for a head; None: it cannot go by itself now.

        The connection lock is held.
        """
        line = self._line
        if line is None or self._step is not None or self.is_lost:
            return None
        step = self._locked(self._made, asked, False)
        trip = Trip(self, line, step, self._time())
        self._trip = trip
        self._courier.ring(trip.until)
        try:
            self._link.round_trips += 1
            line.send(self._packed(step, trip.sent))
        except LinkError:
            self.take_over(trip)
            return None
        return trip

    def arrive(self, trip: Trip) -> None:
        """Take the answer to a step that a head has sent."""
        try:
            reply = wire.reply_of(trip.line.read())
        except (LinkError, ValueError):
            self.take_over(trip)  # the thread of the steps meets the same, and says it
            return
        for entered in self._try_connection:
            if entered:
                break
            self.take_over(trip)  # whoever holds the lock sends the step again
            return
        try:
            if self._trip is not trip or reply is None:
                self.take_over(trip)
                return
            self._trip = None
            self._locked(self._answered, trip.step, reply, trip.sent, self._time())
        finally:
            self._courier.connection.release()
        self._served()

    def take_over(self, trip: Trip) -> None:
        """Let the thread of the steps send a step again; its head is not on the way."""
        if self._trip is trip:
            self._trip = None
        if self._line is trip.line:
            self._line = None
        trip.line.close()
        self._ask_courier()

    def _ask_courier(self) -> None:
        self._asking = True
        self._courier.ring(self._time())

    def _lay_line(self) -> None:
        """Connect for the heads, in the thread of the steps."""
        now = self._time()
        if self._line is None and not self.is_lost and now >= self._line_from:
            self._line_from = now + ASK_SECONDS
            self._line = self._link.line(self._key)
