"""What commands ask of a limiter besides leases: limits, prices, and model families.

Owns these questions. Must never take anything from a bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ratelimit import Limits, RateLimiter
from ratelimit.families import pattern_of


def limits_of(limiter: RateLimiter, model: str) -> Limits:
    """Return the limits that are held for a model, learned ones included."""
    return limiter.family(model).store.limits


def price(limiter: RateLimiter, body: Mapping[str, Any], endpoint: str | None) -> dict[str, float]:
    """Return what a request body would cost in each bucket."""
    estimate = limiter.estimate(body, endpoint=endpoint)
    return limiter.cost_of(estimate, limiter.family(estimate.model))


def family_of(limiter: RateLimiter, model: str) -> str:
    """Return the name of a model's family, as in the limiter's statistics."""
    return pattern_of(model, limiter.statistics().families) or model


def one_of_each_family(limiter: RateLimiter, models: Iterable[str]) -> Iterable[str]:
    """Return models with buckets of their own: the first of each family."""
    families = limiter.statistics().families
    found: dict[str, str] = {}
    for model in models:
        found.setdefault(pattern_of(model, families) or model, model)
    return found.values()
