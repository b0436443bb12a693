"""How long limits make a workload take, by plain arithmetic.

Owns that one sum, in which no bucket takes part. Must never send or show.
"""

from __future__ import annotations


def least_seconds(tokens: float, tpm: float | None, requests: float, rpm: float | None) -> float:
    """Return the seconds until the last call may be sent, from full buckets.

    That is what exceeds a full bucket, at the rate of the slower limit.
    """
    excess = [
        max(amount - limit, 0) / limit
        for amount, limit in ((tokens, tpm), (requests, rpm))
        if limit is not None
    ]
    return 60 * max(excess, default=0)
