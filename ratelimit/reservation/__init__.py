"""A call on its way to its lease.

Owns the room's face.
"""

from ratelimit.reservation.making import admit_by_hand, calls_of, reservation_of
from ratelimit.reservation.waiting import CallReservation, Reservation, deadline_of

__all__ = [
    "CallReservation",
    "Reservation",
    "admit_by_hand",
    "calls_of",
    "deadline_of",
    "reservation_of",
]
