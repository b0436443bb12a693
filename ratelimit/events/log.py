"""What the standard library's `logging` is given of the events.

Owns the sentences, their levels, and how often they are written. Must never hold more
than the records do: no key, no prompt, no text of a server.

The logger is "ratelimit.events", so that the level of "ratelimit" decides:

* WARNING: every 429, by itself or, within `QUIET_SECONDS` of the last line of its
  family, as a number in the next one; and what degraded.
* INFO: limits that were learned or changed, conclusions about the server, the end of a
  series of 429s, and once a family that a call waits for longer than `LONG_WAIT`.
* DEBUG: every wait and its end.

A library does not decide where its log goes. Until the program says so (by
`logging.basicConfig(level="INFO")`, say) these lines go nowhere, because a 429 is in
the statistics and in the SDK's error as well.
"""

from __future__ import annotations

import logging
from typing import Final

from ratelimit.events.delivery import Subscription
from ratelimit.events.records import (
    Concluded,
    Degraded,
    Event,
    LimitsChanged,
    Recovered,
    Refused,
    Waited,
    Waiting,
)
from ratelimit.limits import whole

LONG_WAIT: Final = 5.0
"""Seconds from which a wait is worth a line at INFO."""
QUIET_SECONDS: Final = 10.0
"""Seconds between two lines about 429s of one family."""
MOST_FAMILIES: Final = 1_000
"""Families for which it is remembered when a line was written."""

logger: Final = logging.getLogger("ratelimit.events")
logger.addHandler(logging.NullHandler())

_REASONS: Final = {
    "limit": "the limit is used up",
    "pause": "the server has refused a call, and all of them wait",
    "concurrency": "as many calls are in flight as may be",
    "first_answer": "the first call goes alone, to show how full the server's buckets are",
    "queue": "calls in front of it wait",
}


def refused(event: Refused) -> str:
    """Return the sentence about a refusal: what happened, and what to do."""
    what = "the server lacks capacity" if event.overloaded else "429: the server refused a call"
    if event.model:
        what += f" of {event.model}"
    if event.limit:
        what += f" for {event.limit}"
    if event.code:
        what += f" ({event.code})"
    said = []
    if event.server_limit is not None:
        said.append(f"limit {whole(event.server_limit)}")
    if event.server_used is not None:
        said.append(f"used {whole(event.server_used)}")
    if event.server_wait is not None:
        said.append(f"try again in {event.server_wait:,.1f} s")
    parts = [what, f"it says: {', '.join(said) or 'nothing more'}"]
    if event.believed_limit is not None and event.believed_level is not None:
        level, limit = whole(round(event.believed_level)), whole(event.believed_limit)
        parts.append(f"level here: {level} of {limit}")
    parts.append(f"{event.in_flight} in flight, {event.waiting} waiting")
    if not event.final:
        parts.append(f"family {event.family} goes on in {event.pause:,.1f} s")
    return "; ".join(parts) + (f". {event.remedy}" if event.remedy else "")


class Log(Subscription):
    """The subscription that every limiter begins with."""

    def __init__(self) -> None:
        super().__init__(self.write)
        self._long: set[str] = set()
        self._quiet: dict[str, tuple[float, int]] = {}

    def wants(self, kind: type[Event], family: str) -> bool:
        """Return whether a line about an event of this kind would be written."""
        if kind is Refused or kind is Degraded:
            return logger.isEnabledFor(logging.WARNING)
        if kind is Waiting or kind is Waited:
            once = family not in self._long and logger.isEnabledFor(logging.INFO)
            return once or logger.isEnabledFor(logging.DEBUG)
        if kind is LimitsChanged or kind is Concluded or kind is Recovered:
            return logger.isEnabledFor(logging.INFO)
        return False

    def write(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        match event:
            case Refused():
                self._refused(event)
            case Degraded():
                logger.warning("%s: %s", event.what, event.reason)
            case _:
                pass

    def _refused(self, event: Refused) -> None:
        last, more = self._quiet.get(event.family, (-QUIET_SECONDS, 0))
        if 0 <= event.at - last < QUIET_SECONDS and not event.final:
            self._quiet[event.family] = last, more + 1
            return
        if len(self._quiet) >= MOST_FAMILIES:
            self._quiet.clear()
        self._quiet[event.family] = event.at, 0
        since = f" ({more} more since the last line)" if more else ""
        logger.warning("%s%s", refused(event), since)
