"""From what headers say to what should be believed: limits that are learned, and how
far our level is from the server's.

Owns two judgements: which limits hold (`LimitsSeen`) and by how many seconds a bucket's
``full_at`` should move (`Drift`). Must never come in: clocks (moments are arguments),
buckets, locks: the lane applies what is answered here.

Which limits hold ----------------- The first figures are believed at once, later
changes when two answers in a row say the same, so that one header that lies cannot
close or open anything. A lower limit that a refusal names is believed at once as well,
and kept beside what headers show until that changes. What one answer alone has said
makes nobody wait for ever: where it forbids a call altogether it is forgotten, until it
is said again. A period that cannot be told yet (nothing is used, or resets are below 1
ms) is taken for a minute, as all but a few recorded limits are, until an answer tells
it. A project's limits hold beside the organization's: of two limits on the same thing
the lower counts.

How far off we are ------------------ Call k's header tells the server's level when k
arrived. Our own level right after k's admission is known from k's lease, so the
difference is the drift, once what was corrected since is taken off. Three things blur
it:

* *When* k arrived lies between its sending and its headers: a lower level is believed
  for the earliest arrival, a higher one for the latest.
* *Reserves*: while it is not known how the server charges, we debit the expected output
  of all that is in flight, the server perhaps only its input. So ours is lower than the
  server's by rights; a higher level is believed only of a call that flew alone, and
  then less its own reserve - or, once the server has shown that it charges the input
  only, less what was sent shortly before it and may have arrived after it.
* *Order*: calls admitted after k may have arrived before it, and their debits show in
  k's header. With 100 in flight at once that looks like a drift of dozens of calls, now
  up, now down. So when others were admitted after k, as many headers (at most 8) have
  to agree, and the smallest drift of them counts. A call that nothing overtook is
  believed alone, at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from ratelimit.feedback.headers import MINUTE, Reading
from ratelimit.limits import Limit

DIMENSIONS: Final = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "project_requests": "requests",
    "project_tokens": "tokens",
    "input_images": "images",
    "images": "images",
}
"""What a reading's or a refusal's name limits, in the limiter's words; other names are
not acted on.
"""

AGREEING: Final = 8
_Key = tuple[str, float]


class LimitsSeen:
    """The limits that the headers and the refusals of one family of models have shown
    so far.
    """

    __slots__ = ("_amounts", "_doubted", "_guessed", "_known", "_once", "_pending", "refused")

    def __init__(self) -> None:
        self._amounts: dict[_Key, float] = {}
        # what refusals named: where headers show more, this counts
        self.refused: dict[_Key, float] = {}
        self._once: set[tuple[_Key, float]] = set()  # believed on the word of one answer
        self._doubted: dict[_Key, float] = {}  # the same, forgotten since
        self._guessed: set[str] = set()  # dimensions whose period is not known yet
        self._pending: dict[_Key, float] = {}
        self._known: tuple[object, ...] = ()  # the last limits and periods that changed nothing

    def hear(self, readings: Sequence[Reading]) -> list[Limit] | None:
        """Take one answer's readings; return all limits known now when they have
        changed, else None.
        """
        figures = tuple([(reading.name, reading.limit, reading.period) for reading in readings])
        if figures == self._known:
            return None  # nearly always
        said, guessed = _said(readings)
        before = dict(self._amounts)
        for name in {name for name, _ in said} & self._guessed - guessed:
            # the period is told at last: forget the guess, unless it was right
            self._guessed.discard(name)
            if (name, MINUTE) not in said:
                self._amounts.pop((name, MINUTE), None)
        pending: dict[_Key, float] = {}
        for key, amount in said.items():
            name = key[0]
            if (
                name in guessed
                and any(known == name for known, _ in self._amounts)
                and key not in self._amounts
            ):
                continue  # a full bucket says nothing about the period that is known by now
            known_amount = self._amounts.get(key)
            if known_amount is None:
                self._believe(self._amounts, key, amount)
                if name in guessed:
                    self._guessed.add(name)
            elif amount == known_amount:
                self._once.discard((key, amount))
            else:
                pending[key] = amount
                if self._pending.get(key) == amount:
                    self._amounts[key] = amount
                    self._once.discard((key, known_amount))
                    self.refused.pop(key, None)
        self._pending = pending
        self._known = figures if before == self._amounts and not pending else ()
        return None if before == self._amounts else self.limits()

    def refuse(self, kind: str, period: float, amount: float) -> list[Limit] | None:
        """Take the limit that a refusal names; return all limits known now when they
        have changed, else None.

        :param kind: what ran out, as in `Refusal.kind`.
        :param period: seconds.
        :param amount: per period; none below 1 is believed.
        """
        name = DIMENSIONS.get(kind)
        if name is None or amount < 1:
            return None
        key = name, period
        known = min(self._amounts.get(key, inf), self.refused.get(key, inf))
        if amount < known:
            self._believe(self.refused, key, amount)
            return self.limits()
        self._once.discard((key, amount))
        return None

    def _believe(self, book: dict[_Key, float], key: _Key, amount: float) -> None:
        book[key] = amount
        if self._doubted.pop(key, None) != amount:
            self._once.add((key, amount))

    def doubt(self, name: str, amount: float) -> list[Limit] | None:
        """Forget the limits below ``amount`` that one answer alone has named, until one
        names them again; return those left, None if all are.
        """
        doubtful = [(key, limit) for key, limit in self._once if key[0] == name and limit < amount]
        for key, limit in doubtful:
            self._once.discard((key, limit))
            self._doubted[key] = limit
            for book in (self._amounts, self.refused):
                if book.get(key) == limit:
                    del book[key]
        self._known = ()
        return self.limits() if doubtful else None

    def limits(self) -> list[Limit]:
        """All limits known now."""
        lowest = self._amounts | {
            key: min(amount, self._amounts.get(key, amount)) for key, amount in self.refused.items()
        }
        return [Limit(name, amount, per=period) for (name, period), amount in lowest.items()]


def _said(readings: Iterable[Reading]) -> tuple[dict[_Key, float], set[str]]:
    """Sort one answer's limits by dimension and period; the second value is the
    dimensions whose period is a guess.
    """
    said: dict[_Key, float] = {}
    guessed: set[str] = set()
    for reading in readings:
        name = DIMENSIONS.get(reading.name)
        if name is None or reading.limit is None:
            continue
        if reading.period is None:
            guessed.add(name)
        key = name, reading.period or MINUTE
        said[key] = min(said.get(key, reading.limit), reading.limit)
    return said, guessed


def level_of(readings: Iterable[Reading], name: str, period: float) -> float | None:
    """Tell what the server has left of one limit, in its unit; None when it did not
    say, or said two things that cannot both be.

    :param name: the dimension, in the limiter's words. :param period: seconds.
    """
    left: list[float] = []
    for reading in readings:
        if (
            DIMENSIONS.get(reading.name) == name
            and (reading.period or period) == period
            and reading.remaining is not None
        ):
            limit = reading.limit
            if limit is not None and reading.reset is not None and reading.drips:
                apart = abs((limit - reading.remaining) * period / limit - reading.reset)
                # truncated to ms and to units; beyond that one of the two lies
                if apart > 0.002 + 2 * period / limit:
                    continue
            left.append(reading.remaining)
    return min(left, default=None)


class Drift:
    """How far one bucket is from the server's, told by header after header."""

    __slots__ = ("_highest", "_recent")

    def __init__(self) -> None:
        self._highest: deque[float] = deque(maxlen=AGREEING)
        self._recent: deque[float] = deque(maxlen=AGREEING)

    def hear(
        self,
        level: float,
        *,
        burst: float,
        seconds_per_unit: float,
        sent: float,
        heard: float,
        full_at: float,
        corrected: float,
        excess: float,
        travelling: float,
        later: int,
        alone: bool,
        input_only: bool,
    ) -> float:
        """Take the server's level as one answer shows it; return the seconds by which
        ``full_at`` should move: later means lower.

        :param level: what the server has left, in the limit's unit, right after this
            call's charge.
        :param burst: our bucket's capacity, in the same unit.
        :param sent, heard: when the call was admitted and when its headers came, in
            seconds of one clock.
        :param full_at: our bucket's right after this call's admission, less what had
            been corrected until then.
        :param corrected: seconds corrected in all until now.
        :param excess: what was debited for the call beyond the server's charge, in the
            limit's unit.
        :param travelling: what was charged shortly before the call and may have arrived
            after it, in the limit's unit.
        :param later: how many calls were admitted between its admission and its
            headers.
        :param alone: no other call was in flight when it was admitted.
        :param input_only: the server is known to charge the input only, when a call
            arrives.
        """
        # the level is cut to whole units
        lowest = sent + (burst - level - 1) * seconds_per_unit - full_at
        self._recent.append(lowest)
        needed = min(later, AGREEING - 1) + 1
        if len(self._recent) >= needed:
            down = min(list(self._recent)[-needed:]) - corrected
            if down > 0:
                return down
        highest = heard + (burst - level) * seconds_per_unit - (full_at - excess * seconds_per_unit)
        self._highest.append(highest + travelling * seconds_per_unit)
        if alone and later == 0:
            return min(highest - corrected, 0.0)
        if input_only and len(self._highest) == AGREEING:
            return min(max(self._highest) - corrected, 0.0) / 2
        return 0.0
