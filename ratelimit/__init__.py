"""Client-side token-bucket rate limiter for the OpenAI API and its compatibles: calls
wait instead of getting a 429.
"""

from ratelimit.batch import run
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
from ratelimit.estimate import Estimate
from ratelimit.lease import Lease
from ratelimit.limiter import PATIENCE, RateLimiter
from ratelimit.limits import Cost, Limit, Limits
from ratelimit.statistics import FamilyStatistics, Statistics

__all__ = [
    "PATIENCE",
    "Cost",
    "Estimate",
    "EstimateWarning",
    "FamilyStatistics",
    "InvalidArgument",
    "Lease",
    "Limit",
    "LimiterError",
    "LimiterWarning",
    "Limits",
    "RateLimiter",
    "ReentrantUse",
    "RequestTooLarge",
    "Statistics",
    "WaitTimeout",
    "WouldBlock",
    "run",
]
