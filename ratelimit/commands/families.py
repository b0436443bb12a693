"""Families of models, as a limiter's statistics name them.

Owns finding the family of a model. Must never take anything from a bucket.
"""

from __future__ import annotations

from collections.abc import Iterable

from ratelimit import RateLimiter
from ratelimit.families import pattern_of


def family_of(limiter: RateLimiter, model: str) -> str:
    """Return the name of a model's family."""
    return pattern_of(model, limiter.statistics().families) or model


def one_of_each_family(limiter: RateLimiter, models: Iterable[str]) -> Iterable[str]:
    """Return models with buckets of their own: the first of each family."""
    families = limiter.statistics().families
    found: dict[str, str] = {}
    for model in models:
        found.setdefault(pattern_of(model, families) or model, model)
    return found.values()
