"""The limiter: requests in, leases out.

Owns what a user configures and asks for: limits by model, accounting, priorities, the
ways to reserve. Must never wait, price or read an answer: it checks arguments and
delegates to the rooms below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, overload

from ratelimit.admission.clock import Clock
from ratelimit.arguments import (
    check_choice,
    check_clock,
    check_level,
    check_output,
    check_share,
    check_shares,
    limits_by_model,
    spelled,
)
from ratelimit.budget import Budget, check_budget
from ratelimit.control.engine import PATIENCE, Engine
from ratelimit.control.pricing import Accounting
from ratelimit.control.slack import FIRST_SLACK
from ratelimit.integrations.decorator import decorator
from ratelimit.integrations.settlement import SettleBy
from ratelimit.integrations.wrapping import wrap
from ratelimit.lease import Lease
from ratelimit.limits import Limits, amount_of, amounts_of
from ratelimit.reservation import (
    Reservation,
    admit_by_hand,
    calls_of,
    deadline_of,
    reservation_of,
)
from ratelimit.statistics import Looking
from ratelimit.stores.alone import OnStoreError
from ratelimit.stores.opening import RedisClient, opener

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


class RateLimiter(Looking):
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
    :param shares: how much of each limit a tenant gets while others wait, by the name
        that ``tenant=`` gives calls: with {"a": 3, "b": 1} three parts of four are a's.
        One that is not named has a share of 1, and so have calls without a tenant.
    :param budget: a `Budget` of requests, tokens or money for all calls together. One
        that would exceed it raises `BudgetSpent` and is not sent.

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
        shares: Mapping[str, float] | None = None,
        budget: Budget | None = None,
    ) -> None:
        own = Limits(rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, rps=rps, concurrency=concurrency)
        check_choice("accounting=", accounting, get_args(Accounting))
        check_share(burst_share)
        check_output(output)
        check_clock(clock)
        clock = clock or Clock()
        self._burst_share = burst_share
        self._engine = Engine(
            self._limits_by_model(own, limits),
            clock=clock,
            slack=amount_of(arrival_slack, "arrival_slack="),
            level=check_level(initial_level),
            accounting=accounting,
            output=output,
            priorities=amounts_of(priorities, "the patience"),
            open_store=opener(store, on_store_error, clock.now, clock.epoch),
            shares=check_shares(shares),
            budget=check_budget(budget),
        )

    def _limits_by_model(
        self, own: Limits, limits: Limits | Mapping[str, Limits] | None
    ) -> dict[str, Limits]:
        by_model = limits_by_model(own, limits)
        return {name: one.with_burst(self._burst_share) for name, one in by_model.items()}

    @spelled("limiter.replace(rpm=500, tpm=30_000)")
    def replace(
        self,
        *,
        rpm: float | str | None = None,
        tpm: float | str | None = None,
        rpd: float | str | None = None,
        tpd: float | str | None = None,
        rps: float | str | None = None,
        limits: Limits | Mapping[str, Limits] | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Hold other limits from now on, in place of all that were given.

        They are spelled as at the start; without any, limits are learned from headers.
        What is used of a limit stays used. Calls that wait see the new limits at once;
        one that can never fit them raises `RequestTooLarge`. With a shared ``store``
        they hold for all its processes. A lower limit that a server shows still counts.

        :param limits: a mapping changes the limits of the patterns that it names, each
            of which had limits at the start; the others keep theirs.

        Raises `InvalidArgument` on what cannot be used; then nothing has changed.
        """
        own = Limits(rpm=rpm, tpm=tpm, rpd=rpd, tpd=tpd, rps=rps, concurrency=concurrency)
        by_model = isinstance(limits, Mapping)
        self._engine.replace(self._limits_by_model(own, limits), by_model=by_model)

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
        tenant: str | None = None,
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
        :param tenant: for whom the calls are; see `reserve`.
        """
        calls = calls_of(self._engine, timeout, priority, tenant)
        return decorator(calls, request, settle)

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
        tenant: str | None = None,
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
        :param tenant: for whom the call is. While calls of several tenants wait, each
            gets its part of the limits, by ``shares``; priorities hold within a tenant.

        Raises `InvalidArgument` on what cannot be used and, on entry, `RequestTooLarge`
        for a call that can never fit a limit.
        """
        price = tokens, requests, cost
        return reservation_of(
            self._engine, request, body, price, timeout, priority, endpoint, tenant
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
        tenant: str | None = None,
        **body: Any,
    ) -> Lease:
        """Wait for capacity in the calling task; the lease is the caller's to settle.

        Takes and raises what `reserve` does. Does not yield to the event loop when
        there is capacity.
        """
        if not body and request is None and requests is None and cost is None and timeout is None:
            if priority != "normal":
                self._engine.patience(priority)  # refused here as well, if it cannot be used
            if tenant is not None:
                self._engine.tenant(tenant)
            lease = admit_by_hand(self._engine, tokens)
            if lease is not None:
                return lease
        price = tokens, requests, cost
        call = reservation_of(
            self._engine, request, body, price, timeout, priority, endpoint, tenant
        )
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
        tenant: str | None = None,
        **body: Any,
    ) -> Lease:
        """Wait for capacity in the calling thread; the lease is the caller's to settle.

        Takes and raises what `reserve` does.
        """
        price = tokens, requests, cost
        call = reservation_of(
            self._engine, request, body, price, timeout, priority, endpoint, tenant
        )
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
        tenant: str | None = None,
        **body: Any,
    ) -> Lease:
        """Take capacity if there is some and nobody waits for it.

        Takes what `reserve` does (a timeout changes nothing). Raises `WouldBlock` where
        the call would have to wait.
        """
        price = tokens, requests, cost
        call = reservation_of(
            self._engine, request, body, price, timeout, priority, endpoint, tenant
        )
        return call.admit_now()

    @spelled("limiter.wrap(AsyncOpenAI())")
    def wrap(
        self,
        client: C,
        /,
        *,
        timeout: float | None = None,
        priority: str | float = "normal",
        tenant: str | None = None,
    ) -> C:
        """Return a client of the same type; each HTTP attempt waits for its turn.

        SDK retries included; see `ratelimit.integrations.wrapping.wrap`.

        :param client: `openai.OpenAI`, `AsyncOpenAI`, their Azure forms, a client of
            Anthropic's or Groq's SDK, or a bare httpx or httpx2 client.
        :param timeout: seconds that an attempt may wait at most; see `reserve`.
        :param priority: of all calls of this client; see `reserve`.
        :param tenant: for whom all calls of this client are; see `reserve`.
        """
        deadline_of(timeout, 0.0)
        patience, name = self._engine.patience(priority), self._engine.tenant(tenant)
        wrapped = wrap(self._engine, client, timeout=timeout, patience=patience, tenant=name)
        self._engine.estimator.prepare()
        return wrapped
