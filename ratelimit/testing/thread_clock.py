"""Virtual time for threads.

Owns the moments at which threads are parked, and the jump from one to the next. Must
never touch event loops, limits or servers.

The jump is safe because it happens only once every thread that the clock has started is
parked and none of them has been woken.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from math import inf, nextafter
from typing import Any

from ratelimit.admission.clock import Clock, Flag

__all__ = ["Deadlock", "ThreadClock"]


class Deadlock(Exception):
    """Every thread of a virtual clock waits, and none of them for a moment."""


class ThreadClock(Clock):
    """Virtual time for threads, and for the limiter: pass it as ``clock=``.

    It jumps to the earliest moment waited for once every thread that `run` or `start`
    began is parked. Only `park` and `sleep` count as waiting; a thread that blocks in
    any other way counts as busy, and time stands still until it goes on.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lock = threading.RLock()
        self._parked: dict[Flag, float] = {}
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._stuck = False
        self.now = self._now

    def _now(self) -> float:
        return self._seconds

    def park(self, flag: Flag, seconds: float | None) -> None:
        """Block the calling thread until ``flag`` is set or ``seconds`` have passed.

        The seconds are of this clock, and None is without end. The flag is set
        afterwards in either case. Raises `Deadlock` in every thread when all of them
        wait and none of them for a moment.
        """
        try:
            with self._lock:
                self._parked[flag] = inf if seconds is None else self._after(seconds)
                self._jump_if_idle()

            flag.wait()
        finally:  # also after an interruption: no jump goes to the moment of a lost wait
            with self._lock:
                self._parked.pop(flag, None)

        with self._lock:
            if self._stuck:
                # The last thread to leave the deadlock ends it.
                self._stuck = bool(self._parked)
                raise Deadlock(
                    "every thread of this clock waits, none of them for a moment, and no thread "
                    "is left to wake them: let one of them sleep, or wait with a timeout"
                )

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait for ``seconds`` of this time."""
        until = self._seconds + seconds
        while self._seconds < until:
            self.park(Flag(), until - self._seconds)

    def start(self, function: Callable[..., object], *args: Any) -> None:
        """Start ``function(*args)`` in a thread of this clock.

        `run` waits for its end and raises what it raised.
        """
        context = contextvars.copy_context()
        thread = threading.Thread(target=self._live, args=(context, function, args), daemon=True)
        with self._lock:
            self._running += 1
            self._threads.append(thread)

        thread.start()

    def run(self, *functions: Callable[[], object]) -> None:
        """Run each function in a thread of its own until all have ended.

        Threads that they `start` are waited for too. Raises the first error of any.
        """
        with self._lock:
            self._running += 1  # time stands still until all have begun

        for function in functions:
            self.start(function)

        with self._lock:
            self._running -= 1
            self._jump_if_idle()

        while self._threads:
            self._threads.pop().join()

        errors, self._errors, self._stuck = self._errors, [], False
        if errors:
            raise errors[0]

    def _live(
        self, context: contextvars.Context, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        try:
            context.run(function, *args)
        except BaseException as error:  # noqa: BLE001  # `run` raises it
            self._errors.append(error)
        finally:
            with self._lock:
                self._running -= 1
                self._jump_if_idle()

    def _after(self, seconds: float) -> float:
        """Return the moment after ``seconds``, never the present one."""
        return max(self._seconds + seconds, nextafter(self._seconds, inf))

    def _jump_if_idle(self) -> None:
        """Go to the next moment if every thread is parked.

        A thread is awake once its flag is set, though it has not run yet.
        """
        if not self._parked or len(self._parked) < self._running:
            return

        if any(flag.is_set() for flag in self._parked):
            return

        moment = min(self._parked.values())
        self._stuck = moment == inf
        if not self._stuck:
            self._seconds = moment

        for flag, deadline in self._parked.items():
            if deadline <= moment:
                flag.set()
