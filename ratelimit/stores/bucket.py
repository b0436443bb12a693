"""The arithmetic of one limit, and why it is what it is.

Owns what a take, a refund, a debit and the passing of time do to one number. Must never
keep that number (a store does), read a clock (time is an argument) or know another
bucket.

How a bucket works, and why
---------------------------

A limit of 30,000 tokens per minute is a bucket that holds 30,000 tokens and refills by
500 a second, all the time. One could keep its level and the time at which it was last
looked at. We keep the *moment at which it is next full*, ``full_at`` (the generic cell
rate algorithm, GCRA, of ITU-T I.371), and everything else follows:

    level(now) = burst - (full_at - now) * rate                       at most burst

    t = 0    full                            full_at =   0   level  30,000
             take 20,000, which is 40 s      full_at =  40   level  10,000
    t = 10   nothing was done, yet           full_at =  40   level  15,000
             take 20,000?  It fits at 40 + 40 - 60 = 20, so wait until then
    t = 20   take 20,000                     full_at =  80   level       0
    t = 25   the first call used only 8,000: give back 12,000, which is 24 s
                                             full_at =  56   level  14,500
    t = 26   the second used 50,000: debit 30,000 late, which is 60 s
                                             full_at = 116   level -15,000
             a call of cost c goes at 56 + c / 500

* Refill is no code at all. A refund is a subtraction, a debit is an addition. No
  operation can forget to update a timestamp.
* ``moment(amount)`` is when the amount fits if nothing else happens. A waiter that
  sleeps until then and compares moments, not levels, is admitted: there is no rounding
  residue of 1e-12 tokens to wait for, so no endless spin on a virtual clock.
* The invariant: taking 3 leaves what three takes of 1 leave, and giving undoes taking.
  For amounts up to the burst, what is taken in any window of time never exceeds
  ``burst + rate * window`` (less what is given back).

Slack: date the debit at its arrival
------------------------------------

The server's bucket is debited when the request *arrives*; ours, when it leaves. If ours
was full, it starts to refill at once, the server's only later: for ``lag * rate``
tokens ours would show a level that the server does not have, and a burst sent on that
level gets 429s. So the debit is dated ``now + slack``, the latest plausible arrival:
``full_at = max(full_at, now + slack) + amount / rate``. If every request arrives within
the slack, in whatever order, our ``full_at`` is never before the server's (both are
"the latest of a start plus all that came after it", and each of our starts is at or
after the server's), so whatever fits here fits there. It costs burst (a full bucket of
a minute with a slack of 2 s lends 58 s of it) and never rate: a bucket in use has
``full_at`` beyond ``now + slack`` anyway. A bucket of only a second would lose rate
too, so the slack is held below half of the bucket's own window.

Deferred: what the server debits only at the end
------------------------------------------------

OpenAI charges a call's input when it arrives and replaces that by the usage when the
call ends: the output is debited late. Taking the expected output as if it were debited
at once would let that part drip away while the answer is still being written, and give
back at the end what was never taken: after a long answer our bucket would show a refill
that the server's full bucket threw away. So this part of a cost is *deferred*: it
lowers the level while the call is in flight, does not drip, and at the end the usage is
debited in its place. ``full_at`` then is the server's own. Deferred amounts count
against the limit, not against the burst: nothing of them goes at once.

Oversize
--------

A cost above the burst, but within the limit, goes when the bucket is full and leaves it
in debt: ``moment`` treats it like the burst, ``taken`` takes all of it.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ratelimit.limits import Limit

DEFERRING: Final = "tokens"
"""The dimension that a server may debit only when the call ends."""


class Bucket:
    """What one limit makes of ``full_at``, the moment at which its bucket is next full.

    :param limit: the limit; amounts below are in its unit.
    :param slack: the first guess of how long after its admission a request arrives, in
        seconds; held between a thirtieth and a half of the bucket's window.
    """

    __slots__ = (
        "_least_slack",
        "burst",
        "defers",
        "limit",
        "name",
        "seconds_per_unit",
        "slack",
        "window",
    )

    def __init__(self, limit: Limit, slack: float = 0.0) -> None:
        self.limit = limit
        self.name = limit.name
        self.burst = float(limit.amount if limit.burst is None else limit.burst)
        self.seconds_per_unit = limit.per / limit.amount  # 1 / rate
        self.window = self.burst * self.seconds_per_unit  # seconds that refill an empty bucket
        self.defers = limit.name == DEFERRING
        self._least_slack = min(slack, self.window / 30)
        self.slack = 0.0
        self.expect(slack)

    def expect(self, slack: float) -> None:
        """Date debits ``slack`` seconds after admission from now on."""
        self.slack = min(max(slack, self._least_slack), self.window / 2)

    def owed(self, full_at: float, now: float) -> float:
        """Return what has been taken and not refilled at ``now``."""
        return max(full_at - now, 0.0) / self.seconds_per_unit

    def level(self, full_at: float, now: float, deferred: float = 0.0) -> float:
        """Return what could be taken at ``now``; below zero in debt.

        :param deferred: what calls in flight have deferred, in all.
        """
        owed = self.owed(full_at, now)
        if not self.defers:
            deferred = 0.0
        return min(self.burst - owed, self.limit.amount - owed - deferred)

    def moment(
        self, full_at: float, amount: float, defers: float = 0.0, deferred: float = 0.0
    ) -> float:
        """Return when ``amount`` fits if nothing else happens.

        The moment is past if it fits already, and inf if time alone never makes it fit.

        :param defers: what the call defers on top of ``amount``.
        :param deferred: what calls in flight have deferred already.
        """
        limit = self.limit.amount
        if amount > limit:
            return inf
        moment = full_at
        if amount <= self.burst:
            moment += amount * self.seconds_per_unit - self.window
        total = deferred + defers + amount
        if total == amount:
            return moment
        if total <= limit:
            return max(moment, full_at + total * self.seconds_per_unit - self.limit.per)
        if deferred:
            return inf  # until calls in flight end
        return max(moment, full_at)  # dearer than the limit with its output: from a full bucket

    def taken(self, full_at: float, amount: float, now: float) -> float:
        """Return ``full_at`` after ``amount`` is debited, dated `slack` later."""
        return max(full_at, now + self.slack) + amount * self.seconds_per_unit

    def given(self, full_at: float, amount: float, now: float) -> float:
        """Return ``full_at`` after ``amount`` is given back (debited if negative)."""
        return max(full_at, now) - amount * self.seconds_per_unit
