"""pydantic-ai's hook: the `limiter=` of a `ConcurrencyLimitedModel`.

Owns the translation of its acquire and release into a lease. Must never import
pydantic-ai before an adapter is made.

The hook shows neither the request nor the answer: each call costs what the adapter was
given and keeps it; for `concurrency=` it is over when it is released. A release does
not say of which call, so all calls of one adapter are of one model's limits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, cast

from ratelimit.adapters.cost import options_of
from ratelimit.errors import InvalidArgument
from ratelimit.lease import AdmittedLease
from ratelimit.limiter import RateLimiter

if TYPE_CHECKING:
    from pydantic_ai.concurrency import AbstractConcurrencyLimiter


def concurrency_limiter(
    limiter: RateLimiter,
    *,
    tokens: float,
    model: str = "",
    timeout: float | None = None,
    priority: str | float = "normal",
    tenant: str | None = None,
) -> AbstractConcurrencyLimiter:
    """Return what a `ConcurrencyLimitedModel` takes as `limiter=`.

    :param tokens: that a request uses, prompt and answer; 0 where only requests are
        limited.
    :param model: the name by which the limits of its requests are found.
    :param timeout: seconds that a request may wait at most; see `RateLimiter.reserve`.
    :param priority: see `RateLimiter.reserve`.
    :param tenant: see `RateLimiter.reserve`.

    Raises `InvalidArgument` on what cannot be used.
    """
    from pydantic_ai.concurrency import AbstractConcurrencyLimiter  # noqa: PLC0415  # not ours

    options = options_of(limiter, tokens, model, timeout, priority, tenant)
    leases: deque[AdmittedLease] = deque()

    class Admitting(AbstractConcurrencyLimiter):
        """Admits each request by the limiter."""

        async def acquire(self, source: str) -> None:  # noqa: ARG002  # the hook's parameter
            """Wait for a request's turn."""
            leases.append(cast(AdmittedLease, await limiter.acquire(**options)))

        def release(self) -> None:
            """End a request: any, as all are of one family and one cost.

            One that was ended already, with its event loop, has no release to come.
            """
            if not leases:
                raise InvalidArgument("release() follows an acquire(), once")
            while leases:
                lease = leases.popleft()
                if not lease.ended:
                    lease.close()
                    break

    return Admitting()
