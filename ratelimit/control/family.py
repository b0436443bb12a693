"""One family of models: what its calls go through, and what is known of its server.

Owns the objects of one family, and the second chance of a call that seemed too large.
Must never read a request body or an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from ratelimit.admission.admission import Admission, Terms
from ratelimit.admission.clock import Clock
from ratelimit.control.controller import Controller
from ratelimit.control.learning.weighing import weighing_of
from ratelimit.control.pricing import Accounting, Pricing
from ratelimit.control.slack import Slack
from ratelimit.errors import RequestTooLarge
from ratelimit.estimate import Estimator
from ratelimit.events.delivery import Hooks
from ratelimit.events.records import name_of
from ratelimit.events.reports import Reports
from ratelimit.limits import Limits
from ratelimit.stores.opening import OpenStore
from ratelimit.stores.payments import Payment, Wait


class ModelFamily:
    """The models that share buckets.

    :param name: the pattern of model names under which limits were given.
    :param slack: the first guess of it, in seconds; see `ratelimit.stores.bucket`.
    :param open_store: makes its store.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        clock: Clock,
        *,
        slack: float,
        accounting: Accounting,
        estimator: Estimator,
        hooks: Hooks,
        open_store: OpenStore,
    ) -> None:
        self.name = name
        self.estimator = estimator
        self.admission = Admission(name, limits, clock, slack, open_store)
        self.pricing = Pricing(accounting)
        self.weighing = weighing_of(limits)
        self.slack = Slack(slack)
        self.headers_read_at = -inf  # in seconds of the clock
        self.hooks = hooks
        self.reports = Reports(hooks, name_of(name), clock.now)
        self.admission.report(self.reports.outage)
        self.controller = Controller(self.admission, self.pricing, self.slack, self.reports)

    @property
    def given(self) -> Limits:
        """The limits that a user has given; none at all: they come from the headers."""
        return self.admission.store.given

    def replace(self, limits: Limits) -> None:
        """Hold other limits than those given so far; who waits sees them at once."""
        self.admission.give(limits)
        self.controller.give(limits, self.admission.now())
        self.admission.queue.recheck()

    def admit_nowait(
        self, payment: Payment, patience: float, now: float, *, waits: bool = False
    ) -> Wait | None:
        """Pay at once and return None, or return the wait until it may be possible.

        :param waits: whether the caller waits otherwise.
        """
        while True:
            try:
                wait = self.admission.admit_nowait(payment, patience, now, waits=waits)
            except RequestTooLarge as error:
                if not self.retracts(error):
                    raise
            else:
                if wait is None or not self.controller.ask(now):
                    return wait

    def admit(self, payment: Payment, terms: Terms) -> None:
        """Wait in the calling thread until the call is paid."""
        terms = replace(terms, prepare=self.preparing(terms))
        while True:
            try:
                return self.admission.admit(payment, terms)
            except RequestTooLarge as error:
                if not self.retracts(error):
                    raise
            terms = replace(terms, again=True)

    async def admit_async(self, payment: Payment, terms: Terms) -> None:
        """Wait in the calling task until the call is paid."""
        terms = replace(terms, prepare=self.preparing(terms))
        while True:
            try:
                return await self.admission.admit_async(payment, terms)
            except RequestTooLarge as error:
                if not self.retracts(error):
                    raise
            terms = replace(terms, again=True)

    def preparing(self, terms: Terms) -> Callable[[], float]:
        """Return what comes before each look of a head at the store."""
        before = terms.prepare

        def prepare() -> float:
            self.controller.ask(self.admission.now())
            return inf if before is None else before()

        return prepare

    def retracts(self, error: RequestTooLarge) -> bool:
        """Return whether a call that was too large may ask once more.

        Not if the limit is sure; one that only answers have shown is not.
        """
        return self.controller.retract(error.name, error.amount)

    def reset_after_fork(self) -> None:
        """Start anew in a forked process."""
        self.admission.reset_after_fork()
        self.controller.reset_after_fork()
