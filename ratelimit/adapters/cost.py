"""What a call costs of which its framework's hook shows nothing.

Owns the check of an adapter's options, so that a wrong one is an error where it is
given. Must never admit a call.
"""

from __future__ import annotations

from typing import Any

from ratelimit.limiter import RateLimiter


def options_of(
    limiter: RateLimiter,
    tokens: float,
    model: str,
    timeout: float | None,
    priority: str | float,
    tenant: str | None,
) -> dict[str, Any]:
    """Return what `limiter.acquire` takes for one call.

    Raises `InvalidArgument` on what cannot be used.
    """
    options: dict[str, Any] = {"tokens": tokens, "requests": 1, "model": model}
    options |= {"timeout": timeout, "priority": priority, "tenant": tenant}
    limiter.reserve(**options)  # raises, and takes nothing
    return options
