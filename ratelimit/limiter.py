"""The limiter: requests in, leases out.

Owns what a user configures and asks for: limits by model, accounting, priorities, the
ways to reserve. Must never wait, price or read an answer: it checks arguments and
delegates to the rooms below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Never, TypeVar, get_args, overload

from ratelimit.admission.clock import Clock
from ratelimit.arguments import (
    check_choice,
    check_clock,
    check_level,
    check_output,
    check_share,
    limits_by_model,
    spelled,
)
from ratelimit.control.engine import PATIENCE, Engine
from ratelimit.control.pricing import Accounting
from ratelimit.control.slack import FIRST_SLACK
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimate
from ratelimit.events import Event, Subscription
from ratelimit.integrations.decorator import decorator
from ratelimit.integrations.settlement import SettleBy
from ratelimit.integrations.wrapping import wrap
from ratelimit.lease import Lease
from ratelimit.limits import Limits, amount_of, amounts_of
from ratelimit.reservation import (
    Reservation,
    admit_by_hand,
    body_of,
    calls_of,
    deadline_of,
    reservation_of,
)
from ratelimit.statistics import (
    Explanation,
    Statistics,
    described,
    explanation_of,
    statistics_of,
)
from ratelimit.stores.alone import OnStoreError
from ratelimit.stores.opening import RedisClient, opener

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


class RateLimiter:
    """Admits each call when every limit can pay for it, in order.

    Safe to share by threads and event loops (asyncio, trio). Without any limit it
    admits everything, until a wrapped client has learned limits from its first answer.

    :param rpm: requests per minute, as a number or a text ("30k"); likewise ``tpm``
        (tokens), ``rpd`` and ``tpd`` (per day), ``rps`` (per second). They hold for all
        models together; limits of each model are given by ``limits``.
    :param limits: `Limits` for everything, or a mapping from model patterns to
        `Limits`: a name, a glob ("gpt-4o-mini*") or several joined by "|"; "*" catches
        the rest.
    :param concurrency: the most calls that may be in flight at once.
    :param burst_share: the share of each limit, above 0 and at most 1, that may go at
        once; 1 (a full period, as api.openai.com allows) by default.
    :param initial_level: how full the buckets are at the start, 0 to 1. A decorated
        function cannot know: lower it where a program is started again within a period,
        or where others have just used the limit. A wrapped client reads it from its
        first answer.
    :param arrival_slack: seconds after its admission at which a request reaches the
        server, at most. Follows what is observed, down.
    :param accounting: "reconcile" reserves prompt and expected output and settles to
        the usage, both ways (OpenAI today); "refund" the same for servers that charge
        their own count of the prompt and the maximum, and give back what was not
        answered (Cerebras, Anthropic's output tokens); "never_refund" keeps that
        reserve for good (OpenAI until 2025, Azure); "charge" takes only what the server
        takes at admission (Gemini). Source: simulated and recorded servers, which
        differ in just this.
    :param output: the output to expect: "max" (what the body allows), "learned", or
        tokens; by default "max" where the body has a maximum.
    :param priorities: patience in seconds by name; by default "interactive" 0, "normal"
        10 and "batch" 60.
    :param clock: where the time comes from; real by default.
    :param store: "redis://host:6379/0", a redis-py client, or "file:" and a folder: all
        processes that name it share one quota, and a program that is started again goes
        on from the level that it left. None: this process alone.
    :param on_store_error: what happens while that cannot be used: "local" goes on with
        this process's fair share, with one warning; "raise" raises `StoreUnavailable`;
        "open" lets each call go.

    Raises `InvalidArgument` on what cannot be used.
    """

    @spelled("RateLimiter(rpm=500, tpm=30_000)")
    def __init__(
        self,
        *,
        rpm: float | str | None = None,
        tpm: float | str | None = None,
        rpd: float | str | None = None,
        tpd: float | str | None = None,
        rps: float | str | None = None,
        limits: Limits | Mapping[str, Limits] | None = None,
        concurrency: int | None = None,
        burst_share: float = 1.0,
        initial_level: float = 1.0,
        arrival_slack: float = FIRST_SLACK,
        accounting: Accounting = "reconcile",
        output: Literal["max", "learned"] | int | None = None,
        priorities: Mapping[str, float] = PATIENCE,
        clock: Clock | None = None,
        store: str | RedisClient | None = None,
        on_store_error: OnStoreError = "local",
    ) -> None:
        own = Limits(rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, rps=rps, concurrency=concurrency)
        check_choice("accounting=", accounting, get_args(Accounting))
        check_share(burst_share)
        check_output(output)
        check_clock(clock)
        clock = clock or Clock()
        self._engine = Engine(
            {
                name: one.with_burst(burst_share)
                for name, one in limits_by_model(own, limits).items()
            },
            clock=clock,
            slack=amount_of(arrival_slack, "arrival_slack="),
            level=check_level(initial_level),
            accounting=accounting,
            output=output,
            priorities=amounts_of(priorities, "the patience"),
            open_store=opener(store, on_store_error, clock.now, clock.epoch),
        )

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, function: None = None, /) -> Callable[[F], F]: ...
    def __call__(self, function: F | None = None, /) -> F | Callable[[F], F]:
        """Decorate a function that takes the request body as keyword arguments.

        See `limit` for any other.
        """
        return self.limit() if function is None else self.limit()(function)

    @spelled('@limiter.limit(request=lambda question: {...}), or @limiter without "limit"')
    def limit(
        self,
        *,
        request: Callable[..., Any] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        settle: SettleBy = "usage",
    ) -> Callable[[F], F]:
        """Decorate an async function, a function, a generator or an async generator.

        Each call waits for its turn, and settles itself by what the function returns.

        :param request: makes the request body of the call's arguments; without it the
            arguments themselves, by their names, are the body.
        :param timeout: seconds to wait at most; see `reserve`.
        :param priority: see `reserve`.
        :param settle: "usage" settles by the usage that an answer or the last chunk of
            a stream carries, and keeps the reserve where there is none; "text" says
            that the texts which the function returns or yields are the whole answer,
            and counts them where there is no usage.
        """
        return decorator(calls_of(self._engine, timeout, priority), request, settle)

    def reserve(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        tokens: float | None = None,
        requests: float | None = None,
        cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        **body: Any,
    ) -> Reservation:
        """Return a context manager that waits on entry and hands out the `Lease`.

        For ``with`` and ``async with``.

        :param request: the request body; or give its fields as keyword arguments.
        :param tokens: the cost by hand instead of a body; ``requests`` (1 by default)
            and any other dimension in ``cost``.
        :param timeout: seconds to wait at most. Raises `WaitTimeout` then, or at once
            when it is certain that the call cannot go until then.
        :param priority: a name of ``priorities`` or the patience itself, in seconds.
        :param endpoint: the API that the body is for, such as "embeddings", where the
            body alone does not show it.

        Raises `InvalidArgument` on what cannot be used and, on entry, `RequestTooLarge`
        for a call that can never fit a limit.
        """
        return reservation_of(
            self._engine, request, body, (tokens, requests, cost), timeout, priority, endpoint
        )

    async def acquire(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        tokens: float | None = None,
        requests: float | None = None,
        cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        **body: Any,
    ) -> Lease:
        """Wait for capacity in the calling task; the lease is the caller's to settle.

        Takes and raises what `reserve` does. Does not yield to the event loop when
        there is capacity.
        """
        if not body and request is None and requests is None and cost is None and timeout is None:
            if priority != "normal":
                self._engine.patience(priority)  # refused here as well, if it cannot be used
            lease = admit_by_hand(self._engine, tokens)
            if lease is not None:
                return lease
        price = tokens, requests, cost
        call = reservation_of(self._engine, request, body, price, timeout, priority, endpoint)
        return await call.admit_async()

    def acquire_sync(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        tokens: float | None = None,
        requests: float | None = None,
        cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        **body: Any,
    ) -> Lease:
        """Wait for capacity in the calling thread; the lease is the caller's to settle.

        Takes and raises what `reserve` does.
        """
        price = tokens, requests, cost
        call = reservation_of(self._engine, request, body, price, timeout, priority, endpoint)
        return call.admit()

    def acquire_nowait(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        tokens: float | None = None,
        requests: float | None = None,
        cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        endpoint: str | None = None,
        **body: Any,
    ) -> Lease:
        """Take capacity if there is some and nobody waits for it.

        Takes what `reserve` does (a timeout changes nothing). Raises `WouldBlock` where
        the call would have to wait.
        """
        price = tokens, requests, cost
        call = reservation_of(self._engine, request, body, price, timeout, priority, endpoint)
        return call.admit_now()

    @spelled("limiter.wrap(AsyncOpenAI())")
    def wrap(
        self, client: C, /, *, timeout: float | None = None, priority: str | float = "normal"
    ) -> C:
        """Return a client of the same type; each HTTP attempt waits for its turn.

        SDK retries included; see `ratelimit.integrations.wrapping.wrap`.

        :param client: `openai.OpenAI`, `AsyncOpenAI`, their Azure forms, a client of
            Anthropic's or Groq's SDK, or a bare httpx or httpx2 client.
        :param timeout: seconds that an attempt may wait at most; see `reserve`.
        :param priority: of all calls of this client; see `reserve`.
        """
        deadline_of(timeout, 0.0)
        patience = self._engine.patience(priority)
        wrapped = wrap(self._engine, client, timeout=timeout, patience=patience)
        self._engine.estimator.prepare()
        return wrapped

    def estimate(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        endpoint: str | None = None,
        **body: Any,
    ) -> Estimate:
        """Return what a request would cost, in tokens, without taking it."""
        return self._engine.estimate(body_of(request, body), endpoint=endpoint)

    def price(
        self,
        request: Mapping[str, Any] | Estimate | None = None,
        /,
        *,
        endpoint: str | None = None,
        **body: Any,
    ) -> dict[str, float]:
        """Return what a request, or the `Estimate` of one, would take from the buckets.

        Takes nothing. By dimension, as far as it is known how the server counts.
        """
        if not isinstance(request, Estimate) or body or endpoint is not None:
            request = self._engine.estimate(body_of(request, body), endpoint=endpoint)
        return dict(self._engine.payment(request, self._engine.family(request.model)).amounts)

    def limits(self, model: str = "") -> Limits:
        """Return the limits that a model's calls must fit now, given or learned."""
        return self._engine.family(model).admission.store.limits

    def statistics(self) -> Statistics:
        """Return a snapshot: levels, waiting calls, calls in flight, 429s seen."""
        return statistics_of(self._engine)

    def explain(self, model: str | None = None) -> Explanation:
        """Return who waits for what, and which limits hold and why. It prints readably.

        :param model: explain only the family of this model.
        """
        return explanation_of(self._engine, model)

    def subscribe(self, hook: Callable[[Any], object], /, *kinds: type[Event]) -> Subscription:
        """Have ``hook`` called with each event, a frozen record of `ratelimit.events`.

        It runs in a thread of its own, so it may block or raise. The subscription lasts
        until its ``close()``. Raises `InvalidArgument` for what cannot be called.

        :param kinds: of events, such as `ratelimit.events.Refused`; all by default.
        """
        return self._engine.hooks.subscribe(hook, kinds)

    def __copy__(self) -> RateLimiter:
        return self  # a copy would spend the same limits once more

    def __deepcopy__(self, memo: object) -> RateLimiter:
        return self

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a limiter cannot be pickled: what it has admitted stays in its process. Create one "
            'in each process, all with the same store="file:...", or each with its share of the '
            "limits: RateLimiter(rpm=..., tpm=...)"
        )

    def __repr__(self) -> str:
        return described(self._engine)
