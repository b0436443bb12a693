"""llama-index's hook: the `rate_limiter=` of any language or embedding model.

Owns the translation of its questions, in threads and tasks, into admissions. Must never
import llama-index before an adapter is made.

The hook shows neither the request nor the answer, at most a number of tokens: each call
costs that or what the adapter was given, keeps it, and is over for `concurrency=` as
soon as it is admitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimit.adapters.cost import options_of
from ratelimit.limiter import RateLimiter

if TYPE_CHECKING:
    from llama_index.core.rate_limiter import BaseRateLimiter


def rate_limiter(
    limiter: RateLimiter,
    *,
    tokens: float,
    model: str = "",
    timeout: float | None = None,
    priority: str | float = "normal",
    tenant: str | None = None,
) -> BaseRateLimiter:
    """Return what a language or embedding model takes as `rate_limiter=`.

    :param tokens: that a call uses, prompt and answer, where llama-index does not say;
        0 where only requests are limited.
    :param model: the name by which the limits of its calls are found.
    :param timeout: seconds that a call may wait at most; see `RateLimiter.reserve`.
    :param priority: see `RateLimiter.reserve`.
    :param tenant: see `RateLimiter.reserve`.

    Raises `InvalidArgument` on what cannot be used.
    """
    from llama_index.core.rate_limiter import BaseRateLimiter  # noqa: PLC0415  # not ours

    options = options_of(limiter, tokens, model, timeout, priority, tenant)

    def of_tokens(number: int) -> dict[str, Any]:
        return {**options, "tokens": number} if number else options

    class Admitting(BaseRateLimiter):
        """Admits each call by the limiter."""

        def acquire(self, num_tokens: int = 0) -> None:
            """Wait in the thread for a call's turn."""
            limiter.acquire_sync(**of_tokens(num_tokens)).close()

        async def async_acquire(self, num_tokens: int = 0) -> None:
            """Wait in the task for a call's turn."""
            (await limiter.acquire(**of_tokens(num_tokens))).close()

    return Admitting()
