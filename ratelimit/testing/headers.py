"""The rate-limit headers of an answer, in the dialects seen in the wild.

Owns names, formats of numbers and durations, and the faults of variant L. Must never
hold a level of its own or decide anything. Formats (source: 1,309 recorded header
sets): `0s`, `12ms`, `1.31s`, `6m0s`, `1m40.31s`, `1h8m25.745s`, truncated to
milliseconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ratelimit.testing.buckets import RESIDUE

if TYPE_CHECKING:
    from ratelimit.testing.admission import Reading
    from ratelimit.testing.variants import Style

__all__ = ["EPOCH", "SILENT", "WINDOWED", "HeaderWriter", "Headers", "duration"]

Headers = list[tuple[bytes, bytes]]

EPOCH: Final = 1_767_225_600
"""Unix time of the loop's zero, 2026-01-01: `created`, `date` and resets depend on the
loop's time alone.
"""
SILENT: Final = frozenset({"nginx", "plain", "qwen", "bedrock"})
"""Styles without any rate-limit header."""
WINDOWED: Final = frozenset({"slowapi", "flask", "ietf", "ietf-7", "ietf-6"})
"""Styles of gateways, with windows of requests."""


def duration(seconds: float) -> str:
    """Return `seconds` in the server's form, truncated to milliseconds."""
    milliseconds = int(max(0.0, seconds) * 1000 + RESIDUE)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"

    rest, milliseconds = divmod(milliseconds, 1000)
    minutes, whole = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{milliseconds:03d}".rstrip("0") if milliseconds else ""
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{larger}{whole}{fraction}s"


def _nanoseconds(seconds: float) -> str:
    """Return Groq's form, which shows nanoseconds."""
    if seconds < 1:
        return f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms" if seconds > 0 else "0s"

    minutes, rest = divmod(seconds, 60)
    return (f"{int(minutes)}m" if minutes else "") + f"{rest:.9f}".rstrip("0").rstrip(".") + "s"


class HeaderWriter:
    """Writes one server's headers; keeps the last ones for the fault "stale"."""

    def __init__(self, style: Style, faults: Sequence[str], generator: random.Random) -> None:
        self._style, self._faults, self._random = style, faults, generator
        self._last: Headers = []

    def write(self, readings: Sequence[Reading], cost: float, now: float) -> Headers:
        """Return the headers that show `readings`.

        :param cost: what the call took from the token limit.
        :param now: the loop's time, for resets that are moments.
        """
        headers = self._true(readings, cost, now)
        fault = self._random.choice(["", *self._faults]) if self._faults else ""
        stale, self._last = self._last, headers
        match fault:
            case "missing":
                return []
            case "stale":
                return stale or headers
            case "project-only":
                return [
                    (
                        name if b"-project-" in name else b"-project-".join(name.rsplit(b"-", 1)),
                        value,
                    )
                    for name, value in headers
                ]
            case "-1":
                return [
                    (name, b"-1" if b"-remaining-" in name else value) for name, value in headers
                ]
            case "0s":
                return [(name, b"0s" if b"-reset-" in name else value) for name, value in headers]
            case _:
                return headers

    def _true(self, readings: Sequence[Reading], cost: float, now: float) -> Headers:
        if self._style in SILENT:
            return []

        if self._style == "mistral":
            return self._mistral(readings, cost)

        if self._style in WINDOWED:
            return _windowed(self._style, readings, now)

        headers: Headers = []
        for reading in readings:
            name = reading.dimension.header
            if not name:
                continue

            left = int(max(0.0, reading.left) + RESIDUE)
            headers.append(_header("limit", name, round(reading.limit)))
            headers.append(_header("remaining", name, left))
            if self._style != "litellm":
                headers.append(_header("reset", name, self._reset(reading.reset)))

        return headers

    def _reset(self, seconds: float) -> str:
        if self._style == "azure":
            return str(math.ceil(seconds - RESIDUE))
        return _nanoseconds(seconds) if self._style == "groq" else duration(seconds)

    def _mistral(self, readings: Sequence[Reading], cost: float) -> Headers:
        headers: Headers = []
        for reading in readings:
            if reading.dimension.header:
                name = f"{'req' if reading.dimension.unit == 'requests' else 'tokens'}-minute"
                headers.append(_header("limit", name, round(reading.limit)))
                headers.append(_header("remaining", name, int(max(0.0, reading.left))))

        headers.append((b"x-ratelimit-tokens-query-cost", str(round(cost)).encode()))
        return headers


def _header(kind: str, name: str, value: object) -> tuple[bytes, bytes]:
    return _field(f"x-ratelimit-{kind}-{name}", value)


def _windowed(style: Style, readings: Sequence[Reading], now: float) -> Headers:
    """Return the headers of gateways, which show windows of requests.

    slowapi and Flask-Limiter show the moment at which a window ends, the drafts of the
    IETF the seconds until then; all of them in whole numbers.
    """
    shown = [reading for reading in readings if reading.dimension.unit == "requests"]
    if not shown:
        return []

    tightest = min(shown, key=lambda reading: reading.left)
    limit, left = round(tightest.limit), int(max(0.0, tightest.left) + RESIDUE)
    seconds = int(tightest.reset)
    match style:
        case "slowapi" | "flask":
            late = 1 if style == "slowapi" else 0
            moment = int(EPOCH + now + tightest.reset) + late
            figures = {"limit": limit, "remaining": left, "reset": moment}
            return [_field(f"x-ratelimit-{name}", value) for name, value in figures.items()]
        case "ietf-6":
            periods = [f"{limit};w={tightest.dimension.period:g}"]
            figures = {"remaining": left, "reset": seconds}
            return [
                _field("ratelimit-limit", ", ".join([str(limit), *periods])),
                *(_field(f"ratelimit-{name}", value) for name, value in figures.items()),
            ]
        case "ietf-7":
            return [
                _field("ratelimit-policy", f"{limit};w={tightest.dimension.period:g}"),
                _field("ratelimit", f"limit={limit}, remaining={left}, reset={seconds}"),
            ]
        case _:
            policies, states = [], []
            for reading in shown:
                name, period = reading.dimension.name, reading.dimension.period
                policies.append(f'"{name}";q={round(reading.limit)};w={period:g}')
                now_left = int(max(0.0, reading.left) + RESIDUE)
                states.append(f'"{name}";r={now_left};t={int(reading.reset)}')

            return [
                _field("ratelimit-policy", ", ".join(policies)),
                _field("ratelimit", ", ".join(states)),
            ]


def _field(name: str, value: object) -> tuple[bytes, bytes]:
    return name.encode(), str(value).encode()
