"""How events reach their subscribers, without touching a call.

Owns the subscriptions, their queues and the threads that call the hooks. Must never
call a hook in the thread of a call, or while a lock of this package is held.

An event is put into the queue of each subscription (`queue.SimpleQueue`, which a signal
handler or finalizer may use in the middle of itself), and a thread of that subscription
takes it out and calls the hook. So a hook may block, raise, or ask the limiter
anything; the next event only comes later, and beyond `MOST` in the queue events are
dropped and counted. The thread is started by the first event and ends some seconds
after the last: an idle limiter has none, and a fork or the end of the program finds
nothing to wait for but what is still in the queue, for `LAST_SECONDS` at most.

A hook runs in a copy of the context of the call that the event is about, so that a
trace goes on in it.
"""

from __future__ import annotations

import _thread
import atexit
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context, copy_context
from math import inf
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

from ratelimit.errors import InvalidArgument, caution
from ratelimit.events.records import Admission, Event, Settled

MOST: Final = 10_000
"""Events in the queue of one subscription; a blocked hook costs some megabytes."""
LINGER: Final = 5.0
"""Seconds for which an idle thread waits for the next event: starting one costs more
than calling a hook.
"""
START_SECONDS: Final = 0.05
"""Seconds for which a thread that was started may not run yet."""
LAST_SECONDS: Final = 1.0
"""Seconds that the end of the program waits for hooks."""

_NO_PLAIN: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
"""What is only made when it is called, and runs when somebody asks for more."""

Hook = Callable[[Any], object]
"""A function of one event; what it returns is ignored."""

_living: Final[weakref.WeakKeyDictionary[Subscription, None]] = weakref.WeakKeyDictionary()


class Subscription:
    """One hook of a limiter; `close` it, or use it with ``with``, to end it.

    :param kinds: the kinds of events that it wants, or none for all.
    """

    def __init__(self, hook: Hook, kinds: tuple[type[Event], ...] = ()) -> None:
        self.hook = hook
        self.kinds = kinds
        self.dropped = 0
        """Events that were dropped because the hook was too slow."""
        self.failures = 0
        """Times that the hook has raised."""
        self.on_close: Callable[[Subscription], object] = bool
        """Called when it is closed."""
        self._said_dropped = False
        self._most = MOST
        self._renew()
        _living[self] = None

    def _renew(self) -> None:
        self._queue: SimpleQueue[tuple[Context, Event | threading.Event]] = SimpleQueue()
        self._busy = threading.Lock()
        """Held by the thread that calls the hook, if there is one."""
        self._started_at = -inf

    def wants(self, kind: type[Event], family: str) -> bool:  # noqa: ARG002  # see `Log`
        """Return whether events of this kind are of use now; asked in the call."""
        return not self.kinds or issubclass(kind, self.kinds)

    def put(self, event: Event) -> None:
        """Have the hook called with the event, soon. Never blocks or raises."""
        if self._queue.qsize() >= self._most:
            self.dropped += 1
            return
        self._queue.put((copy_context(), event))
        self._start()

    def _start(self) -> None:
        """Start the thread unless there is one.

        The thread takes the lock, not the caller, whom Ctrl-C may stop at any step: a
        second thread finds it taken and ends, and a start that was cut short is made up
        for by a later event.
        """
        now = time.monotonic()
        if self._busy.locked() or now < self._started_at + START_SECONDS:
            return
        self._started_at = now
        try:
            # `Thread.start` waits, and takes locks that the very code may hold which a
            # finalizer interrupts.
            _thread.start_new_thread(self._deliver, (self._queue, self._busy))
        except RuntimeError:  # no thread to be had, or the interpreter ends
            self._started_at = -inf

    def _deliver(self, events: SimpleQueue[Any], busy: threading.Lock) -> None:
        """Call the hook with each event until none came for a while."""
        while busy.acquire(blocking=False):
            try:
                while True:
                    seconds = self.due()
                    context, event = events.get(timeout=LINGER if seconds is None else seconds)
                    if isinstance(event, threading.Event):
                        event.set()
                    else:
                        context.run(self._call, event)
                    del context, event  # so that nothing of the call is kept while idle
            except Empty:
                again = self._tick() or not events.empty()
            finally:
                busy.release()
                self._started_at = -inf  # an event from here on starts a thread of its own
            if not again and events.empty():
                return

    def due(self) -> float | None:
        """Return in how many seconds `tick` is to be called; None: not at all."""
        return None

    def tick(self) -> None:
        """Do what `due` has announced, in the thread of the subscription."""

    def _tick(self) -> bool:
        """Do what is due, and return whether more will be."""
        try:
            if self.due() is not None:
                self.tick()
        except BaseException as error:  # noqa: BLE001  # as in `_call`
            self._failed(error, "what was due")
            return False
        return self.due() is not None

    def _call(self, event: Event) -> None:
        try:
            self.hook(event)
        except BaseException as error:  # noqa: BLE001  # even SystemExit must not end delivery
            self._failed(error, type(event).__name__)
        if self.dropped and not self._said_dropped:
            self._said_dropped = True
            _say(
                f"a subscriber to the limiter's events is too slow: {self.dropped:,} events were "
                "dropped; calls go on. Let it put events into a queue of its own"
            )

    def _failed(self, error: BaseException, at: str) -> None:
        self.failures += 1
        if self.failures == 1:
            _say(
                f"a subscriber to the limiter's events raised {_shown(error)} at {at}; calls go "
                "on, and this is said once"
            )

    def flush(self, seconds: float = LAST_SECONDS) -> bool:
        """Wait until the hook was called with all events so far, at most ``seconds``.

        Returns whether it was.
        """
        if self._queue.empty() and not self._busy.locked():
            return True
        done = threading.Event()
        self._queue.put((copy_context(), done))
        self._start()
        return done.wait(seconds)

    def close(self) -> None:
        """End the subscription; what has happened by now is still delivered."""
        self.on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _say(message: str) -> None:
    """Warn from the thread of a subscription, which must not end by it."""
    try:
        caution(message)
    except Exception as error:  # noqa: BLE001  # the program shows warnings in its own way
        logging.getLogger("ratelimit").warning("%s (%s)", message, type(error).__name__)


