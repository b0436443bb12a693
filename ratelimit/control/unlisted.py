"""The lanes of models that no limit was given for.

Owns which of them are kept: names come from requests and may be any text, so they are
never taken for patterns, and a lane whose calls are over may be forgotten. Knows no
costs and no waiting: it makes lanes and hands them out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ratelimit.errors import caution
from ratelimit.families import base_model
from ratelimit.limits import Limits

if TYPE_CHECKING:
    from ratelimit.control.family import ModelFamily

MOST: Final = 500
"""Families kept with nobody in them, the last used; OpenRouter, the largest shop, sells
about 400. Whose turn comes again starts afresh.
"""


class UnlistedModels:
    """One lane per family, made when a model of it is first met.

    :param make: makes the lane of a family with its limits.
    """

    def __init__(self, make: Callable[[str, Limits], ModelFamily]) -> None:
        self._make = make
        self._lanes: dict[str, ModelFamily] = {}  # the last used stands last
        self._warned = 0
        # a signal handler that interrupts the holder may go in: every step leaves the
        # lanes in order
        self._lock = threading.RLock()
        self.refused = 0
        """429s of the families that were forgotten."""

    def family(self, model: str) -> ModelFamily:
        """The lane of a model's family; the first one of each family is made with a
        warning.
        """
        family = base_model(model)
        with self._lock:
            lane = self._lanes.pop(family, None)
            # a warning is remembered for good, by Python
            new = lane is None and self._warned < MOST
            if lane is None:
                self._forget()
                lane = self._make(family, Limits())
                self._warned += 1
            self._lanes[family] = lane
        if new:
            caution(
                f"no limit is given for model {model!r}: it passes without waiting, until a wrapped client has learned limits from an answer;"
                ' add it, or "*", to limits=',
                stacklevel=6,
            )
        return lane

    def _forget(self) -> None:
        """Make room for one more, if that can be done without taking a lane away from
        its calls.
        """
        for family, lane in list(self._lanes.items()):
            if len(self._lanes) < MOST:
                return
            if lane.idle:
                self._lanes.pop(family, None)
                self.refused += lane.refused

    def families(self) -> dict[str, ModelFamily]:
        """Those of now, by family."""
        with self._lock:
            return dict(self._lanes)

    def forget_others(self) -> None:
        """After a fork: whoever held the lock belongs to the parent process."""
        self._lock = threading.RLock()
