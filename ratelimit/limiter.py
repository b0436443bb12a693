"""The limiter: requests in, leases out.

Owns what a user configures and asks for: limits by model, accounting, priorities, the
ways to reserve. Turns requests into costs with the estimator and finds their lane; the
lanes admit. The decorator and the wrapping of streams live in `decorate.py`, HTTP in
`transport.py`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from math import inf
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args, overload

from ratelimit.admission.clock import Clock
from ratelimit.control.family import FIRST_SLACK, ModelFamily
from ratelimit.control.unlisted import UnlistedModels
from ratelimit.errors import InvalidArgument, RequestTooLarge, caution
from ratelimit.estimate import Estimate, Estimator
from ratelimit.families import LONGEST_NAME, pattern_of
from ratelimit.integrations import decorator as decorate
from ratelimit.integrations import transport
from ratelimit.lease import Accounting, Lease
from ratelimit.limits import LARGEST, Cost, Limits, amount_of, amounts_of, cost_by_hand
from ratelimit.reservation import Reservation, body_of, deadline_of
from ratelimit.statistics import Statistics, family_statistics
from ratelimit.stores.bucket import HELD

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")

PATIENCE: Final = MappingProxyType({"interactive": 0.0, "normal": 10.0, "batch": 60.0})
"""Seconds by which a call of each priority lets later ones of a lower patience overtake
it.
"""

_living: weakref.WeakSet[RateLimiter] = weakref.WeakSet()


class RateLimiter:
    """Admits each call when every limit can pay for it, in order; safe to share by any
    mix of threads and event loops (asyncio, trio).

    :param rpm: requests per minute; likewise ``tpm`` (tokens), ``rpd`` and ``tpd`` (per
        day), ``rps`` (per second). They hold for all models together; limits of each
        model are given by ``limits``.
    :param limits: `Limits` for everything, or a mapping from model patterns to `Limits`
        (see `limits.pattern_of`); "*" catches the rest.
    :param concurrency: at most so many calls in flight.
    :param burst: the share of each limit, 0 < burst <= 1, that may go at once; 1 (a
        full period, as api.openai.com allows) by default.
    :param level: how full the buckets are at the start, 0 to 1. Nobody tells a
        decorated function: lower it where a program is started again within a period,
        or where others have just used the limit. A wrapped client reads it from its
        first answer.
    :param slack: seconds after its admission at which a request reaches the server, at
        most; see `bucket.py`. Follows what is observed, down.
    :param accounting: "reconcile" reserves prompt and expected output and settles to
        the usage, both ways (OpenAI today); "refund" the same for servers that charge
        their own count of the prompt and the maximum, and give back what was not
        answered (Cerebras, Anthropic's output tokens); "never_refund" keeps that
        reserve for good (OpenAI until 2025, Azure); "charge" takes only what the server
        takes at admission (Gemini). Source: simulated and recorded servers, which
        differ in just this.
    :param output: the output to expect: "max" (what the body allows), "learned", or
        tokens; by default "max" where the body has a maximum.
    :param priorities: patience in seconds by name; `PATIENCE` by default.
    :param clock: where the time comes from; real by default.

    Without any limit a limiter admits everything, until a wrapped client has learned
    the limits from the first answer's headers.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        rpd: float | None = None,
        tpd: float | None = None,
        rps: float | None = None,
        limits: Limits | Mapping[str, Limits] | None = None,
        concurrency: int | None = None,
        burst: float = 1.0,
        level: float = 1.0,
        slack: float = FIRST_SLACK,
        accounting: Accounting = "reconcile",
        output: Literal["max", "learned"] | int | None = None,
        priorities: Mapping[str, float] = PATIENCE,
        clock: Clock | None = None,
    ) -> None:
        if accounting not in get_args(Accounting):
            raise InvalidArgument(
                f"accounting= is one of {', '.join(get_args(Accounting))}, not {accounting!r}"
            )
        if not isinstance(burst, (int, float)) or isinstance(burst, bool) or not 0 < burst <= 1:
            raise InvalidArgument(
                f"burst= is the share of each limit that may go at once, above 0 and at most 1, not {burst!r}"
            )
        own = Limits(rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, rps=rps, concurrency=concurrency)
        if isinstance(limits, Limits):
            own = Limits(*own, *limits, concurrency=own.concurrency or limits.concurrency)
            limits = None
        if limits is not None and not (
            isinstance(limits, Mapping) and limits and all(map(_names_limits, limits.items()))
        ):
            raise InvalidArgument(
                f"limits= is a Limits or a mapping from model names to Limits, not {limits!r}"
            )
        if output not in (None, "max", "learned") and not isinstance(
            amount_of(output, "output="), int
        ):
            raise InvalidArgument(
                f'output= is "max", "learned" or a whole number of tokens, not {output!r}'
            )
        if clock is not None and not callable(getattr(clock, "now", None)):
            raise InvalidArgument(
                f"clock= is an object with now() and park(), such as those of ratelimit.testing, not {clock!r}"
            )
        if limits is not None and (len(own) or own.concurrency):
            raise InvalidArgument(
                'with limits= by model, put the other limits into it as well, under "*" or each model'
            )
        self.accounting: Accounting = accounting
        self.clock = clock or Clock()
        self.estimator = Estimator(output=output)
        self.priorities = amounts_of(priorities, "the patience")
        self._slack = amount_of(slack, "slack=")
        self._level = amount_of(level, "level=, how full the buckets are at the start,")
        if self._level > 1:
            raise InvalidArgument(
                f"level= is how full the buckets are at the start, between 0 and 1, not {level!r}"
            )
        self._listens = False
        by_family = {"*": own} if limits is None else dict(limits)
        self._lanes = {
            family: self._lane(family, given.with_burst(burst))
            for family, given in by_family.items()
        }
        self._only = next(iter(self._lanes.values())) if list(self._lanes) == ["*"] else None
        self._others = UnlistedModels(self._lane)
        self._pattern_of = lru_cache(1_000)(partial(pattern_of, patterns=tuple(self._lanes)))
        self.forked = False
        self._quick = self._only
        _living.add(self)

    # ---- doors ----------------------------------------------------------------------------------------------------------------------------

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, function: None = None, /) -> Callable[[F], F]: ...
    def __call__(self, function: F | None = None, /) -> F | Callable[[F], F]:
        """Decorate a function whose keyword arguments are the request body; see `limit`
        for any other.
        """
        return self.limit() if function is None else self.limit()(function)

    def limit(
        self,
        *,
        request: Callable[..., Any] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
    ) -> Callable[[F], F]:
        """Decorate an async function, a function, a generator or an async generator:
        each call waits for its turn, and settles itself.

        :param request: makes the request body of the call's arguments; without it the
            arguments themselves, by their names, are the body.
        """
        self.patience(priority)
        deadline_of(timeout, 0.0)
        return decorate.decorator(self, request, timeout, priority)

    def reserve(
        self,
        request: object = None,
        /,
        *,
        tokens: float | None = None,
        requests: float | None = None,
        cost: Cost | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        **body: Any,
    ) -> Reservation:
        """Make a context manager, for ``with`` and ``async with``, that waits on entry
        and hands out the `Lease`.

        :param request: the request body; or give its fields as keyword arguments.
        :param tokens: the cost by hand instead of a body; ``requests`` (1 by default)
            and any other dimension in ``cost``.
        :param timeout: seconds to wait at most; raises `WaitTimeout` at once when the
            predicted wait is longer.
        :param priority: a name of ``priorities`` or the patience itself, in seconds.
        """
        nothing = request is None and not body  # is known of it: one request, no tokens
        by_hand = nothing or not (tokens is None and requests is None and cost is None)
        if by_hand and (request is not None or body.keys() - {"model"}):
            raise InvalidArgument(
                "give the request body or its cost (tokens=, requests=, cost=), not both"
            )
        ask = cost_by_hand(tokens, requests, cost) if by_hand else None
        deadline_of(timeout, 0.0)  # what is wrong with it is told before anything waits
        return Reservation(
            self,
            body if by_hand else body_of(request, body),
            ask,
            timeout,
            self.patience(priority),
            endpoint,
        )

    def reserve_for(
        self,
        body: Mapping[str, Any],
        *,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        site: str = "",
    ) -> Reservation:
        """Like `reserve`, for a body whose fields might be named like this method's
        arguments; ``site`` names the call site, to learn by.
        """
        return Reservation(
            self, body_of(body, {}), None, timeout, self.patience(priority), endpoint, site
        )

    async def acquire(
        self,
        request: object = None,
        /,
        *,
        tokens: float | None = None,
        timeout: float | None = None,
        **rest: Any,
    ) -> Lease:
        """Wait for capacity in the calling task; the lease is the caller's to settle.
        Arguments as for `reserve`.

        Does not yield to the event loop when there is capacity.
        """
        lane = self._quick
        if (
            lane is not None
            and request is None
            and timeout is None
            and not rest
            and not lane.line.entries
        ):
            # The common case - a cost by hand, one lane, nobody waiting - without a
            # detour.
            if tokens.__class__ is not int or not 0 <= tokens <= LARGEST:
                tokens = amount_of(0 if tokens is None else tokens, "tokens=")
            cost: dict[str, float] = {"requests": 1, "tokens": tokens}
            now = lane.now()
            try:
                grant = lane.store.take(cost, now)
            except RequestTooLarge:  # the long way finds out whether that is sure
                grant = inf
            if grant.__class__ is tuple:
                return Lease(lane, cost, None, grant, now)
        reservation = self.reserve(request, tokens=tokens, timeout=timeout, **rest)
        return await reservation.admit_async()

    def acquire_sync(self, request: object = None, /, **rest: Any) -> Lease:
        """Wait for capacity in the calling thread; the lease is the caller's to settle.
        Arguments as for `reserve`.
        """
        return self.reserve(request, **rest).admit()

    def acquire_nowait(self, request: object = None, /, **rest: Any) -> Lease:
        """Take capacity if there is some and nobody waits for it; else raise
        `WouldBlock`. Arguments as for `reserve`.
        """
        return self.reserve(request, **rest).admit_now()

    def estimate(
        self, request: object = None, /, *, endpoint: str | None = None, **body: Any
    ) -> Estimate:
        """What a request would cost, without taking it: its prompt, expected output and
        admission charge, in tokens.
        """
        return self.estimator.estimate(body_of(request, body), endpoint=endpoint)

    def statistics(self) -> Statistics:
        """A frozen snapshot: levels, line lengths, next moments, 429s seen, what was
        learned.
        """
        now = self.clock.now()
        lanes = {family: family_statistics(lane, now) for family, lane in self._all().items()}
        return Statistics(lanes, self.estimator.statistics(), self._others.refused)

    def wrap(
        self, client: C, *, timeout: float | None = None, priority: str | float = "normal"
    ) -> C:
        """Return a client of the same type whose every HTTP attempt, SDK retries
        included, waits for its turn; see `transport.wrap`.
        """
        return transport.wrap(self, client, timeout=timeout, priority=priority)

    def listen(self) -> None:
        """Expect headers of every answer from now on: each family starts with one call
        and goes on from the level that its headers show.
        """
        self._listens = True
        for lane in self._all().values():
            lane.steering.listen()

    # ---- what the doors stand on ----------------------------------------------------------------------------------------------------------

    def family(self, model: str) -> ModelFamily:
        """The lane of a model; one without limits, with a warning, when none were given
        for it.
        """
        if self._only is not None:
            return self._only
        model = model[:LONGEST_NAME]
        pattern = self._pattern_of(model)
        return self._others.family(model) if pattern is None else self._lanes[pattern]

    def _all(self) -> dict[str, ModelFamily]:
        return self._others.families() | self._lanes

    def _lane(self, family: str, limits: Limits) -> ModelFamily:
        lane = ModelFamily(family, limits, self.clock, self._slack, self.accounting, self.estimator)
        lane.store.spend(1 - self._level, self.clock.now())
        if self._listens:
            lane.steering.listen()
        return lane

    def cost_of(self, estimate: Estimate, lane: ModelFamily) -> dict[str, float]:
        """What an estimate makes a call pay, by the accounting and by what is known of
        the lane's server.
        """
        prompt, output = estimate.prompt_tokens, estimate.output_tokens
        if lane.steering.charges_input_only:
            output = self.estimator.typical_output(estimate)
        tokens, held = lane.price(prompt, output, estimate.charge)
        cost: dict[str, float] = {
            "requests": 1,
            "tokens": tokens,
            "input_tokens": prompt,
            "output_tokens": output,
            "images": estimate.images,
        }
        if held:
            cost[HELD] = held
        return cost

    def patience(self, priority: str | float) -> float:
        """The seconds that a priority stands for; raise `InvalidArgument` for one that
        cannot be.
        """
        if isinstance(priority, str):
            if priority not in self.priorities:
                raise InvalidArgument(
                    f"priority= is one of {', '.join(self.priorities)}, or the patience in seconds, not {priority!r}"
                )
            return self.priorities[priority]
        return amount_of(priority, "priority=, the patience in seconds,")

    def warn_of_fork(self) -> None:
        """Say once in a process that was forked what that means."""
        self.forked = False
        self._quick = self._only
        caution(
            f"this limiter was copied into process {os.getpid()} by a fork: each process now spends the whole limit; "
            "create one limiter per process with its share of the limit",
            stacklevel=5,
        )

    def _after_fork(self) -> None:
        self.forked = True
        self._quick = None
        self.estimator.forget_others()
        self._others.forget_others()
        for lane in self._all().values():
            lane.forget_others()


def _after_fork() -> None:
    for limiter in list(_living):
        limiter._after_fork()  # noqa: SLF001  # the same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _names_limits(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Limits)
