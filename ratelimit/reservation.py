"""A call that is about to be admitted.

Owns what `with` and `async with` do around a call, the choice of estimating here or in
a worker thread, and the order: at once, else wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from ratelimit.errors import InvalidArgument
from ratelimit.lease import Lease
from ratelimit.limits import Cost, amount_of
from ratelimit.stores import Grant

if TYPE_CHECKING:
    from ratelimit.control.family import ModelFamily
    from ratelimit.estimate import Estimate
    from ratelimit.lease import Current
    from ratelimit.limiter import RateLimiter


class Reservation:
    """A call that is about to be admitted: ``with`` or ``async with`` waits for its
    turn and settles it at the end.

    An exception settles by what is known of it (see `Lease.fail`); without one the
    reserve stays as it is unless the block settled.
    """

    _lease: Lease | None = None
    _current: Current | None = None

    def __init__(
        self,
        limiter: RateLimiter,
        request: Mapping[str, Any],
        ask: dict[str, float] | None,
        timeout: float | None,
        patience: float,
        endpoint: str | None,
        site: str = "",
    ) -> None:
        self._limiter = limiter
        self._request = request
        self._ask = ask  # the cost, where it was given by hand
        self._timeout = timeout
        self._patience = patience
        self._endpoint = endpoint
        self._site = site

    def _priced(self) -> tuple[ModelFamily, dict[str, float], Estimate | None]:
        limiter = self._limiter
        if self._ask is not None:
            return limiter.family(str(self._request.get("model", ""))), self._ask, None
        estimate = limiter.estimator.estimate(
            self._request, endpoint=self._endpoint, site=self._site
        )
        lane = limiter._only or limiter.family(estimate.model)  # noqa: SLF001  # limiter and reservation are one room
        return lane, limiter.cost_of(estimate, lane), estimate

    def admit(self) -> Lease:
        """Wait in the calling thread."""
        lane, cost, estimate = self._priced()
        answer = self._at_once(lane, cost, estimate)
        if isinstance(answer, Lease):
            return answer
        return _admitted(lane, estimate, *lane.enter(cost, *self._terms(lane, estimate)))

    async def admit_async(self) -> Lease:
        """Wait in the calling task; a big prompt is counted in a worker thread."""
        if self._ask is None and self._limiter.estimator.heavy(self._request):
            lane, cost, estimate = await anyio.to_thread.run_sync(
                self._priced, limiter=_one_at_a_time()
            )
        else:
            lane, cost, estimate = self._priced()
        answer = self._at_once(lane, cost, estimate)
        if isinstance(answer, Lease):
            return answer
        return _admitted(
            lane, estimate, *await lane.enter_async(cost, *self._terms(lane, estimate))
        )

    def admit_now(self) -> Lease:
        """Admit at once or raise `WouldBlock`."""
        lane, cost, estimate = self._priced()
        answer = self._at_once(lane, cost, estimate)
        if isinstance(answer, float):
            raise lane.refuse_now(answer)
        return answer

    def _at_once(
        self, lane: ModelFamily, cost: dict[str, float], estimate: Estimate | None
    ) -> Lease | float:
        """Admit without waiting, or answer the moment at which that may be possible."""
        if self._limiter.forked:
            self._limiter.warn_of_fork()
        now = lane.now()
        answer = lane.enter_now(cost, now + self._patience, now)
        if isinstance(answer, float):
            return answer
        lease = Lease(lane, cost, estimate, answer, now)
        if answer:
            lane.steering.sent(lease)
        return lease

    def _terms(
        self, lane: ModelFamily, estimate: Estimate | None
    ) -> tuple[float, float, float, Callable[[], Cost] | None]:
        """What it waits by: rank, arrival and deadline, in seconds of the limiter's
        clock, and how to price it when its turn has come.

        Only who listens to headers knows more of the price by then.
        """
        arrival = lane.now()
        price = (
            partial(self._limiter.cost_of, estimate, lane)
            if estimate is not None and lane.store.marking
            else None
        )
        return arrival + self._patience, arrival, deadline_of(self._timeout, arrival), price

    def _enter(self, lease: Lease) -> Lease:
        self._lease = lease
        self._current = lease.current()
        return self._current.__enter__()

    def _exit(self, error: BaseException | None) -> None:
        lease, current = self._lease, self._current
        self._lease = self._current = None
        if lease is None or current is None:
            raise InvalidArgument(
                "this reservation was left without having been entered; use it with `with` or `async with`, once at a time"
            )
        current.__exit__()
        if error is None:
            lease.close()
        else:
            lease.fail(error)

    def _fresh(self) -> None:
        if self._lease is not None:
            raise InvalidArgument(
                "this reservation is in use; make one with limiter.reserve(...) for each call"
            )

    def __enter__(self) -> Lease:
        self._fresh()
        return self._enter(self.admit())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(error)

    async def __aenter__(self) -> Lease:
        self._fresh()
        return self._enter(await self.admit_async())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(error)


def _admitted(lane: ModelFamily, estimate: Estimate | None, grant: Grant, paid: Cost) -> Lease:
    lease = Lease(lane, dict(paid), estimate, grant, lane.now())
    if grant:
        lane.steering.sent(lease)
    return lease


_counting: RunVar[anyio.CapacityLimiter] = RunVar("ratelimit_counting")


def _one_at_a_time() -> anyio.CapacityLimiter:
    """Big prompts of one event loop are counted one by one: several threads that want
    the GIL would make the loop wait for its own.
    """
    try:
        return _counting.get()
    except LookupError:
        counting = anyio.CapacityLimiter(1)
        _counting.set(counting)
        return counting


def body_of(request: object, fields: dict[str, Any]) -> Mapping[str, Any]:
    """The request body, given whole, as fields, or both."""
    if request is None:
        return fields
    # dict first: nearly all are, and asking an abstract class is slow
    if not isinstance(request, (dict, Mapping)):
        raise InvalidArgument(
            f"a request is a mapping with the body's fields (model=, messages=, ...), not {type(request).__name__}"
        )
    return {**request, **fields} if fields else request


def deadline_of(timeout: float | None, now: float) -> float:
    """The moment at which waiting ends, inf without a timeout; raise `InvalidArgument`
    for one that cannot be.
    """
    return inf if timeout is None else now + amount_of(timeout, "timeout=, in seconds,")
