"""OpenAI's usage tiers: the limits that `--tier` stands for.

Owns one table, as of the day it names. Must never guess a limit that is not in it: that
brings 429s or wastes the quota. Limits that are left out are learned from the first
answer's headers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final

from ratelimit.errors import InvalidArgument
from ratelimit.families import pattern_of
from ratelimit.limits import Limits

AS_OF: Final = dt.date(2026, 8, 1)
"""The day up to which the figures were collected.

Source: OpenAI's model pages and recorded rate-limit headers of api.openai.com.
"""

_FLAGSHIP: Final = {
    "1": Limits(rpm=500, tpm=500_000),
    "2": Limits(rpm=5_000, tpm=1_000_000),
    "3": Limits(rpm=5_000, tpm=2_000_000),
    "4": Limits(rpm=10_000, tpm=4_000_000),
    "5": Limits(rpm=15_000, tpm=40_000_000),
}
_GPT_4O: Final = {
    "1": Limits(rpm=500, tpm=30_000),
    "2": Limits(rpm=5_000, tpm=450_000),
    "3": Limits(rpm=5_000, tpm=800_000),
    "4": Limits(rpm=10_000, tpm=2_000_000),
    "5": Limits(rpm=10_000, tpm=30_000_000),
}
_GPT_4O_MINI: Final = {
    "1": Limits(rpm=500, tpm=200_000, rpd=10_000),
    "2": Limits(rpm=5_000, tpm=2_000_000),
    "3": Limits(rpm=5_000, tpm=4_000_000),
    "4": Limits(rpm=10_000, tpm=10_000_000),
    "5": Limits(rpm=30_000, tpm=150_000_000),
}
_BY_MODEL: Final[Mapping[str, Mapping[str, Limits]]] = {
    "gpt-5.5": _FLAGSHIP,
    "gpt-5.6": _FLAGSHIP,
    "gpt-6": _FLAGSHIP,
    # the pages of 2025; the recorded headers, until 2026-08, show no other pair
    "gpt-4o": _GPT_4O,
    "gpt-4.1": _GPT_4O,
    "gpt-4o-mini": {"free": Limits(rpm=3, rpd=200), **_GPT_4O_MINI},
    "gpt-4.1-mini": _GPT_4O_MINI,
    "gpt-4.1-nano": _GPT_4O_MINI,
    "gpt-4": {
        "1": Limits(rpm=500, tpm=10_000, rpd=10_000),
        "2": Limits(rpm=5_000, tpm=40_000),
        "3": Limits(rpm=5_000, tpm=80_000),
        "4": Limits(rpm=10_000, tpm=300_000),
        "5": Limits(rpm=10_000, tpm=1_000_000),
    },
}

TIERS: Final[Mapping[str, Mapping[str, Limits]]] = {
    tier: {model: tiers[tier] for model, tiers in _BY_MODEL.items() if tier in tiers}
    for tier in ("free", "1", "2", "3", "4", "5")
}
"""Limits by tier and model. A model's dated snapshots share its buckets."""


def limits_of(tier: str, models: Iterable[str]) -> dict[str, Limits]:
    """Look up the limits of `models` at a tier, by the table's model names.

    Raises `InvalidArgument` for what the table does not know.
    """
    table = TIERS.get(tier)
    if table is None:
        raise InvalidArgument(f"tier {tier!r} is none of {', '.join(TIERS)}")

    found = {}
    for model in models:
        family = pattern_of(model, table)
        if family is None:
            raise InvalidArgument(
                f"the table of tiers (as of {AS_OF}) has no limits for"
                f" {model or 'a request without a model'} at tier {tier}; give --rpm and --tpm, or"
                " leave all limits out: they are then learned from the server's headers"
            )

        found[family] = table[family]
    return found
