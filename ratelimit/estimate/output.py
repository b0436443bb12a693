"""How long the answer will be: what the body allows, and what to hold while nobody knows.

Owns the bounds and the reserve per kind of model. Must never count a prompt, nor remember an answer (learning.py does).
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.models import Family
from ratelimit.estimate.plain import LARGEST, count

# Tokens to hold for one answer of a call that sets no bound and whose like was not seen yet. Source: 2,914 recorded
# answers of calls without a bound. Plain models: median 23, 95 % at most 262, 99 % at most 815. Reasoning models (hidden tokens
# included): median 135, 92 % at most 1,024, 99 % at most 2,600.
PLAIN_RESERVE = 256
REASONING_RESERVE = 1024
LEGACY_MAXIMUM = 16  # what the completions endpoint allows when max_tokens is absent


def choices(body: Mapping[str, object], endpoint: str) -> int:
    """Count the answers the body asks for and pays: n (or best_of) for each prompt; at least 1."""
    wanted = max(count(body.get("n")) or 1, 1)
    if endpoint == "completions":
        wanted = max(wanted, count(body.get("best_of")) or 1)
    return min(wanted, LARGEST) if endpoint in {"chat.completions", "completions"} else 1


def bound(body: Mapping[str, object], endpoint: str) -> int | None:
    """Return the most tokens one answer may hold, None when the body sets no bound."""
    if endpoint == "chat.completions":
        longest = count(body.get("max_completion_tokens"))
        return count(body.get("max_tokens")) if longest is None else longest
    if endpoint == "responses":
        return count(body.get("max_output_tokens"))
    if endpoint == "completions":
        longest = count(body.get("max_tokens"))
        return LEGACY_MAXIMUM if longest is None else longest
    if endpoint in {"embeddings", "moderations"}:
        return 0
    return None


def charged_bound(body: Mapping[str, object], endpoint: str) -> int | None:
    """Return the bound the dated charge rules look at: on Chat `max_tokens` alone, never `max_completion_tokens`."""
    return count(body.get("max_tokens")) if endpoint == "chat.completions" else bound(body, endpoint)


def reserve(family: Family, endpoint: str) -> int:
    """Tokens to hold for one answer while nothing else is known."""
    if endpoint not in {"chat.completions", "responses"}:
        return 0 if endpoint != "other" else PLAIN_RESERVE
    return REASONING_RESERVE if family.reasoning else PLAIN_RESERVE
