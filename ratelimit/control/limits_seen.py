"""Which limits hold, as headers and refusals have shown them.

Owns the limits learned for one family. Must never touch a bucket or read a clock: it
returns limits, and the controller holds them.

* The first figures count at once. Later changes count when two answers in a row show
  the same, so that one wrong header can close or open nothing.
* A lower limit that a refusal names counts at once as well. It is dropped when
  `CONTRADICTIONS` answers show a higher one (two, after a minute), or after
  `REFUSED_SECONDS` where headers show none (each time that it is named again, by a call
  sent since, it is kept for twice as long, up to `LONGEST_REFUSED_SECONDS`).
* Limits are kept per model, and of what several models show the highest counts: a small
  limit may be that of one model alone. A model counts for `MODEL_SECONDS` after its
  last answer.
* What an answer or many have shown refuses no call for good: where it would, it is
  retracted until it is shown again.
* A period that cannot be read yet (nothing is used, or resets are below 1 ms) is taken
  for a minute, as all but a few recorded limits are, until an answer shows it.
* A project's limits hold beside the organization's: of two limits on the same thing the
  lower counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

from ratelimit.feedback import Reading
from ratelimit.limits import MINUTE, Limit, Limits

DIMENSION_OF: Final = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "project_requests": "requests",
    "project_tokens": "tokens",
    "input_images": "images",
    "images": "images",
}
"""What a reading's or a refusal's name limits; other names change nothing."""

CONTRADICTIONS: Final = 8
"""Answers with a higher limit after which the limit that a refusal named is dropped."""
CONTRADICTION_SECONDS: Final = 60.0
"""Seconds after which two such answers are enough: a small limit lets few calls go."""
REFUSED_SECONDS: Final = 900.0
"""Seconds for which a limit is kept that one refusal named and no header shows."""
LONGEST_REFUSED_SECONDS: Final = 3_600.0
"""Seconds, where refusals name the same limit each time that it was dropped."""
MODEL_SECONDS: Final = 600.0
"""Seconds after its last answer for which the limits of one model count."""
MODELS: Final = 20
"""Models with limits kept apart; further ones replace the longest unseen."""

Key = tuple[str, float]
"""A dimension and a period in seconds."""


class _Refused(NamedTuple):
    """The limit that a refusal named last of one dimension and period."""

    amount: float
    until: float
    kept: float
    """Seconds from its last count until then."""
    counted_at: float


class LimitsSeen:
    """The limits that the headers and the refusals of one family have shown so far."""

    __slots__ = (
        "_amounts",
        "_last_seen",
        "_named",
        "_pending",
        "_period_guessed",
        "contradicted",
        "refused",
        "seen_at",
    )

    def __init__(self) -> None:
        self._amounts: dict[Key, float] = {}
        self.refused: dict[Key, float] = {}
        """What refusals have named; where headers show more, this counts."""
        self._named: dict[Key, _Refused] = {}  # also when it is held no longer
        self.contradicted: dict[Key, int] = {}
        """Answers since then that showed a higher limit."""
        self.seen_at = -inf
        """When the last answer came."""
        self._period_guessed: set[str] = set()
        self._pending: dict[Key, float] = {}  # changes that the last answer was first to show
        self._last_seen: tuple[object, ...] = ()  # the last figures that changed nothing

    def on_headers(self, readings: Sequence[Reading], now: float) -> list[Limit] | None:
        """Take one answer's readings; return all limits if they changed, else None."""
        self.seen_at = now
        dropped = self._drop_refused(readings, now) if self.refused else False
        figures = tuple([(reading.name, reading.limit, reading.period) for reading in readings])
        if figures == self._last_seen:
            return self.limits() if dropped else None  # nearly always

        shown, guessed = limits_shown(readings)
        before = dict(self._amounts)
        self._replace_guesses(shown, guessed)
        pending: dict[Key, float] = {}
        for key, amount in shown.items():
            name = key[0]
            if name in guessed and self._has_period(name) and key not in self._amounts:
                continue  # a full bucket shows nothing of the period that is known by now

            known = self._amounts.get(key)
            if known is None:
                self._amounts[key] = amount
                if name in guessed:
                    self._period_guessed.add(name)
            elif amount != known:
                pending[key] = amount
                if self._pending.get(key) == amount:
                    self._amounts[key] = amount
                    self.refused.pop(key, None)
        self._pending = pending
        changed = before != self._amounts
        self._last_seen = () if changed or pending else figures
        return self.limits() if changed or dropped else None

    def _drop_refused(self, readings: Sequence[Reading], now: float) -> bool:
        """Drop what refusals named and answers contradict; return if there was any."""
        shown, guessed = limits_shown(readings)
        before = len(self.refused)
        for key, amount in list(self.refused.items()):
            if key[0] not in guessed and shown.get(key, 0.0) > amount:
                self.contradicted[key] = self.contradicted.get(key, 0) + 1
            named, answers = self._named[key], self.contradicted.get(key, 0)
            old = answers >= 2 and now - named.counted_at >= CONTRADICTION_SECONDS
            if answers >= CONTRADICTIONS or old or now >= named.until:
                del self.refused[key]
                self.contradicted.pop(key, None)
            if answers >= CONTRADICTIONS or old:
                del self._named[key]
        return len(self.refused) < before

    def expire(self, now: float) -> bool:
        """Drop what refusals named long ago; return if there was any."""
        return bool(self.refused) and self._drop_refused((), now)

    def _replace_guesses(self, shown: dict[Key, float], guessed: set[str]) -> None:
        """Drop a guessed period where it is shown at last, unless it was right."""
        for name in {name for name, _ in shown} & self._period_guessed - guessed:
            self._period_guessed.discard(name)
            if (name, MINUTE) not in shown:
                self._amounts.pop((name, MINUTE), None)

    def _has_period(self, name: str) -> bool:
        return any(known == name for known, _ in self._amounts)

    def on_refusal(
        self, kind: str, period: float, amount: float, admitted_at: float, now: float
    ) -> list[Limit] | None:
        """Take the limit that a refusal names; return all limits if they changed.

        :param kind: what ran out, as in `Refusal.kind`.
        :param period: seconds.
        :param amount: per period; below 1 it is ignored.
        :param admitted_at: when the refused call was admitted; like ``now`` in seconds
            of one clock. Calls that were sent together are refused together, once.
        """
        name = DIMENSION_OF.get(kind)
        if name is None or amount < 1:
            return None
        key = name, period
        known = min(self._amounts.get(key, inf), self.refused.get(key, inf))
        if amount > self.refused.get(key, inf):  # contradicts it, like an answer
            self.contradicted[key] = self.contradicted.get(key, 0) + 1
            return None
        named = self._named.get(key)
        if named is None or named.amount != amount:
            named = _Refused(amount, 0.0, REFUSED_SECONDS, now)
        elif admitted_at > named.counted_at:
            kept = min(2 * named.kept, LONGEST_REFUSED_SECONDS)
            named = named._replace(kept=kept, counted_at=now)
        self._named[key] = named._replace(until=now + named.kept)
        self.contradicted.pop(key, None)
        if amount >= known:
            return None
        self.refused[key] = amount
        return self.limits()

    def retract(self, name: str, amount: float) -> bool:
        """Drop limits below ``amount`` until shown again; return if any was."""
        found = False
        for book in (self._amounts, self.refused):
            for key, limit in list(book.items()):
                if key[0] == name and limit < amount:
                    del book[key]
                    found = True
        self._last_seen = ()
        return found

    def limits(self) -> list[Limit]:
        """Return all limits known now."""
        lowest = dict(self._amounts)
        for key, amount in self.refused.items():
            lowest[key] = min(amount, lowest.get(key, amount))
        return [Limit(name, amount, per=period) for (name, period), amount in lowest.items()]


