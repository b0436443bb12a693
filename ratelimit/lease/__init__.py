"""What a call holds from its admission to its settlement.

Owns the room's face: `Lease` for users, the rest for the doors of this package.
"""

from ratelimit.lease.admitted import (
    CURRENT,
    AdmittedLease,
    Current,
    current_lease,
    enclosing_lease,
    payment_around,
)
from ratelimit.lease.lease import Lease

__all__ = [
    "CURRENT",
    "AdmittedLease",
    "Current",
    "Lease",
    "current_lease",
    "enclosing_lease",
    "payment_around",
]
