"""Moves the levels of one family's buckets to what headers show.

Owns the drift of each bucket and what has been corrected in all. Must never decide
which limits hold (`limits_seen.py` does) or read a clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.admission.admission import Admission
from ratelimit.control.admitted import Admitted
from ratelimit.control.drift import Drift, Observation
from ratelimit.control.evidence import AccountingEvidence
from ratelimit.control.learning.windows import Windows
from ratelimit.control.limits_seen import DIMENSION_OF, Key, level_of, limits_shown
from ratelimit.control.pricing import Pricing
from ratelimit.control.slack import Slack
from ratelimit.events.reports import Believed
from ratelimit.events.sentences import label_of
from ratelimit.feedback import Reading, Refusal
from ratelimit.limits import MINUTE


class Levels:
    """What headers have shown of the levels of one family's buckets."""

    def __init__(
        self, admission: Admission, pricing: Pricing, slack: Slack, evidence: AccountingEvidence
    ) -> None:
        self._admission = admission
        self._pricing = pricing
        self._slack = slack
        self._evidence = evidence
        self._drifts: dict[Key, Drift] = {}
        self.windows = Windows()
        self.corrected: dict[str, float] = {}
        """By how much headers have moved each level in all, by labels like
        "tokens/60s".
        """

    def believed(self, refusal: Refusal, admitted: Admitted) -> Believed:
        """Return what is known here of the limit that a refusal is about."""
        store = self._admission.store
        name, period = DIMENSION_OF.get(refusal.kind or ""), refusal.period
        held = [one for one in store.limits if one.name == name and period in {None, one.per}]
        limit = min(held, key=lambda one: one.per, default=None)
        levels = store.levels(self._admission.now())
        level = None if limit is None else levels.get((limit.name, limit.per))
        needs = admitted.payment.amounts.get(name or "", 0.0)
        return Believed(limit, level, needs, bool(store.limits), store.in_flight)

    def start(
        self, admitted: Admitted, readings: Sequence[Reading], known: set[Key], now: float
    ) -> None:
        """Fill the buckets of newly learned limits to the server's level.

        Less what this call has reserved beyond its charge.
        """
        admission = self._admission
        for limit in admission.store.limits:
            level = level_of(readings, limit.name, limit.per)
            if (limit.name, limit.per) in known:
                if level is not None:
                    admission.cap_level(limit.name, limit.per, level)
                continue

            if limit.name == "tokens" and level is not None:
                self._evidence.on_level(admitted, limit.amount - level)
            for bucket in admission.store.buckets_of(limit.name):
                if bucket.limit.per == limit.per:
                    missing = 0 if level is None else max(bucket.burst - level, 0)
                    late = (admitted.excess(limit.name) + missing) * bucket.seconds_per_unit
                    admission.store.correct(bucket, late, now)

    def follow(self, admitted: Admitted, readings: Sequence[Reading], now: float) -> None:
        """Move each level to what the headers show, as far as `Drift` is sure."""
        payment, store = admitted.payment, self._admission.store
        evidence = payment.evidence
        if evidence is None:
            return
        shown, guessed = limits_shown(readings)
        for bucket, full_at in evidence.marks:
            name, per = key = bucket.name, bucket.limit.per
            level = level_of(readings, name, per)
            corrected = store.corrected(bucket)
            limit = shown.get((name, MINUTE) if name in guessed else key)
            if level is None or corrected is None:
                continue
            if limit is not None and limit < bucket.limit.amount:  # another model's bucket
                continue

            if name == "tokens" and limit is not None:
                self._evidence.on_level(admitted, limit - level)
            seen = Observation(
                level=level,
                burst=bucket.burst,
                seconds_per_unit=bucket.seconds_per_unit,
                admitted_at=payment.admitted_at,
                headers_at=min(now, payment.admitted_at + self._slack.seconds),
                full_at=full_at,
                corrected=corrected,
                above_burst=max(bucket.limit.amount - bucket.burst, 0.0),
                excess=admitted.excess(name) if self._pricing.reconciles else 0.0,
                refundable=admitted.refundable(name),
                in_transit=admitted.in_transit.get(name, 0),
                admitted_since=store.admissions - evidence.serial,
                was_alone=evidence.in_flight == 1,
                input_only=self._pricing.charges_input_only,
            )
            seconds = self._drifts.setdefault(key, Drift()).observe(seen)
            if abs(seconds) < _rounding(readings, name) * bucket.seconds_per_unit:
                continue
            if seconds > 0 or (seconds < 0 and limit == bucket.limit.amount):
                store.correct(bucket, seconds, now)
                amount = -seconds / bucket.seconds_per_unit
                if name == "tokens":
                    self._evidence.on_correction(amount, bucket.limit.amount)
                label = label_of(name, per)
                self.corrected[label] = self.corrected.get(label, 0.0) + amount

    def keep_windows(self, admitted: Admitted, readings: Sequence[Reading], now: float) -> bool:
        """Close the queue until used-up windows open, and raise levels to what is left.

        Limits that were given are kept: nothing but time refills them. Returns whether
        the headers show a window.
        """
        store, windows = self._admission.store, self.windows
        if not windows.on_headers(readings, admitted.payment.admitted_at, now):
            return False
        left, opens = windows.left(), windows.opens()
        if opens > now:
            self._admission.close(opens - now)
        given = {(limit.name, limit.per) for limit in store.given}
        for bucket in store.buckets_of("requests"):
            if (bucket.name, bucket.limit.per) in given:
                continue
            missing = max(bucket.burst - left, 0.0) * bucket.seconds_per_unit
            beyond = store.full_at(bucket) - (opens if opens > now else now + missing)
            if beyond > 0:
                store.correct(bucket, -beyond, now)
        return True


def _rounding(readings: Sequence[Reading], name: str) -> float:
    """Return by how much what is shown may be off, as it is rounded."""
    steps = [reading.step for reading in readings if DIMENSION_OF.get(reading.name) == name]
    return max(steps, default=1.0) - 1
