"""One family of models: its line, its store, and the verbs that all doors use.

Owns the order "newcomers pass only an empty line", the slack, and the counters. Knows
no request bodies and no answers: costs in, grants out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from ratelimit.admission import drivers as drive
from ratelimit.admission.clock import Clock
from ratelimit.admission.flow import admit
from ratelimit.admission.queue import Queue, Waiter
from ratelimit.control.controller import Controller
from ratelimit.errors import RequestTooLarge, WouldBlock
from ratelimit.limits import Cost, Limits
from ratelimit.stores import Grant
from ratelimit.stores.memory import MemoryStore

if TYPE_CHECKING:
    from ratelimit.estimate import Estimator
    from ratelimit.lease import Accounting

Price = Callable[[], Cost]

# seconds; a burst of hundreds of calls takes a Python client that long to put on the
# wire
FIRST_SLACK = 2.0
# answers seen before the slack may follow them; then the longest of the last 64 to 128
# counts
SLACK_SAMPLES = 64
SLACK_MARGIN = 1.5


class Slack:
    """How long after its admission a request may arrive, at most: a guess until enough
    answers were seen, then what they say.

    The time to an answer's headers is an upper bound of the time to the request's
    arrival, so the slack is the longest time to headers seen lately, plus half, and
    never above the first guess (long generations say nothing about the network).
    """

    __slots__ = ("_previous", "_recent", "_seen", "first", "seconds")

    def __init__(self, first: float) -> None:
        self.seconds = self.first = first
        self._previous = inf
        self._recent = 0.0
        self._seen = 0

    def observe(self, seconds: float) -> bool:
        """Hear of one answer whose headers came ``seconds`` after its admission; say
        whether the slack has changed.
        """
        self._seen += 1
        if seconds > self._recent:
            self._recent = seconds
        elif self._seen < SLACK_SAMPLES:
            return False
        before = self.seconds
        if self._seen >= SLACK_SAMPLES:
            self._previous, self._recent, self._seen = self._recent, 0.0, 0
        self.seconds = min(max(self._previous, self._recent) * SLACK_MARGIN, self.first)
        return self.seconds != before


class ModelFamily:
    """Admits the calls of one family, in order.

    :param family: the pattern of model names that share this lane.
    :param slack: see `bucket.py`, seconds.
    """

    def __init__(
        self,
        family: str,
        limits: Limits,
        clock: Clock,
        slack: float,
        accounting: Accounting,
        estimator: Estimator,
    ) -> None:
        self.family = family
        self.accounting = accounting
        self.settles = accounting in {"reconcile", "refund"}
        self.estimator = estimator
        self.clock = clock
        self.now = clock.now
        self.line = Queue()
        self.store = MemoryStore(limits, clock.now(), slack)
        self.slack = Slack(slack)
        self.refused = 0
        self.closed_until = -inf
        self.longest_wait = 0.0
        self.read_at = -inf  # when headers were read last
        self.steering = Controller(self, limits)

    @property
    def idle(self) -> bool:
        """Whether nobody waits and no call is in flight."""
        return not len(self.line) and not self.store.in_flight

    def enter_now(self, cost: Cost, rank: float, now: float) -> Grant | float:
        """Pay at once, or answer the moment at which that may be possible (inf:
        unknown).
        """
        while True:
            try:
                if self.line.entries and not self.line.admits(rank):
                    self.store.refuse_oversize(cost)
                    return inf
                return self.store.take(cost, now)
            except RequestTooLarge as error:
                if not self.steering.doubts(error.name, error.amount):
                    raise

    def enter(
        self, cost: Cost, rank: float, arrival: float, deadline: float, price: Price | None = None
    ) -> tuple[Grant, Cost]:
        """Wait in the calling thread until the call is paid; return the grant and what
        was paid.
        """
        gate = drive.ThreadParker(self.clock)
        while True:
            place = Waiter(rank, cost, gate.wake, price)
            try:
                paid: tuple[Grant, Cost] = drive.run(
                    admit(self.line, place, arrival, deadline), self.store, self.clock, gate
                )
            except RequestTooLarge as error:
                rank = self._again(error, rank)
            else:
                self._count(arrival)
                return paid

    async def enter_async(
        self, cost: Cost, rank: float, arrival: float, deadline: float, price: Price | None = None
    ) -> tuple[Grant, Cost]:
        """Wait in the calling task until the call is paid; return the grant and what
        was paid.
        """
        gate = drive.TaskParker()
        while True:
            place = Waiter(rank, cost, gate.wake, price, gate.gone)
            try:
                paid: tuple[Grant, Cost] = await drive.run_async(
                    admit(self.line, place, arrival, deadline), self.store, self.clock, gate
                )
            except RequestTooLarge as error:
                rank = self._again(error, rank)
            else:
                self._count(arrival)
                return paid

    def _again(self, error: RequestTooLarge, rank: float) -> float:
        """The rank at which a call that was too large joins the line once more, before
        its equals; raise the error unless it was doubtful.
        """
        if not self.steering.doubts(error.name, error.amount):
            raise error
        return math.nextafter(rank, -inf)

    def _count(self, arrival: float) -> None:
        self.longest_wait = max(self.longest_wait, self.now() - arrival)

    def price(self, prompt: int, output: int, charge: int) -> tuple[int, int]:
        """Tokens that a call of this prompt, output and admission charge takes from the
        server, and how many of them only at its end.

        As far as it is known how the server counts: one that settles to the usage has
        taken no less than the charge in the end (or never settles); one that charges
        the maximum and gives back what was not answered keeps its own count of the
        prompt. While headers have not told which, the larger is held.
        """
        if self.accounting == "charge":
            return charge, 0
        if (
            self.settles
            and self.accounting == "reconcile"
            and (self.steering.charges_input_only or not self.store.marking)
        ):
            beyond = prompt + output - charge
            return (prompt + output, beyond) if beyond > 0 else (charge, 0)
        return (prompt if prompt > charge else charge) + output, 0

    def refuse_now(self, moment: float) -> WouldBlock:
        """Make the error of `acquire_nowait`."""
        wait = moment - self.now() if math.isfinite(moment) else None
        return WouldBlock(
            "no capacity now"
            + (f", try again in {wait:.3f} s" if wait else ": others wait or are in flight"),
            retry_after=wait,
        )

    def close(self, seconds: float) -> None:
        """Admit nobody for so long: the server said so, once for everybody."""
        self.closed_until = max(self.closed_until, self.now() + seconds)
        self.store.close(self.closed_until)
        self.line.nudge()

    def leaves(self, name: str, per: float | None, remaining: float) -> None:
        """Hear how much of a limit the server has left: believe no more than that.
        Servers hold no debts, so what is below zero is nonsense.
        """
        now = self.now()
        for bucket in self.store.buckets_of(name):
            if per is None or bucket.limit.per == per:
                late = (
                    now
                    + max(bucket.burst - max(remaining, 0.0), 0.0) * bucket.seconds_per_unit
                    - max(bucket.full_at, now)
                )
                if late > 0:
                    self.store.correct(bucket, late, now)

    def next_moment(self) -> float | None:
        """In how many seconds the head of the line may go; None when nobody waits, inf
        when it waits for a call to end.
        """
        head = self.line.head
        if head is None:
            return None
        return inf if self.store.full else max(self.store.moment(head.cost) - self.now(), 0.0)

    def forget_others(self) -> None:
        """After a fork: the waiters, the calls in flight and whoever held the locks
        belong to the parent process.
        """
        self.line.forget_all()
        listens = self.store.marking
        self.store = MemoryStore(self.store.limits, self.now(), self.slack.first)
        self.steering.forget_others()
        self.read_at = -inf
        if listens:
            self.steering.listen()
