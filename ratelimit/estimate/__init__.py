"""A request body in, what it will cost out.

Owns this room's face, from which other rooms import: billed tokens, expected output and
the charge of the server's limiter. Must never wait, read a clock or know HTTP.
"""

from ratelimit.estimate.estimator import Estimator
from ratelimit.estimate.results import Estimate, EstimatorStatistics, Learned

__all__ = ["Estimate", "Estimator", "EstimatorStatistics", "Learned"]
