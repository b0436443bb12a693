"""What the rate-limit headers of one answer say of each limit.

Owns the names and formats of every provider's headers. Must never do I/O, read a clock
(a moment in a header is compared with the answer's own Date) or decide anything. Never
raises: a header that is absent, negative, absurd or contradicts itself becomes None or
no reading at all.

Source: 14,941 recorded header observations of api.openai.com, 2023-04 to 2026-08;
providers' pages and recorded answers for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from ratelimit.feedback.ietf import FIELDS as IETF
from ratelimit.feedback.ietf import read_windows
from ratelimit.feedback.times import infer_period, least_period, parse_duration, seconds_until
from ratelimit.feedback.untrusted import amount, duration, pairs, text
from ratelimit.limits import DAY, MINUTE, PERIODS, SECOND

COUNTED: Final[Mapping[str, str]] = {
    "requests": "requests",
    "req": "requests",
    "tokens": "tokens",
    "tokens_usage_based": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "images": "images",
    "input-images": "input_images",
    "project-requests": "project_requests",
    "project-tokens": "project_tokens",
}
"""What is counted, as headers and refusals spell it, and as `Reading.name` does."""


class Reading(NamedTuple):
    """One limit as the server shows it; a figure that it does not show is None."""

    name: str
    """What is counted, one of the values of `COUNTED`."""
    limit: float | None
    """Amount per period, at least 1."""
    remaining: float | None
    """Amount left, between 0 and `limit`."""
    reset: float | None
    """Seconds until the bucket is full; of a window server, until the window ends."""
    period: float | None
    """Seconds."""
    drips: bool = False
    """Whether the reset is written with units, as by servers with buckets that refill
    all the time; a plain number is the end of a window.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """How one kind of server names its headers."""

    names: re.Pattern[str]
    """Matches a header. Its group `field` is limit, remaining, reset or renewalperiod;
    its groups `name` and `per`, if any, tell what is counted over which period.
    """
    counted: Mapping[str, str]
    """`Reading.name` by what the group `name` holds, "" where there is no such group; a
    header that counts anything else is ignored.
    """
    period: float | None = None
    """Seconds, where the header's name does not tell it."""


_FIELD = r"(?P<field>limit|remaining|reset)"
_TOGETHER: Final = Dialect(re.compile(rf"x-tokenlimit-{_FIELD}"), {"": "tokens"}, SECOND)
_UNNAMED: Final = Dialect(re.compile(rf"x-ratelimit-{_FIELD}"), {"": "requests"})
_DIALECTS: Final = (
    # OpenAI, Groq, xAI and most that imitate them. With a period at the end: Cerebras,
    # Mistral, DigitalOcean ("-per-minute"). With a renewalperiod: Azure, GitHub Models.
    # Azure also sends "x-rate-limit-reset-tokens" alone.
    Dialect(
        re.compile(
            r"x-rate-?limit-(?P<field>limit|remaining|reset|renewalperiod)-(?P<name>[a-z_-]+?)"
            r"(?:-(?:per-)?(?P<per>second|minute|5-minute|hour|day|month))?"
        ),
        COUNTED,
    ),
    # Fireworks
    Dialect(
        re.compile(rf"x-ratelimit-{_FIELD}-tokens-(?P<name>prompt|generated)"),
        {"prompt": "input_tokens", "generated": "output_tokens"},
        MINUTE,
    ),
    # Mistral, older
    Dialect(
        re.compile(rf"(?:x-)?ratelimitbysize-{_FIELD}(?:-(?P<per>minute|month))?"),
        {"": "tokens"},
    ),
    # Anthropic; its resets are dates
    Dialect(re.compile(rf"anthropic-ratelimit-(?P<name>[a-z-]+)-{_FIELD}"), COUNTED, MINUTE),
    _TOGETHER,
    # Together's requests, slowapi, OpenRouter
    _UNNAMED,
)
_LONGEST_NAME: Final = 128


class _Place(NamedTuple):
    """Where a header's value belongs."""

    dialect: Dialect
    name: str
    period: float | None
    field: str


