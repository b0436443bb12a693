"""The error tree, whole.

Owns every exception and warning of the package; imports nothing of it.

    LimiterError
    ├── InvalidArgument     an argument cannot be used (also a ValueError and a TypeError)
    ├── RequestTooLarge     the cost can never fit its limit, however long one waits (also a ValueError)
    ├── WaitTimeout         the wait is, or is predicted to be, longer than ``timeout`` (also a TimeoutError)
    ├── WouldBlock          ``acquire_nowait`` would have to wait
    ├── ReentrantUse        a call that can never go on: asked for by what interrupted the limiter in its own thread (a signal
    │                       handler, a finalizer), or blocking behind a task of its own event loop
    └── StoreUnavailable    the place where the buckets live is gone

    LimiterWarning          something degraded, no call was broken; given once per cause
    └── EstimateWarning     a body, or a part of it, could only be guessed at
"""

from __future__ import annotations

import logging
import warnings


class LimiterError(Exception):
    """Whatever this package raises of its own."""


class InvalidArgument(LimiterError, ValueError, TypeError):
    """An argument cannot be used; the message says what would do."""


class RequestTooLarge(LimiterError, ValueError):
    """The cost is above a limit, so no amount of waiting helps.

    ``name`` is the limit's dimension ("tokens"), ``amount`` what the request costs and
    ``limit`` what the limit allows per period, in the same unit. The server refuses
    such a request for ever as well ("Request too large for ...").
    """

    def __init__(
        self, message: str, *, name: str = "", amount: float = 0, limit: float = 0
    ) -> None:
        super().__init__(message)
        self.name = name
        self.amount = amount
        self.limit = limit


class WaitTimeout(LimiterError, TimeoutError):
    """Waiting takes longer than ``timeout``; nothing was taken.

    Raised at once when the predicted wait already exceeds the timeout. ``predicted`` is
    that wait in seconds, None when it could not be told.
    """

    def __init__(self, message: str, *, predicted: float | None = None) -> None:
        super().__init__(message)
        self.predicted = predicted


class WouldBlock(LimiterError):
    """``acquire_nowait`` would have to wait; ``wait`` says for how long, in seconds
    (None: until another call ends).
    """

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class ReentrantUse(LimiterError, RuntimeError):
    """A call that could never go on.

    It was asked for by code that interrupted the limiter in the same thread (a signal
    handler, a finalizer), or would block its thread behind a task of that thread's own
    event loop.
    """


class StoreUnavailable(LimiterError):
    """The store that holds the buckets does not answer."""


class LimiterWarning(RuntimeWarning):
    """Something degraded without breaking a call."""


class EstimateWarning(LimiterWarning):
    """A request body could only be guessed at."""


def caution(
    message: str, category: type[LimiterWarning] = LimiterWarning, *, stacklevel: int = 2
) -> None:
    """Warn; where warnings are errors, log instead: what only degrades must not break a
    call even then.
    """
    try:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    except category:
        logging.getLogger("ratelimit").warning(message)
