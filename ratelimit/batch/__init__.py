"""A file of requests in, a file of answers out; and the same as a function.

Owns no code. `requests`, `results` and `lines` know the forms, `journal` keeps the file
of results, `running` asks. What must never come in: the command line and whatever only
it needs.
"""

from ratelimit.batch.requests import Request
from ratelimit.batch.results import Result
from ratelimit.batch.running import Batch, run

__all__ = ["Batch", "Request", "Result", "run"]
