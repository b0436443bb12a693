"""What the server's token limiter takes at admission, before it has counted a single token.

Owns the table of charge rules, dated, because OpenAI changed them silently at least twice. The charge is not the bill: the
server mostly counts bytes, ignores tools and names, and takes a flat price for a picture; the bill (usage) comes later.
Must never read a request: a rule sees a `Load`, the sizes somebody else took from it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ratelimit.estimate.models import Family

PICTURE = 765  # tokens for any image or file part, whatever its size or detail
LEGACY_ANSWER = 16  # the reserve of the older rules when a body sets no bound


class Load(NamedTuple):
    """The sizes of one request that the rules below look at; tokens, bytes and counts."""

    endpoint: str
    text_bytes: int = 0  # UTF-8 bytes of all text content
    messages: int = 0
    choices: int = 1  # n
    prompts: int = 1  # texts in a completions or embeddings body
    token_ids: int = 0  # prompts sent as lists of token numbers
    attachments: int = 0  # image and file parts
    images: int = 0  # image parts alone
    max_tokens: int | None = None  # what the body allows for one choice
    charged_max: int | None = None  # the part of it OpenAI's older rules look at
    prompt_tokens: int = 0  # the billed prompt, as estimated
    hidden: int = 0  # tokens of the prompt the server adds on Responses: charged, not billed


# (how the model's name begins, tokens without functions, tokens with); the first match holds
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
    """Return the tokens the server writes before a Responses prompt: its limiter takes them, the bill leaves them out.

    Source: 238 recorded Responses calls with rate-limit headers.
    """
    _, plain, tooled = next(row for row in _HIDDEN if family.name.startswith(row[0]))
    return tooled if functions else plain


Rule: TypeAlias = Callable[[Load], int]


def _chat(load: Load) -> int:
    return -(-load.text_bytes // 4) + load.messages + load.choices + PICTURE * load.attachments


def _chat_with_answer(load: Load) -> int:
    answer = LEGACY_ANSWER if load.charged_max is None else load.charged_max
    return -(-load.text_bytes // 4) + load.messages + load.choices * answer + PICTURE * load.attachments


def _completions(load: Load) -> int:
    return load.text_bytes // 4 + load.token_ids + load.choices * load.prompts


def _completions_with_answer(load: Load) -> int:
    answer = LEGACY_ANSWER if load.charged_max is None else load.charged_max
    return load.text_bytes // 4 + load.token_ids + load.choices * load.prompts * answer


def _embeddings(load: Load) -> int:
    return load.text_bytes // 4 + load.token_ids


def _responses(load: Load) -> int:
    return PICTURE * load.images if load.images else load.prompt_tokens + load.hidden


def _prompt(load: Load) -> int:
    return load.prompt_tokens


def _answer(load: Load) -> int:
    return load.choices * load.prompts * (LEGACY_ANSWER if load.max_tokens is None else load.max_tokens)


_LONG_AGO = dt.date(2023, 1, 1)

# (endpoint, in force since, rule); the latest line not after the asked day holds. Source of every figure: recorded
# `x-ratelimit-remaining-tokens` headers of api.openai.com.
DATED: tuple[tuple[str, dt.date, Rule], ...] = (
    ("chat.completions", _LONG_AGO, _chat_with_answer),  # within {0,+1} on 98.7 % of 4,385 calls, 2024-02 to 2025-03-19
    ("chat.completions", dt.date(2025, 3, 20), _chat),  # within {0,+1} on 99.2 % of 4,564 calls
    ("completions", _LONG_AGO, _completions_with_answer),  # 52 of 54
    ("completions", dt.date(2025, 3, 20), _completions),  # 68 of 68
    ("embeddings", _LONG_AGO, _embeddings),  # 396 of 396
    ("responses", _LONG_AGO, _responses),  # 96-99 % without tools, 79-89 % with; with images 42 of 46
    ("moderations", _LONG_AGO, _embeddings),  # a guess: as embeddings
)

# Servers that reserve by another rule, by name; the same for every endpoint.
NAMED: Mapping[str, Rule] = {
    "prompt": _prompt,  # Gemini: input only
    "prompt+max": lambda load: _prompt(load) + _answer(load),  # Azure's documentation, Cerebras
    "max(prompt,max)": lambda load: max(_prompt(load), _answer(load)),  # the text of OpenAI's guide
    "nothing": lambda _: 0,  # Mistral, most gateways: actual usage afterwards
}


@lru_cache(maxsize=64)
def rule_for(endpoint: str, regime: str | dt.date | None = None) -> Rule:
    """Look up the rule for `endpoint`: today's (None), that of a day, or one of `NAMED`.

    :raises ValueError: `regime` is a name that is not in `NAMED`.
    """
    if isinstance(regime, str):
        if regime not in NAMED:
            raise ValueError(f"no charge rule called {regime!r}: use a date or one of {', '.join(NAMED)}")
        return NAMED[regime]
    found: Rule = NAMED["nothing"]  # images and audio have limits of their own; no header shows tokens taken for them
    for name, since, rule in DATED:
        if name == endpoint and (regime is None or since <= regime):
            found = rule
    return found
