"""What is noted of a call that waits: for how long, for what, and how that ended.

Owns the reports around one wait, and what `WaitTimeout` says of it. Must never wait.
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Final, Self

from ratelimit.admission.admission import Terms
from ratelimit.admission.outlook import outlook
from ratelimit.errors import RequestTooLarge, WaitTimeout
from ratelimit.events.records import Admission, Outcome, Outlook, Waited, Waiting
from ratelimit.events.sentences import label, waits
from ratelimit.lease.admitted import AdmittedLease

_calls: Final = itertools.count(1)


class Watch:
    """Enter it before a call waits, and leave it when the wait is over."""

    __slots__ = ("_call", "_lease", "_outlook", "_terms")

    def __init__(self, lease: AdmittedLease, terms: Terms) -> None:
        self._lease = lease
        self._terms = terms
        self._outlook: Outlook | None = None
        self._call = 0

    def __enter__(self) -> Self:
        lease, family = self._lease, self._lease.family
        if family.reports.wants(Waiting) or family.reports.wants(Waited):
            seen = self._outlook = self._look()
            self._call = next(_calls)
            family.reports.put(
                Waiting,
                call=self._call,
                model=lease.model,
                reason=seen.reason,
                limit=label(seen.limit),
                position=seen.position,
                predicted=seen.predicted,
                needs=seen.needs,
                level=seen.level,
                amount=None if seen.limit is None else seen.limit.amount,
            )
        return self

    def _look(self) -> Outlook:
        lease, terms = self._lease, self._terms
        admission, tenant = lease.family.admission, terms.tenant
        return outlook(admission, lease.payment, terms.arrival, terms.patience, tenant)

    def goes_by(self, lease: AdmittedLease) -> None:
        """Take note by which lease the call goes, of several that it waited for."""
        self._lease = lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease, family = self._lease, self._lease.family
        end = lease.payment.admitted_at if error is None else family.admission.now()
        seconds = lease.waited = max(end - self._terms.arrival, 0.0)
        seen = self._outlook
        if isinstance(error, WaitTimeout) and len(error.args) == 1:
            now = self._look()
            error.args = (f"{error.args[0]} ({waits(now)})",)
            if error.retry_after is None:
                error.retry_after = now.predicted
        if seen is not None:
            family.reports.put(
                Waited,
                call=self._call,
                model=lease.model,
                outcome=outcome_of(error),
                reason=seen.reason,
                limit=label(seen.limit),
                position=seen.position,
                predicted=seen.predicted,
                seconds=seconds,
                operation=lease.operation,
            )


class Counted:
    """Around the admission of a call, where somebody wants to know of each."""

    __slots__ = ("_lease",)

    def __init__(self, lease: AdmittedLease) -> None:
        self._lease = lease

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        count(self._lease, error)


def count(lease: AdmittedLease, error: BaseException | None) -> None:
    """Report whether a call goes, to those that want to know of each."""
    lease.family.reports.put(
        Admission,
        model=lease.model,
        outcome=outcome_of(error),
        waited=lease.waited,
        operation=lease.operation,
    )


def outcome_of(error: BaseException | None) -> Outcome:
    """Return how a wait ended that this error has ended, if any."""
    if error is None:
        return "admitted"
    if isinstance(error, WaitTimeout):
        return "timed_out"
    if isinstance(error, RequestTooLarge):
        return "too_large"
    return "failed" if isinstance(error, Exception) else "cancelled"
