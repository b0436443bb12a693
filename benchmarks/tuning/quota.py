"""The limits that hold: given as numbers, by tier and model, or by recorded headers.

Owns short names of limits, {"rpm": 500.0, "tpm": 30_000.0}, and how they are found.
Must never guess: a limit that is not known is asked for in one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ratelimit.batch.lines import read_lines
from ratelimit.commands.tiers import TIERS, limits_of
from ratelimit.control.limits_seen import LimitsSeen
from ratelimit.errors import InvalidArgument
from ratelimit.families import pattern_of
from ratelimit.feedback import read_headers
from ratelimit.limits import SHORT_FORMS, Limit

KNOWN: Final = ("rpm", "tpm", "rpd", "tpd", "rps")
_SHORT: Final = {meaning: short for short, meaning in SHORT_FORMS.items() if short in KNOWN}
REMEDY: Final = (
    "give --rpm and --tpm, or --tier with --model, or --headers FILE with the headers of one answer"
)

Named = Mapping[str, float]


def named(limits: Iterable[Limit]) -> dict[str, float]:
    """Return limits by their short names, without those that have none (images)."""
    return {
        _SHORT[limit.name, limit.per]: limit.amount
        for limit in limits
        if (limit.name, limit.per) in _SHORT
    }


def limits_for(
    given: Mapping[str, float | None], tier: str | None, model: str | None, headers: Path | None
) -> dict[str, float]:
    """Return what holds: numbers first, then the headers, then the tier's table.

    Raises `InvalidArgument` where nothing is known.
    """
    found: dict[str, float] = {}
    if tier is not None:
        if model is None:
            raise InvalidArgument("--tier says the limits of a model: name it with --model")
        found |= named(next(iter(limits_of(tier, [model]).values())))
    if headers is not None:
        found |= recorded(headers)
    found |= {name: amount for name, amount in given.items() if amount is not None}
    if not found:
        raise InvalidArgument(f"there is nothing to tune for without limits: {REMEDY}")
    return found


def recorded(path: Path) -> dict[str, float]:
    """Read the limits out of one answer's headers.

    They are lines such as "x-ratelimit-limit-requests: 500", or a JSON object.
    """
    text = b"".join(
        raw if raw.endswith(b"\n") else raw + b"\n" for _, raw in read_lines(path)
    ).decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except ValueError:
        said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    said = said.get("ratelimit", said.get("headers", said)) if isinstance(said, dict) else {}
    headers = (
        {str(name).strip().lower(): str(value).strip() for name, value in said.items()}
        if isinstance(said, dict)
        else {}
    )
    known = LimitsSeen().on_headers(read_headers(headers), 0.0) or []
    found = named(known)
    if not found:
        raise InvalidArgument(
            f'{path} holds no rate-limit headers; lines such as "x-ratelimit-limit-tokens: 30000"'
            " are expected"
        )
    return found


def other_tiers(tier: str | None, model: str, limits: Named) -> dict[str, dict[str, float]]:
    """Return further limits to compare, by name.

    They are the tiers above that the table has for the model; where it has none,
    multiples of what holds.
    """
    above = {}
    for name in TIERS:
        family = pattern_of(model, TIERS[name])
        if (
            tier is not None
            and family is not None
            and name.isdigit()
            and (not tier.isdigit() or int(name) > int(tier))
        ):
            above[f"tier {name}"] = named(TIERS[name][family])
    return dict(sorted(above.items())) or {
        f"{factor} times the limits": {name: factor * amount for name, amount in limits.items()}
        for factor in (2, 10)
    }
