"""How far a bucket's level is from the server's, seen in header after header.

Owns the judgement by how many seconds a bucket's ``full_at`` should move. Must never
move it, lock or read a clock (moments are arguments).

The header of call k shows the server's level when k arrived. Our own level right after
k's admission is known from its payment, so the difference is the drift, once what was
corrected since is taken off. Three things blur it:

* *When* k arrived lies between its admission and its headers: a lower level is taken
  for the earliest arrival, a higher one for the latest. The first answer of all is
  taken for the latest arrival either way: the calls that it lets go are a burst, and
  must fit.
* *Reserves*: while it is not known how the server charges, we debit the expected output
  of all that is in flight, the server perhaps only its input. So our level is lower
  than the server's by rights, and what a call gives back when it is settled must not be
  given back by its headers as well. A lower level is taken with the call's excess on
  top. A higher level counts only for a call that flew alone, and then less all that the
  call may give back; or, once the server has shown that it charges the input only, less
  what was sent shortly before the call and may have arrived after it.
* *Order*: calls admitted after k may have arrived before it, and their debits show in
  k's header. With 100 calls in flight that looks like a drift of dozens of calls, now
  up, now down. So when others were admitted after k, as many headers (at most 8) have
  to agree, and the smallest drift of them counts. A call that nothing overtook counts
  alone, at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

AGREEING: Final = 8
"""Headers that have to agree, at most, before a level is corrected."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer's headers show of one bucket, beside what was predicted.

    Amounts are in the limit's unit, moments and times in seconds of one clock.
    """

    level: float
    """What the server has left, right after this call's charge."""
    burst: float
    """Our bucket's capacity."""
    seconds_per_unit: float
    admitted_at: float
    """When the call was admitted."""
    headers_at: float
    """When its headers came."""
    full_at: float
    """Our bucket's, right after this call's admission, less what had been corrected."""
    corrected: float
    """Seconds corrected in all until now."""
    above_burst: float = 0.0
    """What the limit allows above the burst.

    A server that has that much left is no reason to let more go at once.
    """
    excess: float = 0.0
    """What was debited for the call beyond the server's charge, and comes back."""
    refundable: float = 0.0
    """All that was debited for the call and may come back when it is settled: the
    charge too, if it was estimated too high.
    """
    in_transit: float = 0.0
    """What was charged shortly before the call and may have arrived after it."""
    admitted_since: int = 0
    """Calls admitted between its admission and its headers."""
    was_alone: bool = True
    """Whether no other call was in flight when it was admitted."""
    input_only: bool = False
    """Whether the server is known to charge the input only, when a call arrives."""


class Drift:
    """How far one bucket is from the server's."""

    __slots__ = ("_highest", "_lowest")

    def __init__(self) -> None:
        self._highest: deque[float] = deque(maxlen=AGREEING)
        self._lowest: deque[float] = deque(maxlen=AGREEING)

    def observe(self, seen: Observation) -> float:
        """Return the seconds by which ``full_at`` should move; later means lower."""
        alone = seen.was_alone and seen.admitted_since == 0
        if alone and not self._lowest:
            missing = (seen.burst - seen.level + seen.excess) * seen.seconds_per_unit
            down = seen.headers_at + missing - seen.full_at - seen.corrected
            if down > 0:
                return down

        # The server cuts its level to whole units: it may be one unit higher.
        missing = (seen.burst - seen.level - 1 + seen.excess) * seen.seconds_per_unit
        self._lowest.append(seen.admitted_at + missing - seen.full_at)
        needed = min(seen.admitted_since, AGREEING - 1) + 1
        if len(self._lowest) >= needed:
            down = min(list(self._lowest)[-needed:]) - seen.corrected
            if down > 0:
                return down

        missing = seen.burst + seen.above_burst - seen.level + seen.refundable + seen.in_transit
        highest = seen.headers_at + missing * seen.seconds_per_unit - seen.full_at
        self._highest.append(highest)
        if alone:
            own = highest - seen.in_transit * seen.seconds_per_unit
            return min(own - seen.corrected, 0.0)
        if seen.input_only and len(self._highest) == AGREEING:
            return min(max(self._highest) - seen.corrected, 0.0) / 2
        return 0.0
