"""The numbers of all buckets of one family of models.

Owns what a call, its settlement and a correction would make of them. Must never lock or
change anything by itself: `after_take` and `after_settlement` return new numbers, which
a store writes when it is sure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from ratelimit.errors import RequestTooLarge
from ratelimit.limits import Limit, Limits, whole
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.payments import NOTHING, Mark, Payment


class Buckets:
    """The buckets of one family, full at the start.

    :param limits: any number of limits; none at all admits everything.
    :param now: the time it is, in seconds of the caller's clock.
    :param slack: the first guess of it, in seconds; see `ratelimit.stores.bucket`.
    """

    def __init__(self, limits: Limits, now: float, slack: float = 0.0) -> None:
        self.all = tuple(Bucket(limit, slack) for limit in limits)
        self.full_at = [now] * len(self.all)
        """When each bucket is next full; a list is replaced, never changed."""
        self.figures: list[tuple[int, str, float, float, float]] = []
        """Place, name, seconds per unit, window and slack of each bucket, for the hot
        path.
        """
        self.expect(slack)
        self.corrected = [0.0] * len(self.all)
        """Seconds by which corrections have moved each ``full_at``, in all."""
        self.lowered_until = [now] * len(self.all)
        """When what corrections have taken from each bucket will have refilled."""
        self.deferred = 0.0
        """Tokens that all calls in flight have deferred."""

    def __iter__(self) -> Iterator[tuple[Bucket, float]]:
        return zip(self.all, self.full_at, strict=True)

    def expect(self, slack: float) -> None:
        """Date debits ``slack`` seconds after admission from now on."""
        for bucket in self.all:
            bucket.expect(slack)
        self.figures = [
            (place, bucket.name, bucket.seconds_per_unit, bucket.window, bucket.slack)
            for place, bucket in enumerate(self.all)
        ]

    def after_take(self, payment: Payment, now: float) -> list[float] | None:
        """Return ``full_at`` of each bucket after a payment; None: one cannot pay."""
        full_at = self.full_at.copy()
        for place, (bucket, start) in enumerate(self):
            amount = payment.amounts.get(bucket.name)
            if amount:
                amount, moment = self._deferring(bucket, start, amount, payment)
                if moment > now:
                    return None
                full_at[place] = bucket.taken(start, amount, now)
        return full_at

    def _deferring(
        self, bucket: Bucket, full_at: float, amount: float, payment: Payment
    ) -> tuple[float, float]:
        """Return what a bucket is debited at once of ``amount``, and when that fits."""
        if not bucket.defers:
            return amount, bucket.moment(full_at, amount)
        deferred = self.deferred
        if payment.slot is not None:
            deferred = max(deferred - payment.deferred_around, 0.0)
        amount -= payment.deferred
        return amount, bucket.moment(full_at, amount, payment.deferred, deferred)

    def after_settlement(
        self, payment: Payment, used: Mapping[str, float], now: float
    ) -> list[float]:
        """Return ``full_at`` of each bucket after a call that has used ``used``.

        What the call deferred is debited, unless it ended before or gives it back.
        """
        reserved, spent = payment.amounts, payment.spent
        deferred = 0.0 if payment.ended else payment.deferred
        full_at = self.full_at.copy()
        for place, (bucket, start) in enumerate(self):
            name = bucket.name
            back = 0.0
            if name in used:
                before = spent[name] if spent and name in spent else reserved.get(name, 0)
                back = before - used[name]
            if deferred and bucket.defers:
                back -= deferred
            if back:
                full_at[place] = bucket.given(start, back, now)
        return full_at

    def after_spending(self, share: float, now: float) -> list[float]:
        """Return ``full_at`` of each bucket after others used a share of its limit.

        Dated like a debit: the server's bucket, too, is looked at only when the first
        request arrives.
        """
        full_at = self.full_at.copy()
        for place, (bucket, full) in enumerate(self):
            left = (1 - share) * bucket.limit.amount
            if share and left < bucket.burst:
                full_at[place] = bucket.given(full, left - bucket.burst, now + bucket.slack)
        return full_at

    def marks(self, full_at: list[float]) -> list[Mark]:
        """Return the marks of a call that leaves the buckets full at these moments."""
        return [
            Mark(bucket, full - corrected)
            for bucket, full, corrected in zip(self.all, full_at, self.corrected, strict=True)
        ]

    def wait(self, payment: Payment) -> float:
        """Return when every bucket can pay; inf: not before a call in flight ends."""
        self.refuse_oversize(payment.amounts, payment.deferred)
        moments = []
        for bucket, full_at in self:
            amount = payment.amounts.get(bucket.name)
            if amount:
                moments.append(self._deferring(bucket, full_at, amount, payment)[1])
        return max(moments)

    def moment(
        self,
        amounts: Mapping[str, float],
        deferred: float = 0.0,
        ahead: Mapping[str, float] = NOTHING,
    ) -> float:
        """Return when a call fits at the earliest; -inf if nothing limits it.

        What calls in flight have deferred is left out: no time frees it, but an end
        may, at any moment.

        :param ahead: what has to be debited before this call, summed.
        """
        latest = -inf
        for bucket, full_at in self:
            amount, before = amounts.get(bucket.name, 0), ahead.get(bucket.name, 0)
            if not amount and not before:
                continue

            defers = deferred if bucket.defers else 0.0
            amount = min(amount - defers, bucket.burst)
            due = (before + amount) * bucket.seconds_per_unit
            latest = max(latest, full_at + (due - bucket.window))
            if defers and not before and not self.deferred:
                latest = max(latest, bucket.moment(full_at, amount, defers))
        return latest

    def latest(
        self,
        amounts: Mapping[str, float],
        deferred: float = 0.0,
        ahead: Mapping[str, float] = NOTHING,
    ) -> Limit | None:
        """Return the limit for which a call waits longest; None if nothing limits it.

        :param ahead: what has to be debited before this call, summed.
        """
        moments: list[tuple[float, int]] = []
        for place, (bucket, full_at) in enumerate(self):
            amount, before = amounts.get(bucket.name, 0), ahead.get(bucket.name, 0)
            if amount or before:
                amount = min(amount - (deferred if bucket.defers else 0.0), bucket.burst)
                due = (before + amount) * bucket.seconds_per_unit
                moments.append((full_at + (due - bucket.window), place))
        return self.all[max(moments)[1]].limit if moments else None

    def not_before(
        self, amounts: Mapping[str, float], deferred: float, ahead: Mapping[str, float], sure: bool
    ) -> float:
        """Return a moment before which a call cannot go, whatever is given back.

        :param ahead: what certainly stays debited of the calls in front, summed.
        :param sure: whether no call in flight can give back anything but requests.
        """
        latest = -inf
        for bucket, full_at in self:
            if not sure and bucket.name != "requests":
                continue

            amount, before = amounts.get(bucket.name, 0), ahead.get(bucket.name, 0)
            if amount or before:
                amount = min(amount - (deferred if bucket.defers else 0.0), bucket.burst)
                due = (before + amount) * bucket.seconds_per_unit
                latest = max(latest, full_at + (due - bucket.window))
        return latest

    def refuse_oversize(self, amounts: Mapping[str, float], deferred: float = 0.0) -> None:
        """Raise `RequestTooLarge` for a cost that no amount of waiting makes fit."""
        for bucket in self.all:
            limit = bucket.limit
            amount = amounts.get(limit.name, 0) - (deferred if bucket.defers else 0)
            if amount > limit.amount:
                raise RequestTooLarge(
                    f"this call needs {whole(amount)} {limit.name}, the limit is {limit}: it can "
                    "never be admitted; shorten the prompt, lower max_tokens, split the call, or "
                    "raise the limit if the account allows more",
                    name=limit.name,
                    amount=amount,
                    limit=limit.amount,
                )

    def levels(self, now: float) -> list[float]:
        """Return the level of each bucket."""
        return [bucket.level(full_at, now, self.deferred) for bucket, full_at in self]

    def replaced(
        self, limits: Limits, now: float, slack: float, *, carries: bool = False
    ) -> Buckets:
        """Return the buckets of other limits, which keep what is owed under these.

        A bucket of the same name and period keeps what it owes, but is not in debt by
        it for longer than before: a limit that was far too high leaves no debt. The
        lead of the slack stays as many seconds.

        :param carries: whether a bucket of a new period begins with what is owed under
            those of other periods, as far as it can pay that.
        """
        places = {(bucket.name, bucket.limit.per): place for place, bucket in enumerate(self.all)}
        made = Buckets(limits, now, slack)
        made.deferred = self.deferred
        for place, bucket in enumerate(made.all):
            before = places.get((bucket.name, bucket.limit.per))
            if before is None:
                if carries:
                    owed = self._owed_most(bucket.name, now) * bucket.seconds_per_unit
                    made.full_at[place] = now + min(owed, bucket.window)
                continue

            old, seconds = self.all[before], max(self.full_at[before] - now, 0.0)
            late = min(seconds, old.slack)
            owed = late + (seconds - late) / old.seconds_per_unit * bucket.seconds_per_unit
            kept = min(owed, max(late + bucket.limit.per, seconds))
            made.full_at[place] = now + kept
            if seconds:
                lowered = max(self.lowered_until[before] - now, 0.0) * owed / seconds
                made.lowered_until[place] = now + max(lowered - (owed - kept), 0.0)
        return made

    def _owed_most(self, name: str, now: float) -> float:
        """Return the most that a bucket of this dimension owes, in its unit."""
        owed = [one.owed(full_at, now) for one, full_at in self if one.name == name]
        return max(owed, default=0.0)

    def after_revert(self, now: float) -> tuple[list[float], list[float]]:
        """Return ``full_at`` and `corrected` without what corrections still hold.

        What a correction took refills like any debit, so no more than the rest of it is
        given back.
        """
        back = [max(until - now, 0.0) for until in self.lowered_until]
        full_at = [full - seconds for full, seconds in zip(self.full_at, back, strict=True)]
        corrected = [moved - seconds for moved, seconds in zip(self.corrected, back, strict=True)]
        return full_at, corrected
