"""Limits, prices, times and whole numbers, as people write them on the command line.

Owns what reads each for an option, and says what would do in its place. Must never read
an amount in a way of its own: `ratelimit.limits` does.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from ratelimit.errors import InvalidArgument
from ratelimit.limits import PERIODS, Limit, amount_of, read_amount

SHOWN: Final = 40
"""Characters of what cannot be read that its error shows."""

_BUDGET: Final = re.compile(r"\s*(?P<amount>[0-9.,_]+\s*[km]?)\s*(?P<unit>tokens?|requests?)?\s*")
_DURATION: Final = re.compile(r"\s*(?P<number>[0-9.,_]+)\s*(?P<unit>[a-z]*)\s*")


def read_limit(name: str) -> Callable[[str], float]:
    """Return what reads a limit: "500", "30_000", "30,000", "30k", "1.5m"."""

    def read(text: str) -> float:
        return _said(lambda: Limit(name, text).amount)

    return read


def read_price(text: str) -> float:
    """Read the price of a million tokens."""
    return _said(lambda: read_amount(text, "a price"))


def read_budget(text: str) -> dict[str, float]:
    """Read what a run may cost: "2M tokens", "500 requests", "5.00", or several."""
    found: dict[str, float] = {}
    for part in re.split(r",(?!\d{3}\b)", text):
        shown = _BUDGET.fullmatch(part.lower())
        if shown is None:
            raise argparse.ArgumentTypeError(
                'expected a budget such as "2M tokens", "500 requests" or, in the currency of the '
                f"prices, 5.00, and several of them with commas between, not {text[:SHOWN]!r}"
            )
        amount = shown["amount"]
        name = {"t": "tokens", "r": "requests"}.get((shown["unit"] or "")[:1], "money")
        found[name] = _said(partial(read_amount, amount, "a budget"))
    return found


def _said(read: Callable[[], float]) -> float:
    """Read; what the face refuses is an error of the option."""
    try:
        return read()
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_seconds(text: str) -> float:
    """Read a duration: "90", "90s", "10m", "2h"."""
    found = _DURATION.fullmatch(text.lower())
    try:
        if found is not None:
            seconds = PERIODS[found["unit"] or "s"] * read_amount(found["number"], "")
            return amount_of(seconds, "")
    except (KeyError, InvalidArgument):  # no unit of time, no number, or beyond the largest
        pass
    raise argparse.ArgumentTypeError(
        f"expected a time such as 90s, 10m or 2h, not {text[:SHOWN]!r}"
    )


def read_whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number, in the forms of an amount."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = read_amount(text, "")
        except InvalidArgument:
            value = math.nan
        if not least <= value <= (math.inf if most is None else most) or value != int(value):
            raise argparse.ArgumentTypeError(
                f"expected a whole number {bounds}, not {text[:SHOWN]!r}"
            )

        return int(value)

    return read
