"""Times as servers write them: durations, moments, and the periods of limits.

Owns the formats of resets and of Retry-After, and how a period is inferred from a
reset. Must never read a clock: a moment is compared with the answer's own Date. Never
raises.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from ratelimit.feedback.untrusted import amount, duration
from ratelimit.limits import DAY, HOUR, MINUTE, MONTH, PERIODS, SECOND

UNITS: Final = {
    **{unit: PERIODS[unit] for unit in ("d", "h", "m", "s")},
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
"""Seconds of the units of Go's durations; both signs for micro are in use."""

KNOWN_PERIODS: Final = (SECOND, 10.0, MINUTE, 300.0, HOUR, DAY, 7 * DAY, MONTH)
"""The periods that servers are known to use, in seconds."""

_TWO_OFF: Final = 150_000_000
"""Limits from which on `remaining` was recorded up to two units off, not one."""

EPOCH: Final = 1e9
"""A plain number from here on is a Unix time, in seconds (2001 and later)."""

EPOCH_MS: Final = 1e11
"""A plain number from here on is a Unix time in milliseconds."""

_LATE: Final = 2.0
"""Seconds by which a moment may seem further away than it is."""

_PART: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(ms|us|µs|μs|ns|d|h|m|s)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST_TEXT: Final = 64


def parse_duration(text: str) -> float | None:
    """Read a duration in seconds.

    Go's form (`6m0s`, `12ms`, `1h8m25.745s`), or a plain number of seconds (`30`,
    `26.5`). None when it is neither, negative, or longer than `LONGEST`.
    """
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        return None

    if _WHOLE.fullmatch(text):
        return duration(sum(float(figure) * UNITS[unit] for figure, unit in _PART.findall(text)))

    return duration(text)


def seconds_until(moment: str, date: str) -> float | None:
    """Return the seconds from the answer's Date to a moment; 0 when it has passed.

    None when either cannot be read, or the moment is further away than `LONGEST`.

    :param moment: an HTTP date, an RFC 3339 date, or a Unix time in seconds
        (DigitalOcean, slowapi) or milliseconds (OpenRouter).
    :param date: the Date header.
    """
    then, now = _moment(moment.strip()), _moment(date.strip())
    if then is None or now is None:
        return None

    return duration(max((then - now).total_seconds(), 0.0))


def infer_period(limit: float, remaining: float, reset: float) -> float | None:
    """Infer the period in seconds: `reset = (limit - remaining) * period / limit`.

    Servers with buckets that refill all the time truncate that to milliseconds. The
    result is one of `KNOWN_PERIODS`, or None when none fits or more than one does (a
    full bucket, or one with a reset below 1 ms). `remaining` is cut to whole units
    while `reset` comes from the true level, so up to one unit less may be used than
    shows (5-50 % of the recorded token headers, requests too: 10000, 9997 left,
    22.564s), though never less than one: the headers are written when this request has
    just been paid. At limits of 150 million and more it is two units either way.
    """
    used = limit - remaining
    if not (used >= 1 and limit >= 1 and reset >= 0):
        return None

    fitting = _fitting(limit, max(used - 1, 1.0), used, reset)
    if fitting is None and used > 20 and limit >= _TWO_OFF:
        fitting = _fitting(limit, used - 2, used + 2, reset)
    return fitting


def least_period(reset: float) -> float | None:
    """Return the shortest known period above a minute that is no shorter than a reset.

    None when a minute would do, or when the reset is longer than all. slowapi adds a
    second to each moment, and a Date is cut to seconds.
    """
    reset -= _LATE
    if reset <= MINUTE:
        return None
    return next((period for period in KNOWN_PERIODS[4:] if period >= reset), None)


def _moment(text: str) -> datetime | None:
    """Read a moment; one without a zone is taken as UTC."""
    if not text or len(text) > _LONGEST_TEXT:
        return None

    try:
        stamp = amount(text)
        if stamp is not None:
            if stamp < EPOCH:
                return None
            return datetime.fromtimestamp(stamp / 1_000 if stamp >= EPOCH_MS else stamp, UTC)
        found = datetime.fromisoformat(text) if text[0].isdigit() else parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None

    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _fitting(limit: float, least: float, most: float, reset: float) -> float | None:
    """Return the one known period that fits, None when none or several do.

    :param least, most: what is used, at least and at most, in the limit's unit.
    :param reset: seconds, cut to milliseconds.
    """
    first = bisect_left(KNOWN_PERIODS, (reset - 1e-6) * limit / most)
    past = bisect_right(KNOWN_PERIODS, (reset + 0.001) * limit / least)
    return KNOWN_PERIODS[first] if past - first == 1 else None
