"""What the standard library's `logging` is given of the events.

Owns the sentences, their levels, and how often they are written. Must never hold more
than the records do: no key, no prompt, no text of a server.

The logger is "ratelimit.events", so that the level of "ratelimit" decides:

* WARNING: every 429, by itself or, within `QUIET_SECONDS` of the last line of its
  family, as a number in the next one; final ones likewise, by themselves.
* INFO: limits that were learned or changed, conclusions about the server, the end of a
  series of 429s, estimates that are guesses, and once a family that a call waits for
  longer than `LONG_WAIT`, as soon as that is known.
* DEBUG: every wait and its end.

A library does not decide where its log goes. Until the program says so (by
`logging.basicConfig(level="INFO")`, say) these lines go nowhere, because a 429 is in
the statistics and in the SDK's error as well.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Final

from ratelimit.events.delivery import Subscription
from ratelimit.events.records import (
    Concluded,
    Degraded,
    Event,
    LimitsChanged,
    Recovered,
    Refused,
    StoreBack,
    StoreLost,
    Waited,
    Waiting,
)
from ratelimit.events.sentences import about, concluded, refused, when

LONG_WAIT: Final = 5.0
"""Seconds from which a wait is worth a line at INFO."""
QUIET_SECONDS: Final = 10.0
"""Seconds between two lines about 429s of one family that end by waiting, and between
two about its final ones.
"""
MOST_REFUSED: Final = 100
"""Families with lines of their own about 429s within `QUIET_SECONDS`; further ones
share one.
"""
MOST_WATCHED: Final = 10_000
"""Waits without a predicted long end that are looked at again: a tenth of what the
calls that wait hold themselves.
"""
MOST_FAMILIES: Final = 1_000
"""Families for which it is remembered that a long wait was said."""

logger: Final = logging.getLogger("ratelimit.events")
logger.addHandler(logging.NullHandler())


class Log(Subscription):
    """The subscription that every limiter begins with.

    :param now: real time, in seconds: a wait without a predicted end is looked at again
        after `LONG_WAIT`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self.write)
        self._now = now
        self._long: set[str] = set()
        self._quiet: dict[tuple[str, bool], tuple[float, int]] = {}

    def _renew(self) -> None:
        super()._renew()
        self._watched: OrderedDict[int, tuple[float, Waiting]] = OrderedDict()
        """Waits, by call, that are looked at again at a moment; the next one first."""

    def wants(self, kind: type[Event], family: str) -> bool:
        """Return whether a line about an event of this kind would be written."""
        if kind in {Refused, StoreLost}:
            return logger.isEnabledFor(logging.WARNING)
        if kind is Waiting or kind is Waited:
            once = family not in self._long and len(self._long) < MOST_FAMILIES
            return logger.isEnabledFor(logging.INFO if once else logging.DEBUG)
        if kind in {LimitsChanged, Concluded, Recovered, Degraded, StoreBack}:
            return logger.isEnabledFor(logging.INFO)
        return False

    def write(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        match event:
            case Refused():
                self._refused(event)
            case Recovered():
                logger.info(
                    "family %s: calls are answered again, %.1f s after the first refusal (%d 429s)",
                    event.family,
                    event.seconds,
                    event.refusals,
                )
            case LimitsChanged():
                known = "changed to" if len(event.before) else "learned:"
                logger.info(
                    "family %s: limits %s %s (by: %s)",
                    event.family,
                    known,
                    event.after,
                    event.source,
                )
            case Concluded():
                logger.info("family %s: %s", event.family, concluded(event))
            case Degraded():
                logger.info("%s", event.reason)
            case StoreLost():
                logger.warning(
                    "family %s: the shared store is lost: %s", event.family, event.reason
                )
            case StoreBack():
                logger.info(
                    "family %s: the shared store is back, after %.1f s", event.family, event.seconds
                )
            case Waiting():
                self._waiting(event)
            case Waited():
                self._waited(event)
            case _:
                pass

    def _waiting(self, event: Waiting) -> None:
        level = logging.DEBUG
        if event.predicted is None or event.predicted < LONG_WAIT:
            if event.family not in self._long and len(self._watched) < MOST_WATCHED:
                self._watched[event.call] = self._now() + LONG_WAIT, event
        elif self._is_first(event):
            level = logging.INFO
        self._write_waiting(level, event, "waits")

    def _write_waiting(self, level: int, event: Waiting, does: str) -> None:
        logger.log(
            level,
            "family %s: a call%s %s at position %d: %s; %s",
            event.family,
            f" of {event.model}" if event.model else "",
            does,
            event.position,
            about(event.reason, event.limit, event.needs, event.level, event.amount),
            when(event.predicted),
        )

    def due(self) -> float | None:
        """Return in how many seconds the first watched wait has become a long one."""
        for moment, _ in self._watched.values():
            return max(moment - self._now(), 0.0)
        return None

    def tick(self) -> None:
        """Say that a call still waits."""
        now = self._now()
        while self._watched:
            call, (moment, event) = next(iter(self._watched.items()))
            if moment > now:
                return
            del self._watched[call]
            if self._is_first(event):
                self._write_waiting(logging.INFO, event, f"has waited for {LONG_WAIT:g} s")

    def _waited(self, event: Waited) -> None:
        self._watched.pop(event.call, None)
        level = logging.DEBUG
        if event.seconds >= LONG_WAIT and self._is_first(event):
            level = logging.INFO
        logger.log(
            level,
            "family %s: a call%s was %s after %.1f s of waiting",
            event.family,
            f" of {event.model}" if event.model else "",
            event.outcome.replace("_", " "),
            event.seconds,
        )

    def _is_first(self, event: Event) -> bool:
        """Return whether it is the first long wait of its family."""
        if event.family in self._long or len(self._long) >= MOST_FAMILIES:
            return False
        self._long.add(event.family)
        return True

    def _refused(self, event: Refused) -> None:
        key = event.family, event.final
        if key not in self._quiet and len(self._quiet) >= MOST_REFUSED:
            key = self._make_room(event)
        last, more = self._quiet.get(key, (-inf, 0))
        if 0 <= event.at - last < QUIET_SECONDS:
            self._quiet[key] = last, more + 1
            return
        self._quiet[key] = event.at, 0
        since = f" ({more} more since the last line)" if more else ""
        logger.warning("%s%s", refused(event), since)

    def _make_room(self, event: Refused) -> tuple[str, bool]:
        """Drop what is quiet no longer, and return the key of a family that is new.

        What was dropped and not written yet is counted with it.
        """
        over = [key for key, (last, _) in self._quiet.items() if event.at - last >= QUIET_SECONDS]
        if not over:
            return "", event.final
        key = event.family, event.final
        self._quiet[key] = -inf, sum(self._quiet.pop(one)[1] for one in over)
        return key
