"""What the rate-limit headers of one answer say of each limit.

Owns the names and formats of every provider's headers. Must never do I/O, read a clock
(a moment in a header is compared with the answer's own Date) or decide anything. Never
raises: a header that is absent, negative, absurd or contradicts itself becomes None or
no reading at all.

Source: 14,941 recorded header observations of api.openai.com, 2023-04 to 2026-08;
providers' pages and recorded answers for the rest.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from ratelimit.feedback.ietf import FIELDS as IETF
from ratelimit.feedback.ietf import Window, read_windows
from ratelimit.feedback.times import infer_period, least_period, parse_duration, seconds_until
from ratelimit.feedback.untrusted import amount, duration, pairs, text
from ratelimit.limits import DAY, MINUTE, PERIODS, SECOND

_logger = logging.getLogger(__name__)

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
    windowed: bool = False
    """Whether the server is known to count in windows, which open when `reset` is over.
    """
    step: float = 1.0
    """To what `remaining` is rounded."""


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
    step: float = 1.0
    """To what the server may round what remains."""
    windowed: bool = False
    """Whether a plain number or a moment as the reset is the end of a window."""


_FIELD = r"(?P<field>limit|remaining|reset)"
_PER = r"(?P<per>second|minute|5-minute|hour|day|month)"
_TOGETHER: Final = Dialect(re.compile(rf"x-tokenlimit-{_FIELD}"), {"": "tokens"}, SECOND)
_UNNAMED: Final = Dialect(re.compile(rf"x-ratelimit-{_FIELD}"), {"": "requests"}, windowed=True)
_DIALECTS: Final = (
    # OpenAI, Groq, xAI and most that imitate them. With a period at the end: Cerebras,
    # Mistral, DigitalOcean ("-per-minute"). With a renewalperiod: Azure, GitHub Models.
    # Azure also sends "x-rate-limit-reset-tokens" alone.
    Dialect(
        re.compile(
            r"x-rate-?limit-(?P<field>limit|remaining|reset|renewalperiod)-(?P<name>[a-z_-]+?)"
            rf"(?:-(?:per-)?{_PER})?"
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
    # Anthropic; its resets are dates, and its tokens were seen rounded
    Dialect(
        re.compile(rf"anthropic-ratelimit-(?P<name>[a-z-]*tokens)-{_FIELD}"), COUNTED, MINUTE, 1_000
    ),
    Dialect(re.compile(rf"anthropic-ratelimit-(?P<name>[a-z-]+)-{_FIELD}"), COUNTED, MINUTE),
    # Kong
    Dialect(re.compile(rf"x-ratelimit-{_FIELD}-{_PER}"), {"": "requests"}),
    _TOGETHER,
    # slowapi, Flask-Limiter, OpenRouter, Envoy; Together's requests
    _UNNAMED,
)
"""The first one that matches a name and knows what it counts is taken."""

_MARKED: Final = {"x-groq-region": {"requests": DAY}}
"""Periods in seconds that a server documents for what its headers count, by another
header that shows the server.
"""
_NO_LIMITS: Final = re.compile(
    r"x-ratelimit-(tokens-query-cost|over-limit|limit-dynamic|.*cache-adjusted-prompt)"
    r"|anthropic-ratelimit-unified-.*|azure-openai-deployment-utilization"
)
"""Names that are known, and show no limit that is followed."""
_LIKE_LIMIT: Final = re.compile(r"rate-?limit|tokenlimit|quota")
_LIKE_IETF: Final = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_LONGEST_NAME: Final = 128
_MOST_HEADERS: Final = 200


class _Limit(NamedTuple):
    """One limit that a list of headers shows."""

    dialect: Dialect
    name: str
    period: float | None


class _Layout(NamedTuple):
    """Which position of a list of headers means what."""

    limits: tuple[tuple[_Limit, tuple[tuple[str, int], ...]], ...]
    """Each limit with the positions of its fields."""
    named: Mapping[str, tuple[int, ...]]
    """The positions of each header, by its name in lower case."""


def header_values(headers: object, *names: str) -> dict[str, str]:
    """Return the values of these headers by their lower-case names.

    The values of a name that comes more than once are joined by commas, as HTTP has it;
    a header that is absent is "".

    :param headers: a mapping or pairs; names in any case, str or bytes.
    """
    known, layout = _laid_out(headers)
    return _values(known, layout, names)


def read_headers(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> list[Reading]:
    """Read every limit that an answer's headers show, in the order in which they come.

    :param headers: a mapping or pairs; names in any case, str or bytes.
    """
    known, layout = _laid_out(headers)
    date = _values(known, layout, ("date",))["date"]
    marked: dict[str, float] = {}
    for mark, periods in _MARKED.items():
        if mark in layout.named:
            marked |= periods
    together = any(limit.dialect is _TOGETHER for limit, _ in layout.limits)
    found: list[Reading | None] = []
    for (dialect, name, period), positions in layout.limits:
        fields = {kind: text(known[position][1], 64) for kind, position in positions}
        if dialect is _UNNAMED and "w=" in fields.get("limit", ""):
            # Envoy writes these as the IETF's older fields
            windows = read_windows("", "", *_values(known, layout, _LIKE_IETF).values())
            found.extend(_of_window(window) for window in windows)
            continue

        if dialect is _UNNAMED and together:
            reading = _reading(name, SECOND, fields, date)
        else:
            reading = _reading(name, period, fields, date)

        if reading and not together and dialect.windowed and not reading.drips:
            reading = reading._replace(windowed=reading.reset is not None)
        if reading and reading.name in marked:
            reading = reading._replace(period=reading.period or marked[reading.name])
        if reading and dialect.step > 1 and (reading.remaining or 1) % dialect.step == 0:
            reading = reading._replace(step=dialect.step)
        found.append(reading)

    if not layout.named.keys().isdisjoint(IETF):
        windows = read_windows(*_values(known, layout, IETF).values())
        found.extend(_of_window(window) for window in windows)
    return [reading for reading in found if reading is not None]


def _values(
    known: Sequence[tuple[object, object]], layout: _Layout, names: Iterable[str]
) -> dict[str, str]:
    found = {}
    for name in names:
        values = [text(known[position][1]).strip() for position in layout.named.get(name, ())]
        found[name] = ", ".join(value for value in values if value)
    return found


def _laid_out(headers: object) -> tuple[Sequence[tuple[object, object]], _Layout]:
    """Return headers as pairs, and what stands where in them."""
    known: Sequence[tuple[object, object]] = headers if type(headers) is list else pairs(headers)
    try:
        return known, _layout(tuple([name for name, _ in known]))
    except Exception:  # noqa: BLE001  # something is no pair, or its hash raises: no header
        known = [(name, value) for name, value in pairs(headers) if isinstance(name, (str, bytes))]
        return known, _layout(tuple([name for name, _ in known]))


@lru_cache(maxsize=256)
def _layout(headers: tuple[object, ...]) -> _Layout:
    """Work out what stands where in headers with these names.

    A server sends the same names with every answer. Without the cache the row "wrapped"
    of `benchmarks/transport.py overhead` rises by 0.04, from 1.15 to 1.19.
    """
    limits: dict[_Limit, list[tuple[str, int]]] = {}
    named: dict[str, tuple[int, ...]] = {}
    for position, header in enumerate(headers[:_MOST_HEADERS]):
        name = text(header, _LONGEST_NAME).lower()
        named[name] = (*named.get(name, ()), position)
        place = _place_of(name)
        if place is not None:
            limits.setdefault(place[0], []).append((place[1], position))
        elif _LIKE_LIMIT.search(name) and name not in IETF and not _NO_LIMITS.fullmatch(name):
            _say_once(name)

    return _Layout(tuple((limit, tuple(fields)) for limit, fields in limits.items()), named)


@lru_cache(maxsize=256)
def _say_once(name: str) -> None:
    """Log a header that looks like one of a limit and is of no known dialect."""
    _logger.debug("the header %r is of no known server; it is ignored", name)


def _place_of(name: str) -> tuple[_Limit, str] | None:
    """Return the limit and the field that a header shows; None where it shows none."""
    for dialect in _DIALECTS:
        match = dialect.names.fullmatch(name)
        if match is None:
            continue

        groups = match.groupdict()
        counted = dialect.counted.get(groups.get("name") or "")
        if counted is not None:
            per = groups.get("per")
            period = 300.0 if per == "5-minute" else PERIODS[per] if per else dialect.period
            return _Limit(dialect, counted, period), groups["field"]
    return None


def _of_window(window: Window) -> Reading | None:
    """Make the reading of a policy; it is a window where its end is shown."""
    *figures, name = window
    reading = _checked(name, *figures, drips=False)
    return reading and reading._replace(windowed=reading.reset is not None)


def _reading(
    name: str, period: float | None, fields: Mapping[str, str], date: str
) -> Reading | None:
    """Make the reading of one limit out of its headers."""
    written = fields.get("reset", "").strip()
    reset = parse_duration(written)
    drips = reset is not None and written.endswith("s")
    if reset is None and written:
        reset = seconds_until(written, date)
        if reset is not None and period is None:
            # only of a moment the unit is certain
            period = least_period(reset)

    if period is None and "renewalperiod" in fields:
        period = _renewal(fields["renewalperiod"])
    limit, remaining = amount(fields.get("limit")), amount(fields.get("remaining"))
    return _checked(name, limit, remaining, reset, period, drips=drips)


def _checked(
    name: str,
    limit: float | None,
    remaining: float | None,
    reset: float | None,
    period: float | None,
    *,
    drips: bool,
) -> Reading | None:
    """Make a reading of the figures that can be; return None when none is left."""
    # Azure sends 0 and -1 for "no figure"; nothing that is counted has a limit below 1
    if limit is not None and limit < 1:
        limit = None
    if limit is not None and remaining is not None and remaining > limit:
        remaining = None  # one of the two is wrong; the limit is what is stable
    if limit is None and remaining is None and reset is None:
        return None

    if period is None and drips and None not in {limit, remaining}:
        period = infer_period(limit, remaining, reset)  # type: ignore[arg-type]  # none is None
    return Reading(name, limit, remaining, reset, period, drips)


def _renewal(written: str) -> float | None:
    """Read Azure's renewal period, in seconds.

    A shorter one than a minute is how often it checks, not what the limit is quoted
    over: 9,000 requests with renewalperiod 10 stand beside 1,500,000 tokens a minute,
    which is Azure's 6 requests a minute per 1,000 tokens.
    """
    seconds = duration(written)
    return max(seconds, MINUTE) if seconds else None
