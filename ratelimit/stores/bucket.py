"""The arithmetic of one limit, and why it is what it is.

Owns one number. Knows no clock (every verb takes the time), no line, no other bucket,
no I/O.

How a bucket works, and why --------------------------- A limit of 30,000 tokens per
minute is a bucket that holds 30,000 tokens and refills by 500 a second, all the time.
One could keep its level and the time at which it was last looked at. We keep the
*moment at which it is next full*, ``full_at`` (the generic cell rate algorithm, GCRA,
of ITU-T I.371), and everything else follows:

    level(now) = burst - (full_at - now) * rate                                     at most burst

    t = 0    full                            full_at =  0    level 30,000
             take 20,000, which is 40 s      full_at = 40    level 10,000
    t = 10   nothing was done, yet           full_at = 40    level 15,000
             take 20,000?  fits at 20: 40 + 40 - 60          so wait, until t = 20
    t = 20   take 20,000                     full_at = 80    level      0
    t = 25   the first call used 8,000 only  full_at = 56    level 14,500    give back 12,000, which is 24 s
    t = 26   the second used 50,000          full_at = 116   level -15,000   a late debit: nobody goes before t = 56 + cost

* Refill is no code at all. A refund is a subtraction, a debt an addition. No verb can
  forget to update a timestamp.
* ``moment(amount)`` says when the amount fits if nothing else happens. Whoever sleeps
  until then and compares moments, not levels, is admitted: there is no rounding residue
  of 1e-12 tokens to wait for, so no endless spin on a virtual clock.
* The invariant: ``take(3)`` leaves what three ``take(1)`` leave, and ``give`` undoes
  ``take``. For amounts up to the burst, what is taken in any window of time never
  exceeds ``burst + rate * window`` (given-back amounts taken off).

Slack: date the debit at its arrival ------------------------------------ The server's
bucket is debited when the request *arrives*; ours, when it leaves. If ours was full it
starts to refill at once, the server's only later: for ``lag * rate`` tokens we would
believe in a level that the server does not have, and a burst sent on that belief gets
429s. So the debit is dated ``now + slack``, the latest arrival that is plausible:
``full_at = max(full_at, now + slack) + amount / rate``. If every request arrives within
the slack, in whatever order, our ``full_at`` is never before the server's (both are
"the latest of a start plus all that came after it"; each of our starts is at or after
the server's), so whatever fits here fits there. It costs burst - a full bucket of a
minute with a slack of 2 s lends 58 s of it - and never rate: a bucket in use has
``full_at`` beyond ``now + slack`` anyway. A bucket of only a second would lose rate
too, so the slack is held below half of the bucket's own window.

Held: what the server debits only at the end
-------------------------------------------- OpenAI charges a call's input when it
arrives and replaces that by the usage when it ends: the output is debited late.
Reserving the expected output as if it were debited at once would let that part drip
away while the answer is still being written, and give back at the end what was never
taken: after a long answer we would believe in refill that the server's full bucket
threw away. So this part of a cost is *held*: it lowers the level while the call is in
flight, does not drip, and at the end the usage is debited in its place. ``full_at``
then is the server's own. Held amounts count against the limit, not against the burst:
nothing of them goes at once.

Oversize -------- A cost above the burst, but within the limit, goes when the bucket is
full and leaves it in debt: ``moment`` treats it like the burst, ``take`` takes all of
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from ratelimit.limits import Cost, Limit

HELD: Final = "held"
"""In a cost, the part of its tokens that the server debits only when the call ends. In
what is given back, the part that is held no longer.
"""


class Bucket:
    """One limit's state: the moment, in seconds of the caller's clock, at which it is
    next full.

    ``seconds_per_unit`` is 1 / rate, ``window`` the seconds that refill an empty
    bucket; ``slack`` the first guess of it, in seconds.
    """

    __slots__ = (
        "_least_slack",
        "before",
        "burst",
        "corrected",
        "full_at",
        "held",
        "holds",
        "limit",
        "name",
        "seconds_per_unit",
        "slack",
        "window",
    )

    def __init__(self, limit: Limit, now: float, slack: float = 0.0) -> None:
        self.limit = limit
        self.name = limit.name
        self.burst = float(limit.amount if limit.burst is None else limit.burst)
        self.seconds_per_unit = limit.per / limit.amount
        self.window = self.burst * self.seconds_per_unit
        self._least_slack = min(slack, self.window / 30)
        self.slack = 0.0
        self.expect(slack)
        self.full_at = self.before = now
        self.holds = limit.name == "tokens"
        self.held = 0.0  # in the limit's unit
        # seconds by which `correct` has moved full_at in all: a lease subtracts what
        # came since its own admission
        self.corrected = 0.0

    def expect(self, slack: float) -> None:
        """Expect requests to arrive at most ``slack`` seconds after they were admitted."""
        self.slack = min(max(slack, self._least_slack), self.window / 2)

    def owed(self, now: float) -> float:
        """What has been taken and not refilled at ``now``, in the limit's unit; what is
        held is not taken yet.
        """
        return max(self.full_at - now, 0.0) / self.seconds_per_unit

    def level(self, now: float) -> float:
        """What could be taken at ``now``, in the limit's unit; below zero in debt."""
        owed = self.owed(now)
        return min(self.burst - owed, self.limit.amount - owed - self.held)

    def moment(self, amount: float, held: float = 0.0) -> float:
        """When ``amount`` fits, and ``held`` on top, if nothing else happens; past if
        it fits already, inf if that takes more than time.
        """
        limit = self.limit.amount
        if amount > limit:
            return inf
        moment = (
            self.full_at
            if amount > self.burst
            else self.full_at + amount * self.seconds_per_unit - self.window
        )
        total = self.held + held + amount
        if total > amount:
            if total <= limit:
                moment = max(moment, self.full_at + total * self.seconds_per_unit - self.limit.per)
            elif self.held:
                return inf  # until calls end that hold
            else:
                # dearer than the limit with its output: from a full bucket, as any
                # oversize cost
                moment = max(moment, self.full_at)
        return moment

    def take(self, amount: float, now: float) -> bool:
        """Debit ``amount``, dated `slack` after ``now``, if its `moment` has come; else
        change nothing and return False.
        """
        return take_all((self,), {self.name: amount}, now)

    def give(self, amount: float, now: float) -> None:
        """Give ``amount`` back, or debit it late when negative."""
        give_all((self,), {self.name: amount}, now)

    def correct(self, seconds: float, now: float) -> None:
        """Move ``full_at`` by ``seconds`` because the server says so: later (positive)
        means a lower level.
        """
        before = max(self.full_at, now)
        self.full_at = before + seconds
        self.corrected += seconds


