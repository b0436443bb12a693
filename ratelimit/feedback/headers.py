"""What the rate-limit headers of one answer say: how large each limit is, what is left
of it, over which period.

Owns: the names and the formats of every provider's headers, and how a period is told
from a reset. Must never come in: I/O, clocks (a moment in a header is compared with the
answer's own Date), or a decision. Never raises: a header that is absent, negative,
absurd or contradicts itself becomes None or no reading at all.

The forms, and who sends them:

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}          OpenAI, Azure, Groq, and most that imitate them
    ...-{project-requests,project-tokens,input-images}             OpenAI since 2025/26
    ...-{tokens,requests,req}-{second,minute,5-minute,hour,day,month}   Cerebras, Mistral: the name tells the period
    x-ratelimit-renewalperiod-{requests,tokens}                    Azure, GitHub Models: seconds
    x-ratelimitbysize-{limit,remaining,reset}-{minute,month}, ratelimitbysize-{limit,remaining,reset}   Mistral, older: tokens
    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}            per minute, resets are dates

Source: 14,941 recorded header observations of api.openai.com, 2023-04 to 2026-08;
providers' pages and recorded answers for the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from ratelimit.feedback.untrusted import amount, finite, text

MINUTE, DAY = 60.0, 86_400.0
PERIODS = (1.0, 10.0, MINUTE, 300.0, 3_600.0, DAY, 7 * DAY, 30 * DAY)
"""The periods servers are known to use, in seconds. A monthly limit drips over 30 days
(100,000 tokens a month: 25.92 s a token).
"""

_UNITS = {
    "d": DAY,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|us|µs|μs|ns|d|h|m|s)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_ENDINGS = {
    "second": 1.0,
    "minute": MINUTE,
    "5-minute": 300.0,
    "hour": 3_600.0,
    "day": DAY,
    "month": 30 * DAY,
}
_NAME = re.compile(
    r"x-ratelimit-(?P<field>limit|remaining|reset|renewalperiod)-(?P<name>[a-z_-]+?)(?:-(?P<per>second|minute|5-minute|hour|day|month))?"
)
_BY_SIZE = re.compile(
    r"(?:x-)?ratelimitbysize-(?P<field>limit|remaining|reset)(?:-(?P<per>minute|month))?"
)
_ANTHROPIC = re.compile(
    r"anthropic-ratelimit-(?P<name>requests|tokens|input-tokens|output-tokens)-(?P<field>limit|remaining|reset)"
)


class Reading(NamedTuple):
    """One limit as the server shows it.

    `name`: what is counted: "requests", "tokens", "project_tokens", "project_requests",
    "input_images", "input_tokens", ...; names not listed here come as the server spells
    them, with "_" for "-". `limit`: amount per period. `remaining`: amount left,
    between 0 and `limit`. `reset`: seconds until the bucket is full (a window server:
    until the window ends). `period`: seconds. `drips`: the reset is written with units,
    as servers whose buckets refill all the time do; plain numbers are the end of a
    window. Each of the figures is None where the server did not say, or said nonsense.
    """

    name: str
    limit: float | None
    remaining: float | None
    reset: float | None
    period: float | None
    drips: bool = False


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> float | None:
    """Read a duration in seconds: Go's form (`6m0s`, `12ms`, `1h8m25.745s`) or a plain
    number of seconds (`30`, `26.5`).

    None when it is neither, or negative, or not finite.
    """
    if len(text) > 64:
        return None
    text = text.strip()
    if _WHOLE.fullmatch(text):
        seconds = sum(float(figure) * _UNITS[unit] for figure, unit in _PART.findall(text))
        return seconds if finite(seconds) else None
    plain = amount(text)
    return plain if plain is not None and finite(plain) else None


def infer_period(limit: float, remaining: float, reset: float) -> float | None:
    """Tell the period from `reset = (limit - remaining) * period / limit`, which
    servers that drip truncate to milliseconds.

    Returns one of `PERIODS`, or None when none fits or more than one does (a full
    bucket, or one whose reset is below 1 ms). `remaining` is cut to whole units while
    `reset` comes from the true level, so up to one unit less may be used than shows
    (5-50 % of the recorded token headers, requests too: 10000, 9997 left, 22.564s),
    though never less than one: the headers are written when this request has just been
    paid. Where limits are 150 million and more, two units either way.
    """
    used = limit - remaining
    if not (used >= 1 and limit >= 1 and reset >= 0):
        return None
    fitting = _fitting(limit, max(used - 1, 1.0), used, reset)
    if fitting is None and used > 20 and limit >= 150_000_000:
        fitting = _fitting(limit, used - 2, used + 2, reset)
    return fitting


def read_headers(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> list[Reading]:
    """Read every limit that an answer's headers show, in the order in which they come;
    names in any case, str or bytes.
    """
    if not headers:
        return []
    pairs: Iterable[object] = (
        headers.items()
        if isinstance(headers, Mapping)
        else headers
        if isinstance(headers, Iterable)
        else ()
    )
    sound = [
        pair
        for pair in pairs
        if pair.__class__ is tuple and len(pair) == 2 and pair[0].__class__ in _NAMES
    ]
    date, groq, groups = _plan(tuple(map(_name_of, sound)))  # type: ignore[arg-type]
    spoken_on = text(sound[date][1], 64) if date is not None else ""  # type: ignore[index]
    readings = []
    for (name, period), places in groups:
        said = [None if place is None else text(sound[place][1], 64) for place in places]  # type: ignore[index]
        reading = _reading(name, period, said, spoken_on, groq)
        if reading is not None:
            readings.append(reading)
    return readings


_Group = tuple[tuple[str, float | None], tuple[int | None, ...]]
_FIELDS = "limit", "remaining", "reset", "renewalperiod"
_NAMES = {str, bytes}
_name_of = itemgetter(0)


@lru_cache(maxsize=256)
def _plan(names: tuple[str | bytes, ...]) -> tuple[int | None, bool, tuple[_Group, ...]]:
    """Tell where things stand in a list of headers: its Date, whether it is Groq's, and
    each limit's fields, as in `_FIELDS`.

    A server sends the same names in the same order with every answer, so this is worked
    out once for many.
    """
    date, groq = None, False
    groups: dict[tuple[str, float | None], dict[str, int]] = {}
    for place, header in enumerate(names):
        slot = _slot(header)
        if slot is None:
            continue
        field, name, period = slot
        if field == "date":
            date = place
        elif field == "groq":
            groq = True
        else:
            groups.setdefault((name, period), {})[field] = place
    return (
        date,
        groq,
        tuple(
            [
                (group, tuple([places.get(field) for field in _FIELDS]))
                for group, places in groups.items()
            ]
        ),
    )


def _slot(header: str | bytes) -> tuple[str, str, float | None] | None:
    """Tell (field, name, period) of a header's name; None for headers that are not
    ours.
    """
    name = text(header, 128).lower()
    if name == "date":
        return "date", "", None
    if name == "x-groq-region":
        return "groq", "", None
    if match := _NAME.fullmatch(name):
        counted = match["name"].replace("-", "_")
        return (
            match["field"],
            "requests" if counted == "req" else counted,
            _ENDINGS.get(match["per"] or ""),
        )
    if match := _BY_SIZE.fullmatch(name):
        return match["field"], "tokens", _ENDINGS.get(match["per"] or "")
    if match := _ANTHROPIC.fullmatch(name):
        return match["field"], match["name"].replace("-", "_"), MINUTE
    return None


def _reading(
    name: str, period: float | None, said: list[str | None], date: str, groq: bool
) -> Reading | None:
    limit = amount(said[0])
    remaining = amount(said[1])
    # Azure sends 0 and -1 for "no figure"; nothing that is counted has a limit below
    # one
    if limit is not None and limit < 1:
        limit = None
    if limit is not None and remaining is not None and remaining > limit:
        remaining = None  # one of the two lies; the limit is what is stable
    if limit is None and remaining is None:
        return None
    spoken = said[2] or ""
    reset = parse_duration(spoken)
    if reset is None and "T" in spoken and date:
        reset = _until(spoken, date)
    if period is None and said[3]:
        period = _renewal(said[3])
    drips = reset is not None and spoken.endswith("s")
    if (
        period is None
        and drips
        and limit is not None
        and remaining is not None
        and reset is not None
    ):
        period = infer_period(limit, remaining, reset)
    if period is None and groq and name == "requests":
        # Groq's -requests headers are documented as requests per day, its -tokens as
        # per minute
        period = DAY
    return Reading(name, limit, remaining, reset, period, drips)


def _renewal(said: str) -> float | None:
    """Read Azure's renewal period, in seconds.

    A shorter one than a minute is how often it checks, not what the limit is quoted
    over: 9,000 requests with renewalperiod 10 stand beside 1,500,000 tokens a minute,
    which is Azure's 6 requests a minute per 1,000 tokens.
    """
    seconds = amount(said)
    return max(seconds, MINUTE) if seconds and finite(seconds) else None


def _fitting(limit: float, least: float, most: float, reset: float) -> float | None:
    """Tell the one known period that fits when between `least` and `most` is used and
    `reset` was cut to milliseconds.
    """
    first = bisect_left(PERIODS, (reset - 1e-6) * limit / most)
    past = bisect_right(PERIODS, (reset + 0.001) * limit / least)
    return PERIODS[first] if past - first == 1 else None


def _until(moment: str, date: str) -> float | None:
    """Seconds from the answer's Date to an RFC 3339 moment, 0 when it has passed; None
    when either cannot be read.
    """
    try:
        seconds = (datetime.fromisoformat(moment) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: one of the two names no zone
        return None
    return max(seconds, 0.0) if finite(max(seconds, 0.0)) else None
