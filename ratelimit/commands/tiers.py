"""OpenAI's usage tiers: the limits that `--tier` stands for.

Owns one table, as of the day it names. Must never come in: what is not in it - a limit
that is guessed brings 429s or wastes the quota; leave the limits out, and they are
learned from the first answer's headers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final

from ratelimit.errors import InvalidArgument
from ratelimit.families import pattern_of
from ratelimit.limits import Limits

AS_OF: Final = dt.date(2026, 8, 1)
"""The day up to which the figures were collected. Source: OpenAI's model pages and
recorded rate-limit headers of api.openai.com.
"""

_FLAGSHIP: Final = {
    "1": Limits(rpm=500, tpm=500_000),
    "2": Limits(rpm=5_000, tpm=1_000_000),
    "3": Limits(rpm=5_000, tpm=2_000_000),
    "4": Limits(rpm=10_000, tpm=4_000_000),
    "5": Limits(rpm=15_000, tpm=40_000_000),
}

TIERS: Final[Mapping[str, Mapping[str, Limits]]] = {
    "free": {"gpt-4o-mini": Limits(rpm=3, rpd=200)},
    **{
        tier: {"gpt-5.5": limits, "gpt-5.6": limits, "gpt-6": limits}
        for tier, limits in _FLAGSHIP.items()
    },
    "1": {
        "gpt-5.5": _FLAGSHIP["1"],
        "gpt-5.6": _FLAGSHIP["1"],
        "gpt-6": _FLAGSHIP["1"],
        "gpt-4o": Limits(rpm=500, tpm=30_000),
        "gpt-4o-mini": Limits(rpm=500, tpm=200_000, rpd=10_000),
        "gpt-4": Limits(rpm=500, tpm=10_000, rpd=10_000),
    },
}
"""Limits by tier and model; each model has buckets of its own, which its dated
snapshots share.
"""


def limits_of(tier: str, models: Iterable[str]) -> dict[str, Limits]:
    """Look up the limits of `models` at a tier, by the table's model names; raise
    `InvalidArgument` for what the table does not know.
    """
    table = TIERS.get(tier)
    if table is None:
        raise InvalidArgument(f"tier {tier!r} is none of {', '.join(TIERS)}")
    found = {}
    for model in models:
        family = pattern_of(model, table)
        if family is None:
            raise InvalidArgument(
                f"the table of tiers (as of {AS_OF}) has no limits for {model or 'a request without a model'} at tier {tier}; give --rpm and"
                " --tpm, or leave all limits out: they are then learned from the server's headers"
            )
        found[family] = table[family]
    return found
