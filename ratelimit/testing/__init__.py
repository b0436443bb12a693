"""Servers and clocks for tests, ours and yours: FakeOpenAI enforces limits as the real
servers do.

Owns no code. What must never come in: anything the limiter needs to run.
"""

from ratelimit.testing.answers import Latency
from ratelimit.testing.clocks import Deadlock, ThreadClock, TrioClock, VirtualClock, run_virtual
from ratelimit.testing.faults import Fault
from ratelimit.testing.ledger import Entry, Ledger, Usage
from ratelimit.testing.server import FakeOpenAI

__all__ = [
    "Deadlock",
    "Entry",
    "FakeOpenAI",
    "Fault",
    "Latency",
    "Ledger",
    "ThreadClock",
    "TrioClock",
    "Usage",
    "VirtualClock",
    "run_virtual",
]