def header_values(headers: object, *names: str) -> dict[str, str]:
    """Return the values of these headers by their lower-case names.

    The values of a name that comes more than once are joined by commas, as HTTP has it;
    a header that is absent is "".

    :param headers: a mapping or pairs; names in any case, str or bytes.
    """
    found = dict.fromkeys(names, "")
    for header, value in pairs(headers):
        name = _lower(header) if isinstance(header, (str, bytes)) else ""
        if name in found:
            spoken = text(value).strip()
            found[name] = f"{found[name]}, {spoken}" if found[name] else spoken
    return found


def read_headers(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> list[Reading]:
    """Read every limit that an answer's headers show, in the order in which they come.

    :param headers: a mapping or pairs; names in any case, str or bytes.
    """
    known = pairs(headers)
    groups: dict[_Place, dict[str, str]] = {}
    for header, value in known:
        place = _place_of(header) if isinstance(header, (str, bytes)) else None
        if place is not None:
            group = place._replace(field="")
            groups.setdefault(group, {})[place.field] = text(value, 64)

    others = header_values(known, "date", "x-groq-region", *IETF)
    together = any(place.dialect is _TOGETHER for place in groups)
    found: list[Reading | None] = []
    for place, fields in groups.items():
        period = place.period
        if place.dialect is _UNNAMED and together:
            period = SECOND
        reading = _reading(place.name, period, fields, others["date"])
        if reading and reading.name == "requests" and others["x-groq-region"]:
            # Groq documents its -requests headers as per day
            reading = reading._replace(period=reading.period or DAY)
        found.append(reading)

    windows = read_windows(*[others[name] for name in IETF])
    found.extend(_checked(Reading("requests", *window)) for window in windows)
    return [reading for reading in found if reading is not None]


@lru_cache(maxsize=512)
def _lower(header: str | bytes) -> str:
    """Return a header's name in lower case.

    A server sends the same names with every answer: benchmarks/transport.py, row
    "wrapped", shows what the two caches save.
    """
    return text(header, _LONGEST_NAME).lower()


@lru_cache(maxsize=512)
def _place_of(header: str | bytes) -> _Place | None:
    """Return where a header's value belongs; None for headers that show no limit."""
    name = _lower(header)
    for dialect in _DIALECTS:
        match = dialect.names.fullmatch(name)
        if match is None:
            continue

        groups = match.groupdict()
        counted = dialect.counted.get(groups.get("name") or "")
        if counted is not None:
            per = groups.get("per")
            period = 300.0 if per == "5-minute" else PERIODS[per] if per else dialect.period
            return _Place(dialect, counted, period, groups["field"])
    return None


def _reading(
    name: str, period: float | None, fields: Mapping[str, str], date: str
) -> Reading | None:
    """Make the reading of one limit out of its headers."""
    limit, remaining = amount(fields.get("limit")), amount(fields.get("remaining"))
    written = fields.get("reset", "").strip()
    reset = parse_duration(written)
    drips = reset is not None and written.endswith("s")
    if reset is None:
        reset = seconds_until(written, date)
        if reset is not None and period is None:
            # only of a moment is the unit beyond doubt
            period = least_period(reset)

    if period is None:
        period = _renewal(fields.get("renewalperiod", ""))
    reading = _checked(Reading(name, limit, remaining, reset, period, drips))
    if reading is None or reading.period is not None or not drips:
        return reading

    if reading.limit is not None and reading.remaining is not None and reset is not None:
        period = infer_period(reading.limit, reading.remaining, reset)
    return reading._replace(period=period)


def _checked(reading: Reading) -> Reading | None:
    """Drop the figures that cannot be; return None when none is left."""
    limit, remaining = reading.limit, reading.remaining
    # Azure sends 0 and -1 for "no figure"; nothing that is counted has a limit below 1
    if limit is not None and limit < 1:
        limit = None
    if limit is not None and remaining is not None and remaining > limit:
        remaining = None  # one of the two is wrong; the limit is what is stable
    if limit is None and remaining is None and reading.reset is None:
        return None
    return reading._replace(limit=limit, remaining=remaining)


def _renewal(written: str) -> float | None:
    """Read Azure's renewal period, in seconds.

    A shorter one than a minute is how often it checks, not what the limit is quoted
    over: 9,000 requests with renewalperiod 10 stand beside 1,500,000 tokens a minute,
    which is Azure's 6 requests a minute per 1,000 tokens.
    """
    seconds = duration(written)
    return max(seconds, MINUTE) if seconds else None
