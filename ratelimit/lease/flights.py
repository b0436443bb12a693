"""Who is at work with the calls in flight, where their number is limited.

Owns what keeps a slot from its next user: an event loop that was closed around a call,
and a task that makes a call while it reads the stream of another. Must never admit or
wait.

A call that is given out by hand says nothing of who will end it, so a task is only
taken to be inside of a stream, and only while no other task reads that.
"""

from __future__ import annotations

import threading
import weakref
from math import inf
from typing import Any, Final

from ratelimit.admission.drivers import in_event_loop, running_loop, running_task
from ratelimit.control.family import ModelFamily
from ratelimit.lease.admitted import AdmittedLease
from ratelimit.stores.payments import Payment

MOST: Final = 1_000
"""Calls of a family after which those that have ended are dropped."""
LOOK_SECONDS: Final = 1.0
"""Seconds after which a waiting head looks again whether event loops were closed."""


class Flight:
    """One call in flight."""

    __slots__ = ("is_attempt", "lease", "loop", "maker", "reader", "streams", "waits_for")

    def __init__(self, lease: AdmittedLease) -> None:
        loop = running_loop()
        self.lease = weakref.ref(lease)
        self.loop = None if loop is None else weakref.ref(loop)
        """The event loop that its lease was given out in."""
        self.is_attempt = False
        """Whether it is an HTTP attempt."""
        self.maker = caller()
        """The task, or the thread without an event loop, that has made the call."""
        self.reader: object = None
        """The task that read its stream last, if any."""
        self.streams: Streams | None = None
        """The streams of that task."""
        self.waits_for: list[ModelFamily] = []
        """The families that calls made inside it wait for."""

    @property
    def is_dead(self) -> bool:
        """Whether nobody is left to end the call: its event loop is closed."""
        return self.loop is not None and _is_closed(self.loop)


def _is_closed(reference: weakref.ref[Any]) -> bool:
    loop = reference()
    return loop is None or (hasattr(loop, "is_closed") and loop.is_closed())


def caller() -> object:
    """Return what makes a call here: while it is held there is no other like it."""
    return running_task() if in_event_loop() else threading.current_thread()


class Streams:
    """The calls, by their numbers, that one task reads the streams of."""

    __slots__ = ("__weakref__", "numbers")

    def __init__(self) -> None:
        self.numbers: dict[int, None] = {}


class Flights:
    """The calls in flight of one family.

    Each change is one step of a dict, so that no lock is needed.
    """

    __slots__ = ("_loops", "_most", "_of", "_read_by", "warned")

    def __init__(self) -> None:
        self.warned = False
        """Whether a task was warned that it waits for its own calls."""
        self._of: dict[int, Flight] = {}
        self._most = MOST
        self._loops: dict[weakref.ref[Any], None] = {}
        # What a task reads is changed by this task alone, and dropped with the last of
        # its calls.
        self._read_by: weakref.WeakValueDictionary[object, Streams] = weakref.WeakValueDictionary()

    def note(self, lease: AdmittedLease) -> Flight:
        """Return what is known of a call, from now on at the latest."""
        number = id(lease)
        flight = self._of.get(number)
        if flight is None or flight.lease() is not lease:
            if len(self._of) >= self._most:
                self._most = max(2 * len(self.all()), MOST)
                self.drop_closed()
            flight = Flight(lease)
            if flight.loop is not None:
                self._loops[flight.loop] = None
            self._of[number] = flight
        return flight

    def note_reader(self, lease: AdmittedLease, task: object) -> None:
        """Take note that the running task has read a part of this call's stream."""
        flight = self.note(lease)
        if flight.reader == task:
            return

        self.read_by(task)  # drops those that ended
        streams = self._read_by.get(task) or self._read_by.setdefault(task, Streams())
        streams.numbers[id(lease)] = None
        flight.reader, flight.streams = task, streams

    def read_by(self, task: object) -> list[AdmittedLease]:
        """Return the calls that the running task reads the streams of.

        The last one first. However many calls are in flight, only the task's own are
        looked at.
        """
        streams = self._read_by.get(task)
        if streams is None:
            return []

        found = []
        for number in list(streams.numbers):
            flight = self._of.get(number)
            lease = None if flight is None or flight.reader != task else flight.lease()
            if lease is None or lease.ended:
                streams.numbers.pop(number, None)
            else:
                found.append(lease)
        return found[::-1]

    def are_of(self, loop: object) -> bool:
        """Tell whether no event loop but this one has made any of the calls."""
        return all(reference() is loop for reference in list(self._loops))

    def drop_closed(self) -> None:
        """Drop the event loops that are closed and of which no call is in flight."""
        used = {flight.loop for _, flight in self.all()}
        for reference in list(self._loops):
            if reference not in used and _is_closed(reference):
                self._loops.pop(reference, None)

    def all(self) -> list[tuple[AdmittedLease, Flight]]:
        """Return the calls in flight, the last one first, and drop those that ended."""
        found = []
        for number, flight in list(self._of.items()):
            lease = flight.lease()
            if lease is None or lease.ended:
                self._of.pop(number, None)
            else:
                found.append((lease, flight))
        return found[::-1]


_flights: Final[weakref.WeakKeyDictionary[ModelFamily, Flights]] = weakref.WeakKeyDictionary()


def flights_of(family: ModelFamily) -> Flights:
    """Return the calls in flight of a family."""
    return _flights.get(family) or _flights.setdefault(family, Flights())


def note_flight(lease: AdmittedLease, *, is_attempt: bool) -> None:
    """Take note of a call that was admitted, if calls in flight are limited."""
    store = lease.family.admission.store
    if not store.buckets_only and store.concurrency is not None:
        flights_of(lease.family).note(lease).is_attempt = is_attempt


def note_reader(lease: AdmittedLease) -> None:
    """Take note that the running task has read a part of this call's stream."""
    if not lease.family.admission.store.buckets_only and not lease.ended:
        flights_of(lease.family).note_reader(lease, running_task())


def stream_around(family: ModelFamily, task: object) -> Payment | None:
    """Return the call of the stream that a task was reading before it made a call."""
    for lease in flights_of(family).read_by(task):
        if lease.shares(family):
            return lease.payment
    return None


def call_without_attempt(family: ModelFamily) -> Payment | None:
    """Return a call in flight that no HTTP attempt was admitted by.

    It brings no headers. What it waits for may be an attempt that waits for headers.
    """
    for lease, flight in flights_of(family).all():
        if not (flight.is_attempt or lease.claimed) and lease.shares(family):
            return lease.payment
    return None


def end_dead(family: ModelFamily) -> float:
    """End the calls of closed event loops, which keep their reserves.

    Returns in how many seconds to look again; inf: no event loop but the running one
    has calls in flight.
    """
    running, again = running_loop(), inf
    flights = flights_of(family)
    if flights.are_of(running):
        return again

    for lease, flight in flights.all():
        if flight.is_dead:
            lease.close()
        elif flight.loop is not None and flight.loop() is not running:
            again = LOOK_SECONDS
    flights.drop_closed()
    return again
