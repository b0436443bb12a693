"""Applies headers and refusals to one family's buckets.

Owns when each policy of this room is asked, and what is done with its answer. Must
never read HTTP or a clock by itself, or settle a call.

* *Cold start.* Nobody knows how full the server's buckets are. A family that listens to
  headers sends one call and holds the rest until its headers are there; then it goes at
  full speed from the real level. After a call that fails without headers the next one
  tries.
* *Limits.* Where none were given they are learned, and changed when the server changes
  them. Limits that were given are only ever lowered, for as long as the server shows
  lower ones.
* *Levels.* Down at once; up only where the server has the same limit as we: a limiter
  that was given a share of the limit keeps to its share.
* *Refusals.* The queue pauses until the named moment, for everybody, or for a pause
  that doubles as long as refusals go on; when they do the calls go slowly.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import inf
from typing import Final

from ratelimit.admission.admission import Admission
from ratelimit.control.admitted import Admitted
from ratelimit.control.concurrency import ConcurrencyEstimate
from ratelimit.control.evidence import AccountingEvidence
from ratelimit.control.levels import Levels
from ratelimit.control.limits_seen import DIMENSION_OF, LimitsOfModels
from ratelimit.control.pause import Pause, Quota, TooLarge, Trust
from ratelimit.control.pricing import Pricing
from ratelimit.control.slack import InTransit, Slack
from ratelimit.errors import caution
from ratelimit.events.records import Concluded, Conclusion, Recovered, Refused, Source, name_of
from ratelimit.events.reports import Reports, refused_limit
from ratelimit.feedback import Reading, Refusal
from ratelimit.limits import Limits

FIRST_HEADERS_SECONDS: Final = 30.0
"""Seconds that the rest waits for the first headers: the first call may wait, too."""
ALONE_SECONDS: Final = 5.0
"""Seconds after a pause for which calls go one by one, until an answer comes."""


class Controller:
    """What the answers of one family's server have changed so far."""

    def __init__(
        self, admission: Admission, pricing: Pricing, slack: Slack, reports: Reports
    ) -> None:
        self._admission = admission
        self._pricing = pricing
        self._slack = slack
        self._reports = reports
        self._seen = LimitsOfModels()
        self._evidence = AccountingEvidence(pricing, self._concluded)
        self._levels = Levels(admission, pricing, slack, self._evidence)
        self.windows = self._levels.windows
        self._concurrency = ConcurrencyEstimate()
        self._learned: int | None = None  # the last concurrency that it gave
        self._pause = Pause()
        self._quota = Quota()
        self._repetition = pricing.repetition
        self._trust = Trust()
        self._named: set[str] = set()  # models that a warning has named
        self._too_large = TooLarge()
        self._in_transit = InTransit()
        self._forked_at = -inf
        # Reentrant: a finalizer or signal handler may settle a call, and so come here,
        # in the middle of anything here.
        self._lock = threading.RLock()
        self._cold = False
        self.refused = 0
        """429s that happened all the same."""
        self.awaits_answers = False
        """Whether there was a refusal of any kind: answers tell when it is over."""
        self.headers_at = -inf
        """When headers came last."""
        self.last_refusal: tuple[float, str] | None = None
        """When the last 429 came, and its limit by its label, or its code."""
        self._refused_since: tuple[float, int] | None = None
        """When the first of the latest refusals came, and how many there had been."""

    @property
    def corrected(self) -> dict[str, float]:
        """By how much headers have moved each level, by labels like "tokens/60s"."""
        return self._levels.corrected

    def listen(self) -> None:
        """Expect headers from now on: keep marks, and start with one call."""
        store = self._admission.store
        if store.marking:
            return
        self._pricing.sees_headers = True
        store.mark()
        self._start(self._admission.now())

    def reset_after_fork(self) -> None:
        """Start anew in a forked process, where earlier calls are the parent's."""
        self._lock = threading.RLock()
        self._forked_at = self._admission.now()
        if self._admission.store.marking:
            self._start(self._forked_at)

    def _start(self, now: float) -> None:
        """Send one call and await its headers, unless a store remembers the level."""
        if not self._admission.store.remembers:
            self._cold = True
            self._admission.store.cap(1, now + FIRST_HEADERS_SECONDS)

    def on_admission(self, admitted: Admitted) -> Admitted:
        """Return the call together with what was charged shortly before it.

        Those requests may arrive after this one, and its headers not show them.
        """
        with self._lock:
            before = self._in_transit.add(
                admitted.payment.admitted_at, admitted.charged, self._slack.seconds
            )
        return admitted._replace(in_transit=before)

    def on_headers(self, admitted: Admitted, readings: Sequence[Reading], now: float) -> None:
        """Apply what an answer's headers show."""
        with self._lock:
            self.headers_at = now
            self._relax(now)
            if readings:  # an answer that shows nothing contradicts nothing
                self._read(admitted, readings, now)
            asked = self._cold or self._admission.store.asks_alone  # maybe for another process
            if self._levels.keep_windows(admitted, readings, now) or asked:
                self._cold = False
                self._apply_concurrency()
        self._admission.queue.nudge()

    def on_answer(self, now: float) -> None:
        """Take note of an answer that was no refusal, of a call without headers."""
        if self.awaits_answers:
            with self._lock:
                self._relax(now)
            self._admission.queue.nudge()

    def _relax(self, now: float) -> None:
        """Give up step by step what refusals have made of this family."""
        if self._refused_since is not None and now >= self._admission.store.closed_until:
            since, before = self._refused_since
            self._refused_since = None
            self._reports.put(Recovered, seconds=now - since, refusals=self.refused - before)
        self._pause.answered(now)
        self._quota.answered()
        self._trust.answered()
        self._admission.store.ask_within = self._trust.seconds
        self._evidence.on_answer(now)
        self._repetition.answered(now)
        if self._concurrency.on_success(now):
            self._apply_concurrency()
            self._report_concurrency()
        if self._seen.expire(now):
            self._hold(self._limits(now), now, "expiry")

    def _hold(self, limits: Limits | None, now: float, source: Source, model: str = "") -> None:
        """Hold other limits from now on; None: there are none."""
        store = self._admission.store
        if limits is not None:
            before = store.limits
            store.replace(limits, now)
            self._reports.limits(before, limits, source, model)

    def give(self, given: Limits, now: float) -> None:
        """Hold what a user gives, as far as answers have shown no lower limits."""
        store = self._admission.store
        with self._lock:
            before, limits = store.limits, self._seen.to_hold(given, given, now) or given
            store.give(given, now)
            store.replace(limits, now)
            self._reports.limits(before, limits, "given")

    def _concluded(
        self, about: Conclusion, before: str | int | None, after: str | int | None
    ) -> None:
        self._reports.put(Concluded, about=about, before=before, after=after)

    def on_time_to_headers(self, seconds: float) -> None:
        """Take the seconds from one call's admission to its headers."""
        if self._slack.observe(seconds):
            self._admission.store.expect(self._slack.seconds)

    def on_unsettled(self, beyond: float) -> None:
        """Take what a call without usage keeps debited above its charge, in tokens."""
        self._evidence.on_unsettled(beyond)

    def on_bill(self, beyond: float) -> None:
        """Take by how many tokens a usage was above its admission charge (or below)."""
        self._evidence.on_bill(beyond)

    def on_refusal(self, refusal: Refusal, admitted: Admitted) -> Refusal:
        """Pause the queue for as long as a refusal asks, and hold what it shows.

        Returns the refusal as it was judged: one that outlasts its pause may be final.
        """
        reports = self._reports
        believed = self._levels.believed(refusal, admitted) if reports.wants(Refused) else None
        refusal, pause = self._take_refusal(refusal, admitted)
        if pause is not None:
            self._admission.close(pause)
        if believed is not None:
            waiting = len(self._admission.queue)
            reports.refusal(refusal, admitted.model, believed, pause, waiting, self.refused)
        with self._lock:
            self._report_concurrency()
        return refusal

    def _take_refusal(self, refusal: Refusal, admitted: Admitted) -> tuple[Refusal, float | None]:
        """Return the refusal as judged, and for how long to pause; None: not at all."""
        admission, admitted_at = self._admission, admitted.payment.admitted_at
        self.awaits_answers = True
        with self._lock:
            now = admission.now()
            refusal = self._quota.judged(refusal, admitted_at, now)
            if self._refused_since is None:
                self._refused_since = now, self.refused
            self.refused += not refusal.overloaded  # without capacity no limit is refused
            self.last_refusal = now, refused_limit(refusal) or name_of(refusal.code)
            self._trust.refused(admitted_at)
            admission.store.ask_within = self._trust.seconds
            self._lower_limits(refusal, admitted, now)
            if refusal.hopeless:
                if refusal.kind is not None and refusal.limit is not None:
                    self._too_large.refused(refusal.kind, refusal.limit, admitted_at, now)
                return refusal, None

            named = refusal.wait or refusal.period or refusal.slow_down or refusal.overloaded
            if not named:
                in_flight = admission.store.in_flight
                self._concurrency.on_refusal(refusal.limit, in_flight, admitted_at, now)
                self._apply_concurrency()
            if refusal.kind == "tokens":
                self._evidence.on_tokens_refused(now)
            pause = self._pause.seconds(refusal, now)
            shows_no_level = refusal.used is None and not refusal.overloaded
            if self._repetition.refused(refusal.kind, admitted_at, now) or shows_no_level:
                self._empty(refusal, pause, now)
        return refusal, pause

    def _empty(self, refusal: Refusal, pause: float, now: float) -> None:
        """Start slowly after a refusal that shows no level, or a wrong one.

        It proves that the server's bucket cannot pay, whatever ours shows: when the
        pause is over one call goes, and the others follow at the limit's rate.
        """
        name = DIMENSION_OF.get(refusal.kind or "requests", "requests")
        left = 1 if name == "requests" else 0
        self._admission.cap_level(name, refusal.period, left, after=pause)
        if self._pricing.sees_headers:
            self._cold = True
            self._admission.store.cap(1, now + pause + ALONE_SECONDS)

    def ask(self, now: float) -> bool:
        """Send a call to ask, if what came from outside has stopped all calls for long.

        Returns whether a call may go that could not: the limits that were given hold
        with what was counted here, and one call goes alone.
        """
        store = self._admission.store
        with self._lock:
            if not self._trust.is_over(store.admitted_at, now):
                return False
            store.ask_within = self._trust.seconds
            before = store.limits
            limits = Limits(*store.given, concurrency=before.concurrency)
            if not store.revert(limits, now):
                return False
            self._reports.limits(before, limits, "asking")
            self._seen = LimitsOfModels()
            self._cold = True
            store.cap(1, now + FIRST_HEADERS_SECONDS)
        return True

    def retract(self, name: str, amount: float) -> bool:
        """Drop limits below ``amount`` that answers have shown, unless they are sure.

        Returns whether a call of that amount fits now. It goes alone and asks: a server
        that refuses twice as too large is not asked again for `TOO_LARGE_SECONDS`.
        """
        store = self._admission.store
        with self._lock:
            now = self._admission.now()
            if self._too_large.is_sure(name, amount, now):
                return False
            retracted = self._seen.retract(name, amount)
            limits = self._limits(now)
            if retracted and limits is not None:
                self._hold(limits, now, "asking")
                self._cold = True
                store.cap(1, now + FIRST_HEADERS_SECONDS)
        self._admission.queue.nudge()
        held = store.limits if limits is None else limits
        return all(limit.amount >= amount for limit in held if limit.name == name)

    def _read(self, admitted: Admitted, readings: Sequence[Reading], now: float) -> None:
        changed = self._seen.of(admitted.model).on_headers(readings, now) is not None
        limits = self._limits(now) if changed else None
        if changed:
            self._name_smaller_model(admitted.model, now)
        if limits is None:
            if admitted.payment.admitted_at > self._forked_at:  # else its buckets are gone
                self._levels.follow(admitted, readings, now)
            return
        store = self._admission.store
        before = {(limit.name, limit.per) for limit in store.limits}
        self._hold(limits, now, "header", admitted.model)
        self._levels.start(admitted, readings, before, now)

    def _name_smaller_model(self, model: str, now: float) -> None:
        """Warn once of a model with limits of its own below those of its family."""
        smaller = self._seen.smaller(model, now)
        if smaller and model and model not in self._named:
            self._named.add(model)
            caution(
                f"the server limits model {name_of(model)!r} to {smaller[0]}, less than others "
                "that share this limiter's buckets; give its limits by model, so that it waits for "
                'its own: RateLimiter(limits={"...": Limits(...), "*": Limits(...)})',
                stacklevel=2,
            )

    def _limits(self, now: float) -> Limits | None:
        """Return the limits to hold; see `LimitsOfModels.to_hold`."""
        return self._seen.to_hold(self._admission.store.given, self._admission.store.limits, now)

    def _lower_limits(self, refusal: Refusal, admitted: Admitted, now: float) -> None:
        """Hold no more than the limit that a refusal names.

        Also where no header has shown it, such as a minute's requests behind a day's.
        """
        kind, period, amount = refusal.kind, refusal.period, refusal.limit
        if not (kind and period and amount):
            return
        seen = self._seen.of(admitted.model)
        admitted_at = admitted.payment.admitted_at
        changed = seen.on_refusal(kind, period, amount, admitted_at, now) is not None
        limits = self._limits(now) if changed else None
        if limits is None:
            return
        store = self._admission.store
        before = {(limit.name, limit.per) for limit in store.limits}
        self._hold(limits, now, "refusal", admitted.model)
        if refusal.hopeless:
            return
        for limit in limits:
            if (limit.name, limit.per) not in before:
                left = 0 if refusal.used is None else amount - refusal.used
                self._admission.cap_level(limit.name, limit.per, left)

    def _apply_concurrency(self) -> None:
        store = self._admission.store
        given = store.limits.concurrency
        store.cap(*self.windows.cap(self._concurrency.limit(given), given))

    def _report_concurrency(self) -> None:
        """Report how many calls may be in flight, if that was learned anew."""
        learned = self._concurrency.limit(self._admission.store.limits.concurrency)
        if learned != self._learned:
            before, self._learned = self._learned, learned
            self._concluded("concurrency", before, learned)
