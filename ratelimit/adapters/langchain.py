"""LangChain's hook: the `rate_limiter=` of any chat model.

Owns the translation of its two questions, blocking and not, into admissions. Must never
import LangChain before an adapter is made.

The hook shows neither the request nor the answer: each call costs what the adapter was
given, keeps it, and is over for `concurrency=` as soon as it is admitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimit.adapters.cost import options_of
from ratelimit.errors import WouldBlock
from ratelimit.limiter import RateLimiter

if TYPE_CHECKING:
    from langchain_core.rate_limiters import BaseRateLimiter


def rate_limiter(
    limiter: RateLimiter,
    *,
    tokens: float,
    model: str = "",
    timeout: float | None = None,
    priority: str | float = "normal",
    tenant: str | None = None,
) -> BaseRateLimiter:
    """Return what a chat model takes as `rate_limiter=`.

    :param tokens: that a call uses, prompt and answer; 0 where only requests are
        limited.
    :param model: the name by which the limits of its calls are found.
    :param timeout: seconds that a call may wait at most; see `RateLimiter.reserve`.
    :param priority: see `RateLimiter.reserve`.
    :param tenant: see `RateLimiter.reserve`.

    Raises `InvalidArgument` on what cannot be used.
    """
    from langchain_core.rate_limiters import BaseRateLimiter  # noqa: PLC0415  # not ours

    options = options_of(limiter, tokens, model, timeout, priority, tenant)

    class Admitting(BaseRateLimiter):
        """Admits each call by the limiter."""

        def acquire(self, *, blocking: bool = True) -> bool:
            """Wait for a call's turn, or say at once whether it can go."""
            if not blocking:
                return self._admitted_now()
            limiter.acquire_sync(**options).close()
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            """Do the same in a task."""
            if not blocking:
                return self._admitted_now()
            (await limiter.acquire(**options)).close()
            return True

        def _admitted_now(self) -> bool:
            try:
                limiter.acquire_nowait(**options).close()
            except WouldBlock:
                return False
            return True

    return Admitting()
