"""How long the answer will be: what the body allows, and what to hold while nobody
knows.

Owns the bounds and the reserve per kind of model. Must never count a prompt, nor
remember an answer (learning.py does).
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.models import Family
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import count

# Tokens to hold for one answer of a call that sets no bound and whose like was not seen
# yet. Source: 2,914 recorded answers of calls without a bound. Plain models: median 23,
# 95 % at most 262, 99 % at most 815. Reasoning models (hidden tokens included): median
# 135, 92 % at most 1,024, 99 % at most 2,600.
PLAIN_RESERVE = 256
REASONING_RESERVE = 1024
LEGACY_MAXIMUM = 16  # what the completions endpoint allows when max_tokens is absent


def add_answers(body: Mapping[str, object], endpoint: str, tally: Totals) -> None:
    """Note in `tally` how many answers the body asks for by each prompt, and the most
    tokens that one of them may hold.

    The older charge rules look at Chat's `max_tokens` alone, never at
    `max_completion_tokens`.
    """
    longest: int | None = None
    if endpoint == "chat.completions":
        tally.max_tokens = tally.charged_max = count(body.get("max_tokens"))
        if (
            "max_completion_tokens" in body
            and (longest := count(body["max_completion_tokens"])) is not None
        ):
            tally.max_tokens = longest
        if "n" in body:
            tally.choices = count(body["n"]) or 1
        return
    if endpoint == "responses":
        longest = count(body.get("max_output_tokens"))
    elif endpoint == "completions":
        longest = count(body.get("max_tokens"))
        longest = LEGACY_MAXIMUM if longest is None else longest
        tally.choices = max(count(body.get("n")) or 1, count(body.get("best_of")) or 1)
    elif endpoint in {"embeddings", "moderations"}:
        longest = 0
    tally.max_tokens = tally.charged_max = longest


def reserve(family: Family, endpoint: str) -> int:
    """Tokens to hold for one answer while nothing else is known."""
    if endpoint not in {"chat.completions", "responses"}:
        return 0 if endpoint != "other" else PLAIN_RESERVE
    return REASONING_RESERVE if family.reasoning else PLAIN_RESERVE
