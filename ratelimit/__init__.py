"""Client-side token-bucket rate limiter for the OpenAI API and its compatibles.

Calls wait instead of getting a 429. Owns the public names; must never hold code but the
lookup of the version.
"""

import typing as _typing

from ratelimit._clash import warn_of_clash as _warn_of_clash
from ratelimit.admission.clock import Clock
from ratelimit.batch import Request, Result, run
from ratelimit.budget import Budget, Prices, Spent
from ratelimit.control.pricing import Accounting
from ratelimit.errors import (
    BudgetSpent,
    EstimateWarning,
    InvalidArgument,
    LimiterError,
    LimiterWarning,
    ReentrantUse,
    RequestTooLarge,
    StoreUnavailable,
    WaitTimeout,
    WouldBlock,
)
from ratelimit.estimate import Estimate, EstimatorStatistics, Learned
from ratelimit.events import Subscription
from ratelimit.feedback import Usage
from ratelimit.lease import Lease, current_lease
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limit, Limits
from ratelimit.pool import (
    Member,
    MemberExplanation,
    MemberLease,
    MemberStatistics,
    Pool,
    PoolExplanation,
    PoolReservation,
    PoolStatistics,
)
from ratelimit.reservation import Reservation
from ratelimit.statistics import (
    Explanation,
    FamilyExplanation,
    FamilyStatistics,
    KnownLimit,
    Statistics,
)
from ratelimit.telemetry.live import live

__all__ = [
    "Accounting",
    "Budget",
    "BudgetSpent",
    "Clock",
    "Estimate",
    "EstimateWarning",
    "EstimatorStatistics",
    "Explanation",
    "FamilyExplanation",
    "FamilyStatistics",
    "InvalidArgument",
    "KnownLimit",
    "Learned",
    "Lease",
    "Limit",
    "LimiterError",
    "LimiterWarning",
    "Limits",
    "Member",
    "MemberExplanation",
    "MemberLease",
    "MemberStatistics",
    "Pool",
    "PoolExplanation",
    "PoolReservation",
    "PoolStatistics",
    "Prices",
    "RateLimiter",
    "ReentrantUse",
    "Request",
    "RequestTooLarge",
    "Reservation",
    "Result",
    "Spent",
    "Statistics",
    "StoreUnavailable",
    "Subscription",
    "Usage",
    "WaitTimeout",
    "WouldBlock",
    "current_lease",
    "live",
    "run",
]

_warn_of_clash()

if _typing.TYPE_CHECKING:
    __version__: str
    """The version of the installed distribution."""
else:

    def __getattr__(name):
        """Look up `__version__` when it is asked for: reading metadata is slow."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ratelimit.installation import version  # noqa: PLC0415  # slow, and seldom needed

        return version()
