"""What a server says, read: headers, refusals, usage, and how a call failed.

Owns the meaning of foreign bytes and objects. Must never know the limiter, its queue,
its stores or its transport, do I/O, read a clock, or decide what to do.
"""

from ratelimit.feedback.answers import Outcome, read_error, read_error_answer
from ratelimit.feedback.bodies import JsonReader
from ratelimit.feedback.counts import Usage, read_usage
from ratelimit.feedback.failures import read_exception, read_exception_of_block, read_response
from ratelimit.feedback.headers import Reading, header_values, read_headers
from ratelimit.feedback.refusals import REFUSING_STATUSES, Refusal, read_refusal
from ratelimit.feedback.streams import SSEUsage, StreamUsage
from ratelimit.feedback.times import parse_duration

__all__ = [
    "REFUSING_STATUSES",
    "JsonReader",
    "Outcome",
    "Reading",
    "Refusal",
    "SSEUsage",
    "StreamUsage",
    "Usage",
    "header_values",
    "parse_duration",
    "read_error",
    "read_error_answer",
    "read_exception",
    "read_exception_of_block",
    "read_headers",
    "read_refusal",
    "read_response",
    "read_usage",
]
