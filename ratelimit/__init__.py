"""Client-side token-bucket rate limiter for the OpenAI API and its compatibles.

Calls wait instead of getting a 429. Owns the public names; must never hold code.
"""

from ratelimit.admission.clock import Clock
from ratelimit.batch import Request, Result, run
from ratelimit.control.pricing import Accounting
from ratelimit.errors import (
    EstimateWarning,
    InvalidArgument,
    LimiterError,
    LimiterWarning,
    ReentrantUse,
    RequestTooLarge,
    WaitTimeout,
    WouldBlock,
)
from ratelimit.estimate import Estimate, EstimatorStatistics, Learned
from ratelimit.feedback import Usage
from ratelimit.lease import Lease, current_lease
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limit, Limits
from ratelimit.reservation import Reservation
from ratelimit.statistics import FamilyStatistics, Statistics

__all__ = [
    "Accounting",
    "Clock",
    "Estimate",
    "EstimateWarning",
    "EstimatorStatistics",
    "FamilyStatistics",
    "InvalidArgument",
    "Learned",
    "Lease",
    "Limit",
    "LimiterError",
    "LimiterWarning",
    "Limits",
    "RateLimiter",
    "ReentrantUse",
    "Request",
    "RequestTooLarge",
    "Reservation",
    "Result",
    "Statistics",
    "Usage",
    "WaitTimeout",
    "WouldBlock",
    "current_lease",
    "run",
]