class LimitsOfModels:
    """The limits that the answers of all models of one family have shown."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: dict[str, LimitsSeen] = {}

    def of(self, model: str) -> LimitsSeen:
        """Return what one model's answers have shown."""
        seen = self._models.get(model)
        if seen is None:
            if len(self._models) >= MODELS:
                del self._models[min(self._models, key=lambda name: self._models[name].seen_at)]
            seen = self._models[model] = LimitsSeen()
        return seen

    def is_refused(self, key: Key) -> bool:
        """Return whether a refusal has named a limit of this dimension and period."""
        return any(key in seen.refused for seen in self._models.values())

    def expire(self, now: float) -> bool:
        """Drop what refusals named long ago; return if there was any."""
        expired = [seen.expire(now) for seen in self._models.values()]
        return any(expired)

    def retract(self, name: str, amount: float) -> bool:
        """Drop limits below ``amount`` until shown again; return if any was."""
        retracted = [seen.retract(name, amount) for seen in self._models.values()]
        return any(retracted)

    def limits(self, now: float) -> list[Limit]:
        """Return the limits that hold: of what recent models show, the highest."""
        highest: dict[Key, Limit] = {}
        recent = [one for one in self._models.values() if one.seen_at > now - MODEL_SECONDS]
        for seen in recent or self._models.values():
            for limit in seen.limits():
                key = limit.name, limit.per
                if key not in highest or limit.amount > highest[key].amount:
                    highest[key] = limit
        return list(highest.values())

    def to_hold(self, given: Limits, held: Limits, now: float) -> Limits | None:
        """Return the limits to hold by what is known; None if they are held already.

        Limits that were given are only ever lowered.
        """
        known = self.limits(now)
        if given:
            shown = {(limit.name, limit.per): limit for limit in known}
            lowered = []
            for limit in given:
                seen = shown.pop((limit.name, limit.per), limit)
                lowered.append(limit.at_most(seen.amount))
            refused = [limit for key, limit in shown.items() if self.is_refused(key)]
            known = [*lowered, *refused]
        limits = Limits(*known, concurrency=held.concurrency)
        return None if limits == held else limits

    def smaller(self, model: str, now: float) -> list[Limit]:
        """Return the limits of one model that are below those that hold."""
        highest = {(limit.name, limit.per): limit.amount for limit in self.limits(now)}
        return [
            limit
            for limit in self.of(model).limits()
            if limit.amount < highest.get((limit.name, limit.per), 0.0)
        ]