def take_all(buckets: Sequence[Bucket], cost: Cost, now: float) -> bool:
    """Debit every bucket that ``cost`` names, if the moment of each has come; else
    change none and return False.

    One pass in one frame, because every call pays for it: debit until one bucket cannot
    pay, then undo.
    """
    held = cost.get(HELD)
    for bucket in buckets:
        amount = cost.get(bucket.name)
        if amount:
            start = bucket.full_at
            if held or bucket.held:
                share = held if held and bucket.holds else 0
                amount -= share
                if bucket.moment(amount, share) > now:
                    _undo(buckets, cost, bucket)
                    return False
                bucket.held += share
                due = amount * bucket.seconds_per_unit
            else:
                due = amount * bucket.seconds_per_unit
                if (
                    start + due - bucket.window > now
                    if amount <= bucket.burst
                    else start > now or amount > bucket.limit.amount
                ):
                    _undo(buckets, cost, bucket)
                    return False
            arrival = now + bucket.slack
            bucket.before = start
            bucket.full_at = (start if start > arrival else arrival) + due
    return True


def _undo(buckets: Sequence[Bucket], cost: Cost, failed: Bucket) -> None:
    for bucket in buckets:
        if bucket is failed:
            return
        if cost.get(bucket.name):
            bucket.full_at = bucket.before
            if bucket.holds:
                bucket.held -= cost.get(HELD, 0)


def give_all(buckets: Sequence[Bucket], cost: Cost, now: float) -> None:
    """Give back to every bucket what ``cost`` names, or debit it late where it is
    negative; what was held is debited unless it comes back.
    """
    held = cost.get(HELD)
    for bucket in buckets:
        amount = cost.get(bucket.name)
        if held and bucket.holds:
            bucket.held = max(bucket.held - held, 0.0)
            amount = (amount or 0) - held
        if amount:
            start = bucket.full_at
            bucket.full_at = (start if start > now else now) - amount * bucket.seconds_per_unit
