"""Every exception and warning of the package.

Owns the whole tree, how it survives pickling and copying, what a message shows of a
value, and `caution`, which warns without breaking a call. Must never import anything
else of the package.

    LimiterError
    ├── InvalidArgument   an argument cannot be used (also a ValueError and a TypeError)
    ├── RequestTooLarge   the cost can never fit its limit (also a ValueError)
    ├── WaitTimeout       the wait is, or will be, longer than ``timeout`` (also a
    │                     TimeoutError)
    ├── WouldBlock        ``acquire_nowait`` would have to wait
    ├── BudgetSpent       the call would exceed what ``budget=`` allows in all
    ├── StoreUnavailable  the store that processes share is lost, and that was to be
    │                     said (also a ConnectionError)
    └── ReentrantUse      a call that can never go on: made by a signal handler or a
                          finalizer that interrupted the limiter in its own thread, or
                          blocking behind a task of its own event loop

    LimiterWarning        something degraded, no call was broken; given once per cause
    └── EstimateWarning   a body, or a part of it, could only be guessed
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from functools import lru_cache
from typing import Any, Self, TypeVar

E = TypeVar("E", bound=BaseException)


class LimiterError(Exception):
    """Base of every exception that this package raises of its own.

    A copy, also one that was pickled in another process, is of the same kind and has
    the same message and attributes. A class that pickle cannot find by its name is
    composed again from its bases: wrapped clients raise errors that are an
    `openai.OpenAIError` as well, and their class is made at run time.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _composed, (_importable_bases(type(self)), self.args, self.__dict__.copy())

    def __copy__(self) -> Self:
        return _restored(type(self), self.args, self.__dict__.copy())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        state = copy.deepcopy((self.args, self.__dict__), memo)
        return _restored(type(self), *state)


class InvalidArgument(LimiterError, ValueError, TypeError):
    """An argument cannot be used; the message says what would do."""


class RequestTooLarge(LimiterError, ValueError):
    """The cost is above a limit, so no amount of waiting helps.

    The server refuses such a request as well ("Request too large for ...").

    :param name: the limit's dimension, such as "tokens".
    :param amount: what the request costs, in the unit of ``limit``.
    :param limit: what the limit allows per period.
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

    Raised at once when the predicted wait already exceeds the timeout.

    :param retry_after: the predicted wait in seconds; None where it depends on other
        calls that have to end first.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WouldBlock(LimiterError):
    """``acquire_nowait`` would have to wait; nothing was taken.

    :param retry_after: for how long, in seconds; None where another call has to end
        first.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BudgetSpent(LimiterError):
    """The call would exceed the budget; it was not sent, and nothing was taken.

    :param name: what the budget is of: "requests", "tokens" or "money".
    :param budget: what may be spent of it in all.
    :param spent: what is spent of it; what calls in flight may cost comes on top.
    """

    def __init__(
        self, message: str, *, name: str = "", budget: float = 0, spent: float = 0
    ) -> None:
        super().__init__(message)
        self.name = name
        self.budget = budget
        self.spent = spent


class ReentrantUse(LimiterError, RuntimeError):
    """A call that could never go on.

    It was asked for by code that interrupted the limiter in the same thread (a signal
    handler, a finalizer), or would block its thread behind a task of that thread's own
    event loop.
    """


class StoreUnavailable(LimiterError, ConnectionError):
    """The store that processes share is lost, and ``on_store_error="raise"``."""


class LimiterWarning(RuntimeWarning):
    """Something degraded without breaking a call."""


class EstimateWarning(LimiterWarning):
    """The tokens of a request body could only be guessed."""


def caution(
    message: str, category: type[LimiterWarning] = LimiterWarning, *, stacklevel: int = 2
) -> None:
    """Warn, or log where warnings are errors: a degradation must not break a call.

    :param stacklevel: as of `warnings.warn`, counted from the caller.
    """
    try:
        warnings.warn(message, category, stacklevel=stacklevel + 1)
    except category:
        logging.getLogger("ratelimit").warning(message)


def _importable_bases(kind: type) -> tuple[type, ...]:
    """Return ``kind``, or the nearest of its ancestors that pickle finds by name."""
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)

    if found is kind:
        return (kind,)
    return tuple(dict.fromkeys(base for each in kind.__bases__ for base in _importable_bases(each)))


@lru_cache(maxsize=64)
def _composite(bases: tuple[type, ...]) -> type[Any]:
    """Return the class with these bases, named like the first one."""
    if len(bases) == 1:
        return bases[0]
    first = bases[0]
    return type(first.__name__, bases, {"__module__": first.__module__, "__doc__": first.__doc__})


def _composed(bases: tuple[type, ...], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    """Unpickle an error: find or compose its class and restore it."""
    return _restored(_composite(bases), args, state)


def _restored(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Make an error without its ``__init__``, which may want other arguments."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def shown(value: object) -> str:
    """Return what a message shows of a value that cannot be used.

    Of anything but numbers and short texts that is the type only: a body that was
    passed in the wrong place holds prompts and keys.
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else repr(value[:40] + "...")

    if value is None or isinstance(value, (bool, float, complex)):
        return repr(value)

    if isinstance(value, int):  # Python refuses to print more than 4,300 digits
        return repr(value) if abs(value) <= 10**15 else "a number beyond it"

    return f"{type(value).__name__!r} object"
