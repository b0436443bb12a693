"""Which refusals a limiter has counted already: one 429 passes several doors.

Owns the marks of errors and responses. Must never read a refusal or keep what it marks
alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from math import inf
from typing import Any, Final, TypeAlias

from ratelimit.feedback.untrusted import field

Marks: TypeAlias = weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, float]]

_counted_at: Final[Marks] = weakref.WeakKeyDictionary()
"""When, by error or response and by limiter, in seconds of the limiter's clock."""


def mark(source: object, limiter: object, now: float) -> None:
    """Note that a limiter has counted the refusal of this error or response."""
    try:
        _counted_at.setdefault(source, weakref.WeakKeyDictionary())[limiter] = now
    except Exception:  # noqa: BLE001  # it is built in, or its hash raises
        return  # a door further out counts it once more


def is_marked(error: BaseException | None, limiter: object, admitted_at: float) -> bool:
    """Return whether this limiter has counted the refusal that an error brings.

    :param admitted_at: when the call that it ends was admitted. What was counted before
        that was another refusal, though the same object brings both.
    """
    return any(_marked_at(thing, limiter) >= admitted_at for thing in _parts(error))


def _marked_at(thing: object, limiter: object) -> float:
    try:
        return _counted_at[thing][limiter]
    except Exception:  # noqa: BLE001  # it is not marked, or as above cannot be
        return -inf


def _parts(source: object) -> Iterator[object]:
    """Yield an error, those that it was raised from, and the responses they hold."""
    for _ in range(10):
        yield source
        response = field(source, "response")
        if response is not None:
            yield response
        source = getattr(source, "__cause__", None)
        if source is None:
            return
