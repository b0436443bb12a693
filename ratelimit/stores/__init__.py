"""Where buckets live.

A store holds the buckets of one family of models and takes from all of them in one
step, or from none. It knows no line and no waiting (nothing of `flow.py`): it answers
when to ask again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Protocol

from ratelimit.limits import Cost, Limits
from ratelimit.stores.bucket import Bucket

Marks = Sequence[tuple[Bucket, float]]
"""Per bucket its ``full_at`` right after a payment, less the corrections until then:
the level that this call's headers should confirm.
"""

Grant = tuple[int, int, Marks] | tuple[()]
"""What a payment leaves: the calls admitted so far, those in flight (this one included)
and the marks. Empty unless headers are listened to.
"""

NOTHING: Cost = MappingProxyType({})


class Store(Protocol):
    """Atomic over all its buckets, safe from any thread; `give` also from finalizers
    and signal handlers.
    """

    limits: Limits
    marking: bool
    admitted: int
    ended: int

    def take(self, cost: Cost, now: float) -> Grant | float:
        """Pay all, or answer the moment (seconds of the caller's clock, inf: not before
        somebody gives back) at which to ask again.
        """

    def give(self, cost: Cost, now: float, ends: bool) -> None:
        """Give amounts back (negative: debit late); ``ends`` says that the call is over
        and its concurrency slot free.
        """

    def spend(self, share: float, now: float) -> None:
        """Take this share, 0 to 1, out of every bucket: it was used before anybody
        looked.
        """

    def expect(self, slack: float) -> None:
        """Expect requests to arrive at most ``slack`` seconds after they were admitted
        (see `bucket.py`).
        """

    def moment(self, cost: Cost, ahead: Cost = NOTHING) -> float:
        """When ``cost`` would fit if nothing happened but that ``ahead``, the sum of
        several calls, is paid before it.
        """

    def mark(self) -> None:
        """Let grants carry marks from now on: headers are listened to."""

    def hold(self, concurrency: int | None, until: float = inf) -> None:
        """Let at most so many calls be in flight until then; None goes back to what the
        limits say.
        """

    def close(self, until: float) -> None:
        """Admit nobody before ``until``."""

    def levels(self, now: float) -> Mapping[tuple[str, float], float]:
        """The level of each bucket, by (name, period in seconds)."""

    def buckets_of(self, name: str) -> Sequence[Bucket]:
        """The buckets of one dimension, for corrections."""

    def correct(self, bucket: Bucket, seconds: float, now: float) -> None:
        """Move one bucket's ``full_at``: the server says that its level is lower
        (positive) or higher (negative).
        """

    def replace(self, limits: Limits, now: float) -> None:
        """Hold other limits from now on; what is owed under a limit of the same name
        and period stays owed.
        """

    @property
    def in_flight(self) -> int:
        """Calls between admission and settlement."""

    @property
    def concurrency(self) -> int | None:
        """How many calls may be in flight at once; None: any number."""

    @property
    def full(self) -> bool:
        """Whether as many calls are in flight as may be."""