def _shown(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001  # the program's own classes
        return type(error).__name__


class Hooks:
    """The subscriptions of one limiter."""

    __slots__ = ("_kept", "_lock", "on_change", "per_call", "subscriptions")

    def __init__(self, *subscriptions: Subscription) -> None:
        self.subscriptions = subscriptions
        self._kept = dict.fromkeys(subscriptions)
        self.on_change: Callable[[], object] = bool
        """Called when there are other subscriptions."""
        self.per_call = False
        """Whether anybody wants events that every call makes: else it makes none."""
        # Reentrant: a signal handler that interrupts the holder may come in.
        self._lock = threading.RLock()

    def subscribe(self, hook: Hook, kinds: tuple[type[Event], ...]) -> Subscription:
        """Return the subscription of a hook; of one that has one already, that.

        Raises `InvalidArgument` for what cannot be called and for kinds that are none.
        """
        if not callable(hook):
            raise InvalidArgument(
                f"subscribe() takes a function of one event, not {type(hook).__name__!r}"
            )
        if any(
            is_other(function) for is_other in _NO_PLAIN for function in (hook, type(hook).__call__)
        ):
            raise InvalidArgument(
                "subscribe() takes a plain function, which a thread calls: an async one, or a "
                "generator, would never run. Let it put events into a queue of yours"
            )
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise InvalidArgument(
                    "after the function come kinds of events, such as ratelimit.events.Refused, "
                    f"not {type(kind).__name__!r}"
                )
        with self._lock:
            for known in self.subscriptions:
                if known.hook == hook:
                    break
            else:
                made = Subscription(hook, kinds)
                made.on_close = self._close
                self._kept[made] = None
                self._show()
                return made
        caution(
            "this function is subscribed to the limiter already and gets each event once; "
            "close() its subscription first to change the kinds of events",
            stacklevel=4,
        )
        return known

    def _close(self, subscription: Subscription) -> None:
        with self._lock:
            self._kept.pop(subscription, None)
            self._show()

    def _show(self) -> None:
        """Show what is kept, also what a signal handler has changed meanwhile."""
        kept: tuple[Subscription, ...] | None = None
        while kept != tuple(self._kept):
            self.subscriptions = kept = tuple(self._kept)
            self.per_call = self.wants(Admission, "") or self.wants(Settled, "")
            self.on_change()

    def wants(self, kind: type[Event], family: str) -> bool:
        """Return whether anybody has a use for events of this kind now."""
        return any(one.wants(kind, family) for one in self.subscriptions)

    def put(self, event: Event) -> None:
        """Have each hook called that wants the event. Never blocks or raises."""
        for one in self.subscriptions:
            if one.wants(type(event), event.family):
                one.put(event)

    def reset_after_fork(self) -> None:
        """Take a new lock: the holder of the old one belongs to the parent process."""
        self._lock = threading.RLock()


def flush(seconds: float = LAST_SECONDS) -> bool:
    """Wait until all hooks were called with all events so far, at most ``seconds``.

    Returns whether they were.
    """
    until = time.monotonic() + seconds
    done = [one.flush(max(until - time.monotonic(), 0.0)) for one in _all()]
    return all(done)


def _all() -> list[Subscription]:
    """Return all subscriptions, also while other threads make some."""
    return [one for ref in _living.keyrefs() if (one := ref()) is not None]


def _reset_after_fork() -> None:
    for subscription in _all():
        subscription._renew()  # noqa: SLF001  # of this file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(flush)
