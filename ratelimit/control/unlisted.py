"""The families of models that no limit was given for.

Owns which of them are kept. Model names come from requests and may be any text, so they
are never taken for patterns, and a family whose calls are over may be dropped. Must
never price or wait: it makes families and hands them out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ratelimit.control.family import ModelFamily
from ratelimit.errors import caution
from ratelimit.families import base_model
from ratelimit.limits import Limits

MOST: Final = 500
"""Idle families kept, the last used; a model met again later starts with full buckets.

OpenRouter, the largest shop, sells about 400 models.
"""


class UnlistedModels:
    """One family for each base model, made when a model of it is first met.

    :param make: makes a family of that name with these limits.
    """

    def __init__(self, make: Callable[[str, Limits], ModelFamily]) -> None:
        self._make = make
        self._families: dict[str, ModelFamily] = {}  # the last used stands last
        self._warned = 0
        # Reentrant: a signal handler that interrupts the holder may come in, and every
        # step leaves the families in order.
        self._lock = threading.RLock()
        self.refused = 0
        """429s of the families that were dropped."""

    def family(self, model: str) -> ModelFamily:
        """Return the family of a model; the first of each family is made with a warning."""
        name = base_model(model)
        with self._lock:
            family = self._families.pop(name, None)
            new = family is None and self._warned < MOST  # Python keeps every warning
            if family is None:
                self._make_room()
                family = self._make(name, Limits())
                self._warned += 1
            self._families[name] = family
        if new:
            caution(
                f"no limit is given for model {model!r}: it passes without waiting, until a "
                'wrapped client has learned limits from an answer; add it, or "*", to limits=',
                stacklevel=6,
            )
        return family

    def _make_room(self) -> None:
        """Drop the longest unused idle families beyond `MOST`."""
        for name, family in list(self._families.items()):
            if len(self._families) < MOST:
                return
            if family.admission.idle:
                self._families.pop(name, None)
                self.refused += family.controller.refused

    def families(self) -> dict[str, ModelFamily]:
        """Return the families of now, by name."""
        with self._lock:
            return dict(self._families)

    def reset_after_fork(self) -> None:
        """Take a new lock: the holder of the old one belongs to the parent process."""
        self._lock = threading.RLock()
