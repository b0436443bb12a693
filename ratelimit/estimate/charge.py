"""What the server's token limiter takes at admission, before it has counted a single
token.

Owns the table of charge rules, dated, because OpenAI changed them silently at least
twice. The charge is not the bill: the server mostly counts bytes, ignores tools and
names, and takes a flat price for a picture; the bill (usage) comes later. Must never
read a request: a rule sees a `Totals`, the sizes somebody else took from it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from ratelimit.estimate.models import Family
from ratelimit.estimate.totals import Totals

PICTURE = 765  # tokens for any image or file part, whatever its size or detail
LEGACY_ANSWER = 16  # the reserve of the older rules when a body sets no bound


# (how the model's name begins, tokens without functions, tokens with); the first match
# holds
_HIDDEN: tuple[tuple[str, int, int], ...] = (
    ("gpt-5.4", 163, 449),
    ("gpt-5.5", 163, 449),
    ("gpt-5.6", 163, 449),
    ("gpt-5", 217, 493),
    ("o4-mini", 207, 264),
    ("o3", 61, 61),
    ("gpt-4o", 19, 217),
    ("gpt-4.1", 19, 217),
    ("gpt-4.5", 19, 217),
    ("gpt-3.5", 5, 5),
    ("gpt-4", 5, 5),
    ("", 19, 217),
)


def hidden(family: Family, *, functions: bool) -> int:
    """Return the tokens the server writes before a Responses prompt: its limiter takes
    them, the bill leaves them out.

    Source: 238 recorded Responses calls with rate-limit headers.
    """
    _, plain, tooled = next(row for row in _HIDDEN if family.name.startswith(row[0]))
    return tooled if functions else plain


Rule: TypeAlias = Callable[[Totals], int]


def _chat(tally: Totals) -> int:
    return (
        -(-tally.text_bytes // 4)
        + tally.messages
        + tally.choices
        + PICTURE * (tally.images + tally.files)
    )


def _chat_with_answer(tally: Totals) -> int:
    answer = LEGACY_ANSWER if tally.charged_max is None else tally.charged_max
    return (
        -(-tally.text_bytes // 4)
        + tally.messages
        + tally.choices * answer
        + PICTURE * (tally.images + tally.files)
    )


def _completions(tally: Totals) -> int:
    return tally.text_bytes // 4 + tally.token_ids + tally.choices * tally.prompts


def _completions_with_answer(tally: Totals) -> int:
    answer = LEGACY_ANSWER if tally.charged_max is None else tally.charged_max
    return tally.text_bytes // 4 + tally.token_ids + tally.choices * tally.prompts * answer


def _embeddings(tally: Totals) -> int:
    return tally.text_bytes // 4 + tally.token_ids


def _responses(tally: Totals) -> int:
    return PICTURE * tally.images if tally.images else tally.tokens + tally.hidden


def _prompt(tally: Totals) -> int:
    return tally.tokens


def _answer(tally: Totals) -> int:
    return (
        tally.choices
        * tally.prompts
        * (LEGACY_ANSWER if tally.max_tokens is None else tally.max_tokens)
    )


_LONG_AGO = dt.date(2023, 1, 1)

# (endpoint, in force since, rule); the latest line not after the asked day holds.
# Source of every figure: recorded `x-ratelimit-remaining-tokens` headers of
# api.openai.com.
DATED: tuple[tuple[str, dt.date, Rule], ...] = (
    # within {0,+1} on 98.7 % of 4,385 calls, 2024-02 to 2025-03-19
    ("chat.completions", _LONG_AGO, _chat_with_answer),
    ("chat.completions", dt.date(2025, 3, 20), _chat),  # within {0,+1} on 99.2 % of 4,564 calls
    ("completions", _LONG_AGO, _completions_with_answer),  # 52 of 54
    ("completions", dt.date(2025, 3, 20), _completions),  # 68 of 68
    ("embeddings", _LONG_AGO, _embeddings),  # 396 of 396
    # 96-99 % without tools, 79-89 % with; with images 42 of 46
    ("responses", _LONG_AGO, _responses),
    ("moderations", _LONG_AGO, _embeddings),  # a guess: as embeddings
)

# Servers that reserve by another rule, by name; the same for every endpoint.
NAMED: Mapping[str, Rule] = {
    "prompt": _prompt,  # Gemini: input only
    "prompt+max": lambda tally: _prompt(tally) + _answer(tally),  # Azure's documentation, Cerebras
    # the text of OpenAI's guide
    "max(prompt,max)": lambda tally: max(_prompt(tally), _answer(tally)),
    "nothing": lambda _: 0,  # Mistral, most gateways: actual usage afterwards
}


@lru_cache(maxsize=64)
def rule_for(endpoint: str, regime: str | dt.date | None = None) -> Rule:
    """Look up the rule for `endpoint`: today's (None), that of a day, or one of
    `NAMED`.

    :raises ValueError: `regime` is a name that is not in `NAMED`.
    """
    if isinstance(regime, str):
        if regime not in NAMED:
            raise ValueError(
                f"no charge rule called {regime!r}: use a date or one of {', '.join(NAMED)}"
            )
        return NAMED[regime]
    # images and audio have limits of their own; no header shows tokens taken for them
    found: Rule = NAMED["nothing"]
    for name, since, rule in DATED:
        if name == endpoint and (regime is None or since <= regime):
            found = rule
    return found
