"""Several keys, deployments, providers and models behind one unchanged client.

Owns the room's face.
"""

from ratelimit.pool.leases import MemberLease
from ratelimit.pool.members.member import Member
from ratelimit.pool.pool import Pool
from ratelimit.pool.reservation import PoolReservation
from ratelimit.pool.snapshot import (
    MemberExplanation,
    MemberStatistics,
    PoolExplanation,
    PoolStatistics,
)

__all__ = [
    "Member",
    "MemberExplanation",
    "MemberLease",
    "MemberStatistics",
    "Pool",
    "PoolExplanation",
    "PoolReservation",
    "PoolStatistics",
]
