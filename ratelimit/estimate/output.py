"""How long the answer will be: what the body allows, and what to hold meanwhile.

Owns the bounds and the reserve per kind of model. Must never count a prompt or remember
an answer (`learning.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import as_count

PLAIN_RESERVE: Final = 256
"""Tokens to hold for an answer without a bound before any like it was seen.

Source: 2,914 recorded answers. Of plain models: median 23, 95 % at most 262, 99 % at
most 815.
"""

REASONING_RESERVE: Final = 1024
"""The same for reasoning models, hidden tokens included.

Source: as above. Median 135, 92 % at most 1,024, 99 % at most 2,600. Of grok-3-mini
none of 29 was below 273, and none above 491.
"""

LEGACY_MAXIMUM: Final = 16
"""Tokens that the completions endpoint allows when `max_tokens` is absent.

Source: OpenAI's API reference.
"""


def add_answers(body: Mapping[str, object], endpoint: str, totals: Totals) -> None:
    """Note how many answers the body asks for by each prompt, and the bound of one."""
    if endpoint == "chat.completions":
        totals.choices = as_count(body.get("n")) or 1
        bound = as_count(body.get("max_completion_tokens"))
        totals.max_tokens = as_count(body.get("max_tokens")) if bound is None else bound
    elif endpoint == "responses":
        totals.max_tokens = as_count(body.get("max_output_tokens"))
    elif endpoint == "completions":
        bound = as_count(body.get("max_tokens"))
        totals.max_tokens = LEGACY_MAXIMUM if bound is None else bound
        totals.choices = max(as_count(body.get("n")) or 1, as_count(body.get("best_of")) or 1)
    elif endpoint in {"embeddings", "moderations"}:
        totals.max_tokens = 0


def typical_answer(traits: ModelTraits, endpoint: str) -> int:
    """Return the tokens to hold for one answer while nothing else is known."""
    if endpoint in {"chat.completions", "responses"}:
        return REASONING_RESERVE if traits.reasoning or traits.grok else PLAIN_RESERVE

    return PLAIN_RESERVE if endpoint == "other" else 0
