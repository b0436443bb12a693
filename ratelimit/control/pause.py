"""For how long a refusal pauses a family, and when the server is asked again.

Owns the pauses that no refusal names, how long a server's word can stop all calls
before one call is sent to ask, and when its word that a call is too large is sure.
Must never close a queue: it returns seconds.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from ratelimit.feedback import Refusal

FIRST_PAUSE: Final = 1.0
"""Seconds, where a refusal names no moment."""
LONGEST_PAUSE: Final = 60.0
"""Seconds."""

QUOTA_PAUSE: Final = 60.0
"""Seconds after which a quota that may be a rate has refilled (Alibaba's page)."""


class Quota:
    """Refusals by a code that means spent credit with one server and a rate elsewhere.

    The code is final when a call that was sent after a minute's pause is refused in the
    same way, with no answer in between.
    """

    __slots__ = ("_first_at",)

    def __init__(self) -> None:
        self._first_at = inf

    def answered(self) -> None:
        """Take note of an answer: the quota is not spent."""
        self._first_at = inf

    def judged(self, refusal: Refusal, admitted_at: float, now: float) -> Refusal:
        """Return the refusal, as final if it has outlasted the pause.

        :param admitted_at: when the refused call was admitted; like ``now`` in seconds
            of one clock.
        """
        if not refusal.may_be_final:
            return refusal
        if admitted_at >= self._first_at + QUOTA_PAUSE:
            return refusal.as_final()
        self._first_at = min(self._first_at, now)
        return refusal


class Pause:
    """Doubles while refusals that name no moment go on; answers make it short again."""

    __slots__ = ("_seconds", "_until")

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE
        self._until = -inf

    def answered(self, now: float) -> None:
        """Take note of an answer: after the pause the next one is short again."""
        if now >= self._until:
            self._seconds = FIRST_PAUSE

    def seconds(self, refusal: Refusal, now: float) -> float:
        """Return for how long to pause after a refusal that came at ``now``."""
        named = refusal.wait or (QUOTA_PAUSE if refusal.may_be_final else 0.0)
        if named and not refusal.slow_down and not refusal.overloaded:
            return named
        if now >= self._until:  # calls that flew together are refused together: one refusal
            recent = now < self._until + 2 * self._seconds
            self._seconds = min(self._seconds * 2, LONGEST_PAUSE) if recent else FIRST_PAUSE
            self._until = now + self._seconds
        return max(named, self._until - now)


AGAIN_SECONDS: Final = 60.0
"""Seconds in which another refusal shows that a named level lets too many go."""
HEAVIER: Final = 1.1
"""By how much each repetition makes a request count for more."""
HEAVIEST: Final = 1.5
"""As how many requests one counts at most: two thirds of the rate are left."""


class Repetition:
    """Whether refusals go on though the level was set to what the last one named.

    Then the server has a smaller burst than it says, and the calls have to go slowly:
    at the limit's rate, and below it, as a server without a burst refuses a call that
    comes a little early. Each repetition makes a request count for more, and time
    without one for less again.
    """

    __slots__ = ("_at", "_changed_at", "weight")

    def __init__(self) -> None:
        self._at = self._changed_at = -inf
        self.weight = 1.0
        """As how many requests each one counts."""

    def refused(self, kind: str | None, admitted_at: float, now: float) -> bool:
        """Take note of a refusal; return whether it repeats one.

        :param kind: what ran out, as in `Refusal.kind`.
        :param admitted_at: when the refused call was admitted; like ``now`` in seconds
            of one clock. Calls that were sent together are refused together, once.
        """
        again = now - AGAIN_SECONDS < self._at <= admitted_at
        self._at = now
        if again and kind in {None, "requests"}:
            self.weight = min(self.weight * HEAVIER, HEAVIEST)
            self._changed_at = now
        return again

    def answered(self, now: float) -> None:
        """Take note of an answer: a while after the last change it counts for less."""
        if self.weight > 1.0 and now - self._changed_at >= AGAIN_SECONDS:
            self.weight = max(self.weight / HEAVIER, 1.0)
            self._changed_at = now


FIRST_TRUST: Final = 60.0
"""Seconds without an admission after which the server is asked again, at first."""
LONGEST_TRUST: Final = 3_600.0
"""Seconds, where the server repeats what it said each time that it is asked."""


class Trust:
    """How long what a server says may stop all calls.

    A limit, a level, a period or a pause that came from outside may be wrong. When no
    call was admitted for a minute because of it, one call goes and asks. If the server
    repeats it, the next time is twice as far; if the call is answered, it is a minute
    again.
    """

    __slots__ = ("_asked_at", "_asking", "seconds")

    def __init__(self) -> None:
        self.seconds = FIRST_TRUST
        self._asked_at = -inf
        self._asking = False  # whether the call that asks has no answer yet

    def answered(self) -> None:
        """Take note of an answer that was no refusal."""
        self.seconds = FIRST_TRUST
        self._asking = False

    def refused(self, admitted_at: float) -> None:
        """Take note of a refusal: of the call that asked, it confirms what was said."""
        if self._asking and admitted_at >= self._asked_at:
            self.seconds = min(self.seconds * 2, LONGEST_TRUST)
            self._asking = False

    def is_over(self, admitted_at: float, now: float) -> bool:
        """Return whether it is time to ask; the next call then asks.

        :param admitted_at: when a call was admitted last.
        """
        if now < max(admitted_at, self._asked_at) + self.seconds:
            return False
        self._asked_at = now
        self._asking = True
        return True


TOO_LARGE_SECONDS: Final = 600.0
"""Seconds for which a server's word counts that a call is too large for its limit."""


class _Said(NamedTuple):
    """What a server has said of one dimension."""

    limit: float
    until: float
    at: float
    times: int


class TooLarge:
    """The limits for which a server has refused calls as too large.

    One such refusal may be wrong, or meant for another model, so a call goes and asks.
    A server that says it again when asked is believed for `TOO_LARGE_SECONDS`.
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def refused(self, name: str, limit: float, admitted_at: float, now: float) -> None:
        """Take note of a refusal of a call as too large for a limit.

        Calls that were sent together are refused together, which says it once.

        :param admitted_at: when the refused call was admitted; like ``now`` in seconds
            of one clock.
        """
        said = self._said.get(name)
        if said is None or now >= said.until:
            self._said[name] = _Said(limit, now + TOO_LARGE_SECONDS, now, 1)
            return
        again = admitted_at >= said.at
        self._said[name] = _Said(
            limit, now + TOO_LARGE_SECONDS, now if again else said.at, said.times + again
        )

    def is_sure(self, name: str, amount: float, now: float) -> bool:
        """Return whether it would be in vain to ask once more with that amount."""
        said = self._said.get(name)
        return said is not None and said.times > 1 and now < said.until and amount > said.limit
