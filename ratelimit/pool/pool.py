"""The pool: several members behind one client, one queue and one set of doors.

Owns what a user configures and asks for. Must never wait, choose or send: it checks
arguments and delegates to the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Never, TypeVar, overload

from ratelimit.arguments import body_of, cost_by_hand, spelled
from ratelimit.control.engine import Engine
from ratelimit.control.family import ModelFamily
from ratelimit.errors import InvalidArgument
from ratelimit.integrations.decorator import decorator
from ratelimit.integrations.settlement import SettleBy
from ratelimit.integrations.wrapping import wrap
from ratelimit.limits import Limit, Limits, amount_of
from ratelimit.pool.core import Core
from ratelimit.pool.leases import MemberLease
from ratelimit.pool.members.given import EXAMPLE, checked
from ratelimit.pool.members.member import Member, engine_of
from ratelimit.pool.members.quotas import SharedQuotas
from ratelimit.pool.members.standing import Standing
from ratelimit.pool.requests import BASE, PoolCall
from ratelimit.pool.reservation import PoolCallReservation, PoolReservation
from ratelimit.pool.snapshot import (
    PoolExplanation,
    PoolStatistics,
    explanation_of,
    statistics_of,
)
from ratelimit.pool.transport import AsyncPoolTransport, PoolTransport
from ratelimit.reservation import deadline_of

F = TypeVar("F", bound=Callable[..., Any])


class Pool:
    """Sends each call to the first of its members that can pay for it.

    Calls that may go to the same members keep their order, as with one limiter. A
    member that fails is parked and tried again; the call goes on to the next one while
    nothing of an answer has arrived. What is stored on one server (responses, files,
    conversations) is asked for where it is.

    :param members: at least one, of different names, all with sync or all with async
        clients.
    :param affinity: seconds that a call waits, at most, for the member that has its
        prompt cached, when others could take it sooner.
    :param moves: how often one attempt goes on to another member, at most.

    Raises `InvalidArgument` on what cannot be used.
    """

    @spelled(EXAMPLE)
    def __init__(
        self, members: Iterable[Member], /, *, affinity: float = 1.0, moves: int = 3
    ) -> None:
        found = checked(members)
        self.is_async = found[0].is_async
        if isinstance(moves, bool) or not isinstance(moves, int) or moves < 0:
            raise InvalidArgument(f"moves= is a whole number, 0 or more, not {moves!r}")
        affinity = amount_of(affinity, "affinity=, in seconds,")
        engines = [engine_of(member) for member in found]
        self._priorities = engines[0]
        standings = [
            Standing(
                member,
                wrap(engine_of(member), member.client, timeout=None, patience=0.0),
                self._wake,
            )
            for member in found
        ]
        for engine in engines:
            engine.estimator.prepare()
        self._core = Core(standings, affinity, moves)
        self._quotas = SharedQuotas()

    def _wake(self) -> None:
        """Let waiting calls look again: a member was parked, or is back."""
        self._core.wake()

    @property
    def members(self) -> tuple[Member, ...]:
        """The members, in the order in which they were given."""
        return tuple(standing.member for standing in self._core.standings)

    @spelled("pool.client()")
    def client(
        self,
        *,
        timeout: float | None = None,
        priority: str | float = "normal",
        max_retries: int | None = None,
    ) -> Any:
        """Return an `openai.AsyncOpenAI`, or `OpenAI`, that calls the members.

        Each HTTP attempt, its own retries included, waits for a member that can pay. An
        answer's headers ``x-ratelimit-member`` and ``x-ratelimit-model`` tell which
        member gave it, and that member's name for the model. Closing the client closes
        none of the members' clients.

        :param timeout: seconds that an attempt may wait for a member at most; raises
            `WaitTimeout` out of the call. The SDK's own timeout does not run meanwhile.
        :param priority: of all calls of this client; see `RateLimiter.reserve`.
        :param max_retries: the SDK's own retries, after the moves between members; by
            default as many as the first member's client has.
        """
        from openai import (  # noqa: PLC0415  # importing it is slow
            AsyncOpenAI,
            DefaultAsyncHttpxClient,
            DefaultHttpxClient,
            OpenAI,
        )

        deadline_of(timeout, 0.0)
        patience = self._priorities.patience(priority)
        first = self.members[0].client
        settings: dict[str, Any] = {
            "base_url": BASE,
            "api_key": "of-the-pools-members",
            "timeout": first.timeout,
            "max_retries": first.max_retries if max_retries is None else max_retries,
        }
        if self.is_async:
            transport = AsyncPoolTransport(self._core, self._quotas, timeout, patience)
            http = DefaultAsyncHttpxClient(transport=transport)  # type: ignore[arg-type]  # of its shape
            return AsyncOpenAI(http_client=http, **settings)
        sync = PoolTransport(self._core, self._quotas, timeout, patience)
        return OpenAI(http_client=DefaultHttpxClient(transport=sync), **settings)  # type: ignore[arg-type]  # of its shape

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, function: None = None, /) -> Callable[[F], F]: ...
    def __call__(self, function: F | None = None, /) -> F | Callable[[F], F]:
        """Decorate a function that takes the request body as keyword arguments.

        Inside, a call by `Pool.client` uses the admission, and so does one by
        ``ratelimit.current_lease().member.client`` with the body ``.request``.
        """
        return self.limit() if function is None else self.limit()(function)

    @spelled('@pool.limit(request=lambda question: {...}), or @pool without "limit"')
    def limit(
        self,
        *,
        request: Callable[..., Any] | None = None,
        timeout: float | None = None,
        priority: str | float = "normal",
        settle: SettleBy = "usage",
    ) -> Callable[[F], F]:
        """Decorate a function of any kind, as `RateLimiter.limit` does."""
        deadline_of(timeout, 0.0)
        patience = self._priorities.patience(priority)

        def reserve(body: Mapping[str, Any], site: str) -> PoolCallReservation:
            call = PoolCall(body)
            return PoolCallReservation(
                self._core, call, timeout=timeout, patience=patience, site=site
            )

        return decorator(reserve, request, settle)

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
    ) -> PoolReservation:
        """Return a context manager that waits on entry and hands out a `MemberLease`.

        For ``with`` and ``async with``. ``lease.member.client`` is the client to send
        with, and ``lease.request`` the body for it; the parameters are those of
        `RateLimiter.reserve`.
        """
        price = tokens, requests, cost
        return self._call(request, body, price, timeout, priority, endpoint)

    def _call(
        self,
        request: Mapping[str, Any] | None,
        body: dict[str, Any],
        price: tuple[float | None, float | None, Mapping[str, float] | None],
        timeout: float | None,
        priority: str | float,
        endpoint: str | None,
    ) -> PoolCallReservation:
        explicit = price != (None, None, None)
        if explicit and (request is not None or body.keys() - {"model"}):
            raise InvalidArgument(
                "give the request body or its cost (tokens=, requests=, cost=), not both"
            )
        by_hand = explicit or (request is None and not body)
        return PoolCallReservation(
            self._core,
            PoolCall(body if by_hand else body_of(request, body)),
            explicit_cost=cost_by_hand(*price) if by_hand else None,
            timeout=timeout,
            patience=self._priorities.patience(priority),
            endpoint=endpoint,
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
    ) -> MemberLease:
        """Wait in the calling task; the lease is the caller's to settle.

        Takes and raises what `reserve` does.
        """
        price = tokens, requests, cost
        call = self._call(request, body, price, timeout, priority, endpoint)
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
    ) -> MemberLease:
        """Wait in the calling thread; the lease is the caller's to settle.

        Takes and raises what `reserve` does.
        """
        price = tokens, requests, cost
        call = self._call(request, body, price, timeout, priority, endpoint)
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
    ) -> MemberLease:
        """Take capacity of a member that has some now; raise `WouldBlock` otherwise.

        Takes what `reserve` does (a timeout changes nothing).
        """
        price = tokens, requests, cost
        call = self._call(request, body, price, timeout, priority, endpoint)
        return call.admit_now()

    def limits(self, *models: str) -> Limits:
        """Return what calls of these models must fit now, summed over the members.

        :param models: all models by default. Limits that several of them share, or
            several members, count once.
        """
        families = {
            id(family): family
            for member in self.members
            for model in models or ("",)
            if (own := member.serves(model)) is not None
            for family in families_of(engine_of(member), own)
        }
        sums: dict[tuple[str, float], float] = {}
        for family in families.values():
            for limit in family.admission.store.limits:
                key = limit.name, limit.per
                sums[key] = sums.get(key, 0.0) + limit.amount
        return Limits(*(Limit(name, amount, per) for (name, per), amount in sums.items()))

    def statistics(self) -> PoolStatistics:
        """Return a snapshot: each member, what it has served, and who waits."""
        return statistics_of(self._core)

    def explain(self) -> PoolExplanation:
        """Return who waits for what, and which members are parked and why.

        It prints readably.
        """
        return explanation_of(self._core)

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        now = self.statistics()
        return f"<Pool {names}; {now.in_flight} in flight, {now.waiting} waiting>"

    def __copy__(self) -> Pool:
        return self  # a copy would have a second queue

    def __deepcopy__(self, memo: object) -> Pool:
        return self

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a pool cannot be pickled, as its clients and limiters cannot; make one in each"
            ' process, its limiters with store="file:..." or "redis://..."'
        )


def families_of(engine: Engine, model: str) -> list[ModelFamily]:
    """Return the family of a model, or all families where none is named."""
    return [engine.family(model)] if model else list(engine.families().values())