def limits_shown(readings: Iterable[Reading]) -> tuple[dict[Key, float], set[str]]:
    """Return one answer's limits, the lower of two, and what has a guessed period."""
    shown: dict[Key, float] = {}
    guessed: set[str] = set()
    for reading in readings:
        name = DIMENSION_OF.get(reading.name)
        if name is None or reading.limit is None:
            continue

        if reading.period is None:
            guessed.add(name)
        key = name, reading.period or MINUTE
        shown[key] = min(shown.get(key, reading.limit), reading.limit)
    return shown, guessed


def level_of(readings: Iterable[Reading], name: str, period: float) -> float | None:
    """Return what the server shows to be left of one limit, in its unit.

    None if it shows nothing, or two figures that contradict each other.

    :param name: the dimension, one of `DIMENSION_OF`'s values.
    :param period: seconds.
    """
    left: list[float] = []
    for reading in readings:
        if DIMENSION_OF.get(reading.name) != name or (reading.period or period) != period:
            continue

        if reading.windowed and name == "requests":  # `learning/windows.py` keeps these
            continue

        if reading.remaining is not None and not _contradicts_itself(reading, period):
            left.append(reading.remaining)
    return min(left, default=None)


def _contradicts_itself(reading: Reading, period: float) -> bool:
    """Return whether what is left and the time until it is full do not fit together.

    Both are truncated, to units and to milliseconds.
    """
    limit, remaining, reset = reading.limit, reading.remaining, reading.reset
    if limit is None or remaining is None or reset is None or not reading.drips:
        return False
    apart = abs((limit - remaining) * period / limit - reset)
    return apart > 0.002 + 2 * period / limit
