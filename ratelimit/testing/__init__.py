"""A server and clocks for tests: FakeOpenAI enforces limits as real servers do.

Owns no code. Must never hold anything that the limiter needs to run.
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
