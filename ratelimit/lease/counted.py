"""Which refusals a limiter has counted already: one 429 passes several doors.

Owns the marks of errors and responses. Must never read a refusal or keep what it marks
alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from math import inf
from typing import Any, Final, TypeAlias

Marks: TypeAlias = weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, float]]

_counted_at: Final[Marks] = weakref.WeakKeyDictionary()
"""When, by error or response and by limiter, in seconds of the limiter's clock."""


def mark(source: object, limiter: object, now: float) -> None:
    """Note that a limiter has counted the refusal of this error or response."""
    try:
        _counted_at.setdefault(source, weakref.WeakKeyDictionary())[limiter] = now
    except TypeError:
        return  # it has no hash or is built in: a door further out counts it once more


def is_marked(error: BaseException | None, limiter: object, admitted_at: float) -> bool:
    """Return whether this limiter has counted the refusal that an error brings.

    :param admitted_at: when the call that it ends was admitted. What was counted before
        that was another refusal, though the same object brings both.
    """
    for thing in _parts(error):
        try:
            counted_at = _counted_at.get(thing)
            if counted_at is not None and counted_at.get(limiter, -inf) >= admitted_at:
                return True
        except TypeError:
            continue  # as above: it cannot have been marked
    return False


def _parts(source: object) -> Iterator[object]:
    """Yield an error, those that it was raised from, and the responses they hold."""
    for _ in range(10):
        yield source
        response = getattr(source, "response", None)
        if response is not None:
            yield response
        source = getattr(source, "__cause__", None)
        if source is None:
            return
