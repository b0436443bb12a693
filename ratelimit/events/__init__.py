"""What a limiter reports while it works: frozen records, and how they are delivered.

Owns no code. Must never know a queue, a store or a server: the rooms above hand up
plain figures.
"""

from ratelimit.events.delivery import Hook, Subscription, flush
from ratelimit.events.records import (
    Admission,
    Concluded,
    Degraded,
    Event,
    LimitsChanged,
    Recovered,
    Refused,
    Routed,
    Settled,
    StoreBack,
    StoreLost,
    Waited,
    Waiting,
)

__all__ = [
    "Admission",
    "Concluded",
    "Degraded",
    "Event",
    "Hook",
    "LimitsChanged",
    "Recovered",
    "Refused",
    "Routed",
    "Settled",
    "StoreBack",
    "StoreLost",
    "Subscription",
    "Waited",
    "Waiting",
    "flush",
]
