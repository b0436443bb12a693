"""A call that is about to be admitted.

Owns what ``with`` and ``async with`` do around a call, the choice of estimating here or
in a worker thread, and the order: at once if possible, else wait. Must never know what
a body means or how a server counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Final, Never, Self

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from ratelimit.admission.admission import Terms
from ratelimit.admission.drivers import in_event_loop, running_task
from ratelimit.control.engine import Engine
from ratelimit.control.family import ModelFamily
from ratelimit.errors import InvalidArgument, WouldBlock
from ratelimit.estimate import Estimate
from ratelimit.lease import AdmittedLease, Current, Lease, payment_around
from ratelimit.lease.budgeted import BudgetedLease
from ratelimit.lease.crossing import Inside, warn_of_own_calls
from ratelimit.lease.flights import call_without_attempt, end_dead, note_flight, stream_around
from ratelimit.lease.watch import Counted, Watch
from ratelimit.limits import amount_of
from ratelimit.stores.payments import Payment, Wait


class Reservation:
    """A call that is about to be admitted.

    ``with`` or ``async with`` waits for its turn, hands out the `Lease`, and ends the
    call. An exception ends it by what is known of it (see `Lease.fail`); without one
    the reserve stays as it is unless the block has settled.
    """

    _is_attempt = False
    """Whether it admits an HTTP attempt, and so brings headers."""
    _tenant = ""
    """For whom the call is, where tenants have shares."""
    _lease: AdmittedLease | None = None
    _current: Current | None = None
    _handled: BaseException | None = None
    """What was being handled when it was entered."""

    def __init__(
        self,
        engine: Engine,
        request: Mapping[str, Any],
        *,
        explicit_cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        patience: float = 0.0,
        endpoint: str | None = None,
        site: str = "",
    ) -> None:
        self._engine = engine
        self._request = request
        self._explicit_cost = explicit_cost
        self._timeout = timeout
        self._patience = patience
        self._endpoint = endpoint
        self._site = site

    def of(self, tenant: str) -> Self:
        """Return this reservation as one of a tenant."""
        self._tenant = tenant
        return self

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a reservation cannot be pickled: it waits in its limiter's process; make one there, "
            "by limiter.reserve(...)"
        )

    def _admit(self) -> AdmittedLease:
        """Wait in the calling thread."""
        lease = self._unpaid()
        if not self._engine.hooks.per_call:
            if self._try_admit(lease, waits=True) is not None:
                self._wait(lease)
            return self._hand_out(lease)
        with Counted(lease):
            if self._try_admit(lease, waits=True) is not None:
                self._wait(lease)
        return self._hand_out(lease)

    def _hand_out(self, lease: AdmittedLease) -> AdmittedLease:
        note_flight(lease, is_attempt=self._is_attempt)
        return lease.deliver()

    def _wait(self, lease: AdmittedLease) -> None:
        inside = Inside(lease)
        terms = self._terms(lease, inside, blocks_loop=in_event_loop())
        with inside, Watch(lease, terms):
            lease.family.admit(lease.payment, terms)

    async def _admit_async(self) -> AdmittedLease:
        """Wait in the calling task; a big prompt is counted in a worker thread."""
        lease = await self._unpaid_async()
        if not self._engine.hooks.per_call:
            if self._try_admit(lease, waits=True) is not None:
                await self._wait_async(lease)
            return self._hand_out(lease)
        with Counted(lease):
            if self._try_admit(lease, waits=True) is not None:
                await self._wait_async(lease)
        return self._hand_out(lease)

    async def _wait_async(self, lease: AdmittedLease) -> None:
        inside = Inside(lease)
        terms = self._terms(lease, inside)
        with inside, Watch(lease, terms):
            await lease.family.admit_async(lease.payment, terms)

    async def _unpaid_async(self) -> AdmittedLease:
        """Return the unpaid lease; a big prompt is counted in a worker thread."""
        if self._explicit_cost is None and self._engine.estimator.needs_thread(self._request):
            async with _one_at_a_time():
                return await anyio.to_thread.run_sync(self._unpaid)
        return self._unpaid()

    def _unpaid(self) -> AdmittedLease:
        """Return the lease of this call, before anything is paid."""
        engine = self._engine
        estimate: Estimate | None = None
        if self._explicit_cost is not None:
            family = engine.family(str(self._request.get("model", "")))
            payment = engine.by_hand(self._explicit_cost, family)
        else:
            estimate = engine.estimate(self._request, endpoint=self._endpoint, site=self._site)
            family = engine.only or engine.family(self._model_of(estimate))
            payment = engine.payment(estimate, family)
        parent = payment_around(family)
        if parent is not None:
            payment.nest(parent)
        return self._make_lease(family, payment, estimate)

    def _model_of(self, estimate: Estimate) -> str:
        """Return the model by which a call of this estimate is limited."""
        return estimate.model

    def _make_lease(
        self, family: ModelFamily, payment: Payment, estimate: Estimate | None
    ) -> AdmittedLease:
        budget = self._engine.budget
        if budget is None:
            return AdmittedLease(family, payment, estimate)
        model = str(self._request.get("model", "")) if estimate is None else estimate.model
        return BudgetedLease(family, payment, estimate, budget, model)

    def _try_admit(self, lease: AdmittedLease, *, waits: bool = False) -> Wait | None:
        """Admit without waiting and return None, or return the wait.

        :param waits: whether the caller waits otherwise.
        """
        engine = self._engine
        engine.warn_if_forked()
        family, payment = lease.family, lease.payment
        store = family.admission.store
        if not store.buckets_only and store.concurrency is not None:
            self._find_slot(family, payment)
        return family.admit_nowait(payment, self._patience, engine.clock.now(), waits=waits)

    def _find_slot(self, family: ModelFamily, payment: Payment) -> None:
        """Look for a slot that the call may use, or that nobody uses any more."""
        task = running_task()
        if payment.slot is None:
            parent = stream_around(family, task)
            if parent is None and self._is_attempt and family.admission.store.is_capped:
                parent = call_without_attempt(family)
            if parent is not None:
                payment.nest(parent)
        if payment.slot is not None:
            payment.slot.task = task
        if family.admission.store.full:
            end_dead(family)

    def _terms(self, lease: AdmittedLease, inside: Inside, *, blocks_loop: bool = False) -> Terms:
        """Return by what the call waits.

        Where headers are listened to, more of the price is known when its turn has
        come.
        """
        engine, estimate, family = self._engine, lease.estimate, lease.family
        arrival = engine.clock.now()
        may_be_own = self._timeout is None and lease.payment.slot is None and not blocks_loop
        price = None
        if estimate is not None:
            price = partial(engine.price, lease.payment, estimate, family)

        def prepare() -> float:
            if price is not None and family.pricing.sees_headers:
                price()
            if not family.admission.store.full:
                return inf
            inside.refuse()
            again = end_dead(family)
            return min(again, warn_of_own_calls(family, arrival)) if may_be_own else again

        deadline = deadline_of(self._timeout, arrival)
        tenant = self._tenant
        return Terms(arrival, self._patience, deadline, prepare, tenant=tenant, price=price)

    def _enter(self, lease: AdmittedLease) -> Lease:
        self._lease = lease
        self._handled = sys.exception()
        self._current = lease.current()
        return self._current.__enter__()

    def _exit(self, error: BaseException | None) -> None:
        lease, current, handled = self._lease, self._current, self._handled
        self._lease = self._current = self._handled = None
        if lease is None or current is None:
            raise InvalidArgument(
                "this reservation was left without having been entered; use it with `with` or "
                "`async with`, once at a time"
            )
        current.__exit__()
        if error is None:
            lease.answered()
        else:
            lease.leave(error, handled)

    def _refuse_reentry(self) -> None:
        if self._lease is not None:
            raise InvalidArgument(
                "this reservation is in use; make one with limiter.reserve(...) for each call"
            )

    def __enter__(self) -> Lease:
        self._refuse_reentry()
        return self._enter(self._admit())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(error)

    async def __aenter__(self) -> Lease:
        self._refuse_reentry()
        return self._enter(await self._admit_async())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(error)


class CallReservation(Reservation):
    """A reservation, and how the doors of this package enter it."""

    def for_attempt(self) -> CallReservation:
        """Return this reservation as one that admits an HTTP attempt."""
        self._is_attempt = True
        return self

    # The same functions under public names: one frame less, and warnings of the rooms
    # below name the caller's line.
    admit = Reservation._admit  # noqa: SLF001  # of this file
    admit_async = Reservation._admit_async  # noqa: SLF001  # of this file

    # For `several.py`, which goes their way with several reservations of one call.
    unpaid = Reservation._unpaid  # noqa: SLF001
    unpaid_async = Reservation._unpaid_async  # noqa: SLF001
    try_admit = Reservation._try_admit  # noqa: SLF001
    terms = Reservation._terms  # noqa: SLF001
    hand_out = Reservation._hand_out  # noqa: SLF001

    def admit_now(self) -> AdmittedLease:
        """Admit at once or raise `WouldBlock`."""
        lease = self._unpaid()
        wait = self._try_admit(lease)
        if wait is None:
            return self._hand_out(lease)
        if wait.until == inf:
            raise WouldBlock("no capacity now: others wait or are in flight")
        seconds = max(wait.until - self._engine.clock.now(), 0.0)
        raise WouldBlock(f"no capacity now, try again in {seconds:.3f} s", retry_after=seconds)


_counting: Final[RunVar[anyio.Lock]] = RunVar("ratelimit_counting")


def _one_at_a_time() -> anyio.Lock:
    """Return the lock under which one event loop has its big prompts counted.

    One by one: several threads that want the GIL would make the loop wait for its own.
    """
    try:
        return _counting.get()
    except LookupError:
        counting = anyio.Lock()
        _counting.set(counting)
        return counting


def deadline_of(timeout: float | None, now: float) -> float:
    """Return the moment at which waiting ends, inf without a timeout.

    Raises `InvalidArgument` for a timeout that cannot be.
    """
    return inf if timeout is None else now + amount_of(timeout, "timeout=, in seconds,")
