"""What a server says about its limits, read: headers, refusals, usage, and what an
exception tells.

Owns: the meaning of foreign bytes. Must never come in: the limiter, its line, its
stores, its transport, any I/O or clock.
"""

from ratelimit.feedback.exceptions import Outcome, read_exception
from ratelimit.feedback.headers import Reading, parse_duration, read_headers
from ratelimit.feedback.refusals import Refusal, read_error, read_refusal
from ratelimit.feedback.usage import SSEUsage, StreamUsage, Usage, read_usage

__all__ = [
    "Outcome",
    "Reading",
    "Refusal",
    "SSEUsage",
    "StreamUsage",
    "Usage",
    "parse_duration",
    "read_error",
    "read_exception",
    "read_headers",
    "read_refusal",
    "read_usage",
]
