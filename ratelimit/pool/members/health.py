"""When a member is parked, and when it is tried again.

Owns the pauses and the trial. Must never know a request or an answer: it is handed a
`Fault`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import inf
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of failure that parks a member."""

    reason: str
    """In words, behind the member's name."""
    first: float
    """Seconds of the first pause; each further one is twice as long."""
    longest: float
    """Seconds."""
    is_outage: bool = True
    """Whether waiting mends it: a refused key is no outage."""
    may_be_one: bool = False
    """Whether it may be one call's bad luck: after the first pause all calls go again,
    not one trial alone.
    """
    silent: bool = False
    """Whether there was no answer: the next trial comes no sooner than after as long as
    that took.
    """


UNREACHABLE: Final = Fault("could not be reached", 0.5, 4.0, silent=True)
"""A dead member is back at full speed at most `longest` seconds after it answers."""

FAILING: Final = Fault("fails", 0.5, 4.0, may_be_one=True)

SILENT: Final = Fault("does not answer in time", 0.5, 4.0, may_be_one=True, silent=True)

REFUSED_KEY: Final = Fault("refuses its key", 5.0, 60.0, is_outage=False)

NO_CREDIT: Final = Fault("has no credit left", 5.0, 60.0, is_outage=False)

NO_MODEL: Final = Fault("does not serve the model", 5.0, 60.0, is_outage=False)

TRIAL_SECONDS: Final = 30.0
"""Seconds after which a trial that has no answer keeps others back no longer."""

LONGEST_SILENCE: Final = 60.0
"""Seconds that are waited at most because a trial took long to fail."""


class Health:
    """Whether calls may go to a member, or to one model of it.

    All moments are seconds of the pool's clock.
    """

    __slots__ = ("_lock", "_parked_at", "_trial_at", "_until", "fault", "faults")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.faults = 0
        """Failures in a row, those aside that were sent before it was parked."""
        self.fault: Fault | None = None
        """The last of them; None: nothing is wrong."""
        self._until = -inf
        self._parked_at = -inf
        self._trial_at: float | None = None

    def opens(self, now: float) -> float:
        """Return from when on calls may go: past, unless it is parked."""
        fault = self.fault
        if fault is None:
            return -inf
        if now < self._until:
            return self._until
        trial = self._trial_at
        return -inf if trial is None else trial + TRIAL_SECONDS

    def begin(self, now: float) -> None:
        """Take note that a call goes: the first one after a pause is the trial."""
        fault = self.fault
        if fault is not None and not (fault.may_be_one and self.faults == 1):
            self._trial_at = now

    def end(self) -> None:
        """Take note that a call ended without showing anything."""
        self._trial_at = None

    def answered(self, sent_at: float) -> bool:
        """Take note of an answer; return whether that ends a pause.

        An answer to a call that was sent before the member was parked says nothing.
        """
        if self.fault is None or sent_at < self._parked_at:
            return False
        with self._lock:
            self.faults, self.fault, self._trial_at = 0, None, None
            self._until = -inf
        return True

    def failed(self, fault: Fault, sent_at: float, now: float) -> bool:
        """Take note of a failure; return whether that parks the member anew."""
        with self._lock:
            if self.fault is not None and sent_at < self._parked_at:
                return False
            self.faults += 1
            pause = min(fault.first * 2 ** min(self.faults - 1, 30), fault.longest)
            if fault.silent:
                pause += min(now - sent_at, LONGEST_SILENCE)
            self.fault, self._parked_at, self._trial_at = fault, now, None
            self._until = now + pause
        return True
