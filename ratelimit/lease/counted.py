"""Which refusals a limiter has counted already: one 429 passes several doors.

Owns the marks of errors and responses. Must never read a refusal or keep what it marks
alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Final

_by: Final[weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]]] = weakref.WeakKeyDictionary()


def mark(source: object, limiter: object) -> None:
    """Note that a limiter has counted the refusal of this error or response."""
    try:
        _by.setdefault(source, weakref.WeakSet()).add(limiter)
    except TypeError:
        return  # it has no hash or is built in: a door further out counts it once more


def is_marked(error: BaseException, limiter: object) -> bool:
    """Return whether this limiter has counted the refusal that an error brings."""
    for thing in _parts(error):
        try:
            if limiter in _by.get(thing, ()):
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
