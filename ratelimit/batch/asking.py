"""Asking one request: admission, sending, and what its failure means.

Owns the way of a request from its turn to its result, waiting for a server that is
away, and the error that ends a run. Must never take requests or hand over results, wait
for limits (the limiter does) or repeat what the SDK repeats.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import anyio

from ratelimit.batch.failures import Failures, Kind, Verdict, kind_of_exception, kind_of_result
from ratelimit.batch.outage import Outage
from ratelimit.batch.requests import Request
from ratelimit.batch.results import Result, answered, error_in, failed
from ratelimit.errors import BudgetSpent, LimiterError, RequestTooLarge
from ratelimit.feedback import read_error
from ratelimit.lease import AdmittedLease
from ratelimit.limiter import RateLimiter
from ratelimit.pool import Pool

_RAW: Final[Any] = {"headers": {"X-Stainless-Raw-Response": "true"}}
"""What ``with_raw_response`` sets: the SDK then hands over the HTTP answer, without
building models of it.
"""


class Ending(NamedTuple):
    """Which failure has ended a run."""

    request: Request | None = None
    """The request that showed it."""
    kind: Kind | None = None
    """What it concerns, where it was judged."""
    late: bool = False
    """Whether it came after answers, as the last of `MANY_ALIKE` failures alike."""


class Asker:
    """Asks the requests of one run, any number of them at a time."""

    def __init__(
        self,
        client: Any,
        limiter: RateLimiter | Pool,
        priority: str | float,
        patience: float | None,
        tenant: str | None = None,
    ) -> None:
        # A pool's client is the pool's own: it goes to the members as it is.
        self._client = (
            client
            if isinstance(limiter, Pool)
            else limiter.wrap(client, priority=priority, tenant=tenant)
        )
        self._limiter = limiter
        self._priority = priority
        self._tenant = tenant
        self._failures = Failures(patience)
        self._waiting: set[anyio.CancelScope] = set()
        self._go_on: anyio.Event | None = None  # while the run is paused
        self._flying = 0
        self._answer = anyio.Event()  # set by the next call that ends
        self.stopped = False
        self.error: Exception | None = None
        """What has ended the run."""
        self.ending = Ending()
        """How it came to that."""
        self.outage: Outage | None = None
        """The server's absence, while requests wait for it to end."""

    def stop(self) -> None:
        """Send nothing more than the limits have let go by now."""
        self.stopped = True
        self.resume()
        for scope in self._waiting:
            scope.cancel()

    def pause(self) -> None:
        """Send nothing more until `resume`; what the limits have let go is finished."""
        if self._go_on is None and not self.stopped:
            self._go_on = anyio.Event()
            for scope in self._waiting:
                scope.cancel()

    def resume(self) -> None:
        """Go on after a pause."""
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on.set()

    def end(
        self,
        error: Exception,
        request: Request | None = None,
        kind: Kind | None = None,
        *,
        late: bool = False,
    ) -> None:
        """Stop because of an error; the first one counts."""
        if self.error is None:
            self.error = error
            self.ending = Ending(request, kind, late)
        self.stop()

    async def ask(self, request: Request) -> Result | None:
        """Ask until there is a result; None when the run ends before there is one."""
        while not self.stopped:
            if self._go_on is not None:
                await self._go_on.wait()
                continue
            outage = self.outage
            answer = await (self._once(request) if outage is None else self._look(request, outage))
            if not isinstance(answer, Kind):
                return answer
        return None

    async def _look(self, request: Request, outage: Outage) -> Result | Kind | None:
        """Send a request in its turn, to see whether the server is back."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await outage.wait_for_turn()
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            return self._left()

        try:
            if self.stopped or self.outage is not outage:
                return Kind.UNREACHABLE  # as it was: the caller looks anew
            return await self._once(request)
        finally:
            outage.pass_turn()

    async def _once(self, request: Request) -> Result | Kind | None:
        """Send a request, the SDK's retries included.

        Returns the result, the kind of failure for which the request is to be sent once
        more, or None when the run has ended.
        """
        repeats = self._client.max_retries
        while True:
            try:
                lease = await self._admitted(request)
            except RequestTooLarge as error:
                return Result(request, error={"code": "request_too_large", "message": str(error)})
            except BudgetSpent as error:
                return await self._beyond_budget(request, error)
            if lease is None:
                return self._left()

            try:
                result = await self._post(request, lease)
            except Exception as error:  # noqa: BLE001  # it is judged, and mostly a result
                return self._failed(request, error)

            if result.ok:
                self._failures.on_success(request.model)
                self._end_outage()
                return result

            # The SDK takes a refusal inside a success for an answer.
            refusal = read_error(error_in(result.body)) if result.error is None else None
            if refusal is None or refusal.hopeless or not repeats:
                reason = LimiterError(f"the server answers with an error: {result.reason}")
                return self._judge(request, kind_of_result(result), result, reason)
            repeats -= 1

    async def _admitted(self, request: Request) -> AdmittedLease | None:
        if self.stopped:
            return None

        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                lease = await self._limiter.acquire(
                    request.body,
                    endpoint=request.endpoint,
                    priority=self._priority,
                    tenant=self._tenant,
                )
                may_go = not self.stopped and self._go_on is None
                if may_go and isinstance(lease, AdmittedLease):
                    return lease
                # a task that was being woken already is not reached by the cancellation
                lease.cancel()
            finally:
                self._waiting.discard(scope)
        return None

    def _failed(self, request: Request, error: Exception) -> Result | Kind | None:
        spent = error if isinstance(error, BudgetSpent) else error.__cause__
        if isinstance(spent, BudgetSpent):  # before a retry of the SDK
            self.end(spent, request)
            return None
        return self._judge(request, kind_of_exception(error), failed(request, error), error)

    def _left(self) -> Kind | None:
        """Return what becomes of a request that has left the queue.

        None at the run's end; else, in a pause, it is as if it had not been tried.
        """
        return None if self.stopped else Kind.UNREACHABLE

    async def _beyond_budget(self, request: Request, error: BudgetSpent) -> Kind | None:
        """End the run by a budget that is spent.

        As long as calls are in flight, what they may cost is only estimated: it is
        looked at again when one of them has ended.
        """
        if not self._flying:
            self.end(error, request)
            return None
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await self._answer.wait()
            finally:
                self._waiting.discard(scope)
        return self._left()

    async def _post(self, request: Request, lease: AdmittedLease) -> Result:
        self._flying += 1
        try:
            # the first attempt uses this admission; a retry of the SDK gets its own
            with lease.current():
                answer = await self._client.post(
                    request.path, cast_to=object, body=request.body, options=_RAW
                )
        finally:
            if lease.claim():  # no attempt has used it: nothing was sent
                lease.cancel()
            self._flying -= 1
            answer_is_there, self._answer = self._answer, anyio.Event()
            answer_is_there.set()
        return answered(request, answer.http_response)

    def _judge(
        self, request: Request, kind: Kind, result: Result, error: Exception
    ) -> Result | Kind | None:
        """Decide what becomes of a failed request, and of the run."""
        verdict = self._failures.on_failure(kind, request.model, result.code)
        if verdict is Verdict.WAIT:
            return self._await_server(request, kind, error)

        if kind not in {Kind.SERVER, Kind.UNREACHABLE}:
            self._end_outage()
        if verdict is Verdict.RESULT:
            return result

        self.end(error, request, kind, late=verdict is Verdict.STOP_LATE)
        # What is in the body is the request's own, and stays its result: the next run
        # over the same file goes on behind it.
        return result if kind is Kind.BODY else None

    def _await_server(self, request: Request, kind: Kind, error: Exception) -> Kind | None:
        now = anyio.current_time()
        if self.outage is None:
            self.outage = Outage(error, now, self._failures.patience)
        elif self.outage.is_over_patience(now):
            self.end(error, request)
            return None
        return kind

    def _end_outage(self) -> None:
        outage, self.outage = self.outage, None
        if outage is not None:
            outage.end()
