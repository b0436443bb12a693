"""The hand that turns a lane's buckets to what the server says: headers after every
answer, refusals, the cold start.

Owns when a judgement of `feedback/steering.py` is applied, and how. Knows no HTTP and
reads no clock; it is called with what was heard and when.

* *Cold start.* Nobody knows how full the server's buckets are. A lane that listens to
  headers sends one call and holds the rest until its headers are there; then it goes at
  full speed from the real level. A call that fails without headers leaves the next one
  to try.
* *Limits.* Where none were given they are learned, and changed when the server changes
  them. Limits that were given are only ever lowered, for as long as the server shows
  lower ones.
* *Levels.* Down at once; up only where the server has the same limit as we: who was
  given a share of the limit keeps to the share.
* *Refusals.* The line closes until the named moment, for everybody; where none is
  named, or the server is overloaded or asks to slow down, for a pause that doubles as
  long as refusals go on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from ratelimit.control.concurrency import ConcurrencyEstimate
from ratelimit.control.drift import DIMENSIONS, Drift, LimitsSeen, level_of
from ratelimit.feedback import Reading, Refusal
from ratelimit.limits import Limit, Limits
from ratelimit.stores.bucket import HELD, Bucket

if TYPE_CHECKING:
    from ratelimit.control.family import ModelFamily
    from ratelimit.lease import Lease

FIRST_PAUSE: Final = 1.0
"""Seconds, where a refusal names no moment."""
LONGEST_PAUSE: Final = 60.0
PROBE_SECONDS: Final = 30.0
"""How long the rest waits for the first headers, at most: the first call may itself
wait for another one.
"""
BILLS: Final = 10
"""Answers with usage before it is judged whether the server settles."""
DOUBTS: Final = 3
"""Refusals for tokens within `DOUBT_SECONDS` after which a lane that has seen no sign
of settlement stops giving back, for `KEEP_SECONDS`.
"""
DOUBT_SECONDS: Final = 600.0
KEEP_SECONDS: Final = 3_600.0


class Controller:
    """What one lane has heard so far.

    :param given: the limits that were given; none at all: take them from the headers.
    """

    def __init__(self, lane: ModelFamily, given: Limits) -> None:
        self._lane = lane
        self._given = given
        self._knowledge = LimitsSeen()
        self._drifts: dict[tuple[str, float], Drift] = {}
        self._pause = FIRST_PAUSE
        self._paused_until = -inf
        self._doubted: deque[float] = deque(maxlen=DOUBTS)
        self._keeps_until = inf
        self._sent: deque[tuple[float, float]] = deque()
        self._travelling = 0.0
        self._above = 0.0
        self._below = 0.0
        self._moved = 0.0
        self._bills = 0
        self._found = False
        self._crowd = ConcurrencyEstimate()
        self._forked_at = -inf
        # reentrant: a finalizer or signal handler may settle, and so be heard, in the
        # middle of anything here
        self._lock = threading.RLock()
        self.probing = False
        self.charges_input_only = False
        self.applied: dict[str, float] = {}

    def listen(self) -> None:
        """Headers will be heard from now on: keep marks, and start with one call."""
        store = self._lane.store
        if not store.marking:
            store.mark()
            self.probing = True
            store.hold(1, self._lane.now() + PROBE_SECONDS)

    def forget_others(self) -> None:
        """After a fork: whoever held the lock belongs to the parent process, and so do
        the calls that were admitted before it.
        """
        self._lock = threading.RLock()
        self._forked_at = self._lane.now()

    def sent(self, lease: Lease) -> None:
        """Note what was charged shortly before this call: those requests may arrive
        after it, and its headers not know of them.
        """
        sent = self._sent
        tokens = lease.reserved.get("tokens", 0) - lease.reserved.get(HELD, 0)
        with self._lock:
            while sent and sent[0][0] < lease.sent_at - self._lane.slack.seconds:
                self._travelling -= sent.popleft()[1]
            lease.travelling = {"tokens": self._travelling, "requests": len(sent)}
            sent.append((lease.sent_at, tokens))
            self._travelling += tokens

    def heard(self, lease: Lease, readings: Sequence[Reading], now: float) -> None:
        """Hear the limits that an answer's headers show."""
        lane = self._lane
        with self._lock:
            if now >= self._paused_until:
                self._pause = FIRST_PAUSE
            # an answer that shows nothing, or was not read, is no word against what the
            # one before it said
            if readings:
                self._read(lease, readings, now)
            if self.probing:
                self.probing = False
                self._bound()
            if self._crowd.waited(now):
                self._bound()
            if now >= self._keeps_until:
                self._keeps_until = inf
                lane.settles = True
        lane.line.nudge()

    def _read(self, lease: Lease, readings: Sequence[Reading], now: float) -> None:
        known = self._knowledge.hear(readings)
        limits = None if known is None else self._limits(known)
        if limits is None:
            self._follow(lease, readings, now)
            return
        store = self._lane.store
        before = {(limit.name, limit.per) for limit in store.limits}
        store.replace(limits, now)
        self._start(lease, readings, before, now)

    def _limits(self, known: Sequence[Limit]) -> Limits | None:
        """The limits to hold now that these are known; None when they are held already.
        Limits that were given are only ever lowered.
        """
        held = self._lane.store.limits
        if self._given:
            shown = {(limit.name, limit.per): limit for limit in known}
            lowered = [
                limit.at_most(shown.pop((limit.name, limit.per), limit).amount)
                for limit in self._given
            ]
            known = [
                *lowered,
                *(limit for key, limit in shown.items() if key in self._knowledge.refused),
            ]
        limits = Limits(*known, concurrency=held.concurrency)
        return None if limits == held else limits

    def _start(
        self, lease: Lease, readings: Sequence[Reading], known: set[tuple[str, float]], now: float
    ) -> None:
        """Fill the buckets of newly learned limits to the server's level, less what
        this call has reserved beyond its charge.
        """
        for limit in self._lane.store.limits:
            level = level_of(readings, limit.name, limit.per)
            if (limit.name, limit.per) in known:
                if level is not None:
                    self._lane.leaves(limit.name, limit.per, level)
                continue
            if limit.name == "tokens" and level is not None:
                self._judge(lease, limit.amount - level)
            for bucket in self._lane.store.buckets_of(limit.name):
                if bucket.limit.per == limit.per:
                    held = _excess(lease, limit.name) + (
                        0 if level is None else max(bucket.burst - level, 0)
                    )
                    self._lane.store.correct(bucket, held * bucket.seconds_per_unit, now)

    def _follow(self, lease: Lease, readings: Sequence[Reading], now: float) -> None:
        grant = lease.grant
        # the parent's call: its marks are of buckets that are no more
        if not grant or lease.sent_at <= self._forked_at:
            return
        serial, in_flight, marks = grant
        store = self._lane.store
        limits = {
            (DIMENSIONS.get(reading.name), reading.period): reading.limit for reading in readings
        }
        for bucket, mark in marks:
            name, per = bucket.name, bucket.limit.per
            level = level_of(readings, name, per)
            if level is None:
                continue
            limit = limits.get((name, per), limits.get((name, None)))
            if name == "tokens" and limit is not None:
                self._judge(lease, limit - level)
            drift = self._drifts.get((name, per))
            if drift is None:
                drift = self._drifts[name, per] = Drift()
            seconds = drift.hear(
                level,
                burst=bucket.burst,
                seconds_per_unit=bucket.seconds_per_unit,
                sent=lease.sent_at,
                heard=min(now, lease.sent_at + self._lane.slack.seconds),
                full_at=mark,
                corrected=bucket.corrected,
                excess=_excess(lease, name),
                travelling=lease.travelling.get(name, 0),
                later=store.admitted - serial,
                alone=in_flight == 1,
                input_only=self.charges_input_only,
            )
            if seconds > 0 or (seconds < 0 and limit == bucket.limit.amount):
                store.correct(bucket, seconds, now)
                if name == "tokens":
                    self._moved -= seconds / bucket.seconds_per_unit
                    self._tell_apart(bucket)
                label = f"{name}/{per:g}s"
                self.applied[label] = (
                    self.applied.get(label, 0.0) - seconds / bucket.seconds_per_unit
                )

    def billed(self, beyond: float) -> None:
        """Hear by how many tokens a call's usage was above its admission charge, or
        below (negative).
        """
        if beyond > 0:
            self._above += beyond
        else:
            self._below -= beyond
        self._bills += 1

    def _tell_apart(self, bucket: Bucket) -> None:
        """Find out whether a server that charges the input only settles to the usage.

        We settle to the larger of charge and usage. If the server settles, its headers
        give back what usages were below their charges; if it does not, what they were
        above. While we believe that it does not, it shows that it does by debiting the
        difference of the two.
        """
        lane = self._lane
        apart = self._above - self._below
        if not self.charges_input_only or self._bills < BILLS or apart < bucket.limit.amount / 20:
            return
        if self._found and self._moved < -apart / 2:
            lane.accounting, self._found = "reconcile", False
        elif lane.accounting == "reconcile" and self._moved > (self._above + self._below) / 2:
            lane.accounting, self._found = "charge", True
        elif apart < bucket.limit.amount / 2:
            return
        self._above, self._below, self._moved, self._bills = 0.0, 0.0, 0.0, 0

    def _judge(self, lease: Lease, used: float) -> None:
        """Find out what the server charges on arrival: the input only, if all that is
        used is less than this call's maximum or reserve.
        """
        estimate = lease.estimate
        if (
            self._lane.accounting == "reconcile"
            and estimate is not None
            and used < 0.9 * (estimate.max_output_tokens or estimate.output_tokens)
        ):
            self.charges_input_only = True

    def failed(self) -> None:
        """A call ended without headers: while probing, its slot is free for the next
        one to try.
        """
        self._lane.line.nudge()

    def refused(self, refusal: Refusal, sent: float) -> None:
        """Close the line for as long as the refusal of a call sent then says; a moment
        it does not name is guessed, and doubled each time.
        """
        lane = self._lane
        with self._lock:
            now = lane.now()
            self._lower(refusal, now)
            if refusal.hopeless:
                return
            pause = refusal.wait or 0.0
            if not (pause or refusal.period or refusal.slow_down or refusal.overloaded):
                self._crowd.refused(refusal.limit, lane.store.in_flight, sent, now)
                self._bound()
            if refusal.kind == "tokens" and not self.charges_input_only and lane.store.marking:
                self._doubt(now)
            if not pause or refusal.slow_down or refusal.overloaded:
                # calls that flew together are refused together: that is one refusal
                if now >= self._paused_until:
                    self._pause = (
                        min(self._pause * 2, LONGEST_PAUSE)
                        if now < self._paused_until + 2 * self._pause
                        else FIRST_PAUSE
                    )
                    self._paused_until = now + self._pause
                pause = max(pause, self._paused_until - now)
        lane.close(pause)

    def _lower(self, refusal: Refusal, now: float) -> None:
        """Hold no more than the limit that a refusal names, also where no header had
        shown it (a minute's requests behind a day's).
        """
        kind, period, limit = refusal.kind, refusal.period, refusal.limit
        known = self._knowledge.refuse(kind, period, limit) if kind and period and limit else None
        limits = None if known is None else self._limits(known)
        if limits is None:
            return
        new = {(limit.name, limit.per) for limit in limits} - {
            (limit.name, limit.per) for limit in self._lane.store.limits
        }
        self._lane.store.replace(limits, now)
        for name, per in () if refusal.hopeless else new:
            self._lane.leaves(name, per, 0 if refusal.used is None else (limit or 0) - refusal.used)

    def doubts(self, name: str, amount: float) -> bool:
        """Hear that a call of this amount can never pass; tell whether it may after
        all, because one answer alone, which may lie, says so.

        What that answer said is forgotten, and the next call goes alone: its headers
        say it again, or not.
        """
        lane = self._lane
        with self._lock:
            now = lane.now()
            left = self._knowledge.doubt(name, amount)
            limits = self._limits(self._knowledge.limits() if left is None else left)
            if left is not None and limits is not None:
                lane.store.replace(limits, now)
                self.probing = True
                lane.store.hold(1, now + PROBE_SECONDS)
        lane.line.nudge()
        return all(
            limit.amount >= amount for limit in limits or lane.store.limits if limit.name == name
        )

    def _doubt(self, now: float) -> None:
        """Hear that tokens ran out although what calls did not use had been given back:
        the third time in a while, stop giving back.

        Servers that keep the reserve for good (OpenAI until 2025, Azure) refuse again
        and again where one settles; one that was seen to charge the input only is not
        meant. UnlistedModels with the same key can be the reason too, so the doubt is forgotten
        in time.
        """
        self._doubted.append(now)
        if len(self._doubted) == DOUBTS and now - self._doubted[0] <= DOUBT_SECONDS:
            self._lane.settles = False
            self._keeps_until = now + KEEP_SECONDS

    def _bound(self) -> None:
        store = self._lane.store
        store.hold(self._crowd.bound(store.limits.concurrency))


def _excess(lease: Lease, name: str) -> float:
    """What was debited for a call beyond the server's charge, in the unit of ``name``:
    its expected output, mostly.
    """
    debited = lease.reserved.get(name, 0)
    if name == "tokens" and lease.estimate is not None:
        return max(debited - lease.reserved.get(HELD, 0) - lease.estimate.charge, 0)
    return debited if name == "output_tokens" else 0
