"""A request body in, what it will cost out: billed tokens, expected output, and the
charge of the server's limiter.

This is the room's face; other rooms import from here only. Nothing in this room waits,
reads a clock or knows HTTP.
"""

from ratelimit.estimate.estimator import Estimator
from ratelimit.estimate.results import Estimate, EstimatorStatistics, Learned

__all__ = ["Estimate", "Estimator", "EstimatorStatistics", "Learned"]
