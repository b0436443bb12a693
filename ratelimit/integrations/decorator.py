"""The decorator: one call of a function, one admission.

Owns how a function is wrapped so that it keeps its kind and signature, and what its
result settles. Must never know buckets or HTTP: it admits by reservations.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, get_args

from ratelimit.admission.drivers import in_event_loop
from ratelimit.errors import InvalidArgument, LimiterWarning, caution
from ratelimit.feedback.answers import host_of, reply_status
from ratelimit.feedback.untrusted import field
from ratelimit.integrations.arguments import body_maker, name_of
from ratelimit.integrations.settlement import SettleBy, holds_output, settle_answer
from ratelimit.integrations.streams import StreamMeter, is_pending, metered
from ratelimit.lease import AdmittedLease as Lease

F = TypeVar("F", bound=Callable[..., Any])


class Admitting(Protocol):
    """A reservation, of one limiter or of a pool."""

    def admit(self) -> Lease:
        """Wait in the calling thread."""

    async def admit_async(self) -> Lease:
        """Wait in the calling task."""


Reserve: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Admitting]
"""Makes the reservation of a call with these positional and keyword arguments."""


Reserving: TypeAlias = Callable[[Mapping[str, Any], str], Admitting]
"""Makes the reservation of a call of this body, made by the function of that name."""


def decorator(
    reserving: Reserving,
    request: Callable[..., Any] | None,
    settle: SettleBy = "usage",
) -> Callable[[F], F]:
    """Make a decorator that keeps the function's kind and signature.

    The other parameters are those of `RateLimiter.limit`.
    """
    if request is not None and not callable(request):
        raise InvalidArgument(
            "request= is a function that makes the request body of the call's arguments, not"
            f" {request!r}"
        )
    if settle not in get_args(SettleBy):
        raise InvalidArgument(f"settle= is one of {', '.join(get_args(SettleBy))}, not {settle!r}")

    def decorate(function: F) -> F:
        body_of = body_maker(function, request)
        site = getattr(function, "__qualname__", "")

        def reserve(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Admitting:
            return reserving(body_of(args, kwargs), site)

        return _wrap(function, reserve, Results(name_of(function), settle))

    return decorate


class Results:
    """Settles the calls of one function by what it returns.

    Warns once where that does not show what a call used.
    """

    def __init__(self, name: str, by: SettleBy) -> None:
        self._name = name
        self._by = by
        self._warned = False

    def settled(self, lease: Lease, result: Any) -> Any:
        """Settle by a result and return it.

        Where its call is not over yet, return what stands for it and settles later.
        """
        if hasattr(type(result), "add_done_callback"):
            # A future or a task stays what it is: its own callback settles.
            result.add_done_callback(functools.partial(self._done, lease))
            return result
        if settle_answer(lease, result, by=self._by):
            return result
        if inspect.iscoroutine(result):
            return self._awaited(lease, result)
        if reply_status(result) is None and is_pending(result):
            return self.stream(lease, result)

        self._unsettled(lease)
        return result

    def stream(self, lease: Lease, inner: Any) -> Any:
        """Return what stands for a call that is not over, and settles when it ends."""
        host = host_of(field(inner, "response"))
        meter = StreamMeter(lease, self._by, self._unsettled, host)
        return metered(inner, meter, functools.partial(self.settled, lease))

    async def _awaited(self, lease: Lease, result: Awaitable[Any]) -> Any:
        return self.settled(lease, await awaited(lease, lambda: result))

    def _done(self, lease: Lease, future: Any) -> None:
        if future.cancelled():
            lease.close()
            return

        error = future.exception()
        if error is not None:
            lease.fail(error)
        elif not settle_answer(lease, future.result(), by=self._by):
            self._unsettled(lease)

    def _unsettled(self, lease: Lease) -> None:
        """Keep the reserve of a call that shows no usage.

        Say so once, where tokens of a limit stay taken for it.
        """
        if not self._warned and holds_output(lease):
            self._warned = True
            caution(
                f"{self._name} returned no usage, so what was reserved for its answers is never"
                " given back. Return the response itself, or settle inside the function by"
                " ratelimit.current_lease().settle(response), or send by a wrapped client,"
                " limiter.wrap(client). Where the text that it returns or yields is the whole"
                ' answer: @limiter.limit(settle="text")',
                LimiterWarning,
                stacklevel=4,
            )
        lease.answered()


def _wrap(function: F, reserve: Reserve, results: Results) -> F:
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, reserve, results)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, reserve, results)
    else:
        wrapper = _function(function, reserve, results)
    return wrapper  # type: ignore[return-value]  # the same kind of callable, with the same signature


def _async_generator(
    function: Callable[..., Any], reserve: Reserve, results: Results
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        lease = await reserve(args, kwargs).admit_async()
        stream = results.stream(lease, function(*args, **kwargs))
        try:
            step = stream.__anext__()
            while True:
                chunk = await step
                try:
                    sent = yield chunk
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # it is the function's to catch, as with `yield from`
                    step = stream.athrow(error)
                else:
                    step = stream.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await stream.aclose()

    return async_generator


def _generator(
    function: Callable[..., Any], reserve: Reserve, results: Results
) -> Callable[..., Any]:
    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        lease = reserve(args, kwargs).admit()
        return (yield from results.stream(lease, function(*args, **kwargs)))

    return generator


def _function(
    function: Callable[..., Any], reserve: Reserve, results: Results
) -> Callable[..., Any]:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        lease = await reserve(args, kwargs).admit_async()
        return results.settled(lease, await awaited(lease, lambda: function(*args, **kwargs)))

    called = getattr(function, "__call__", None)  # noqa: B004  # an object may have an async one
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return functools.wraps(function)(coroutine)

    # A plain wrapper around `async def`, as the SDK's methods are: in an event loop it
    # must wait as a task, not block the thread.
    wraps_async = inspect.iscoroutinefunction(inspect.unwrap(function))

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if wraps_async and in_event_loop():
            return coroutine(*args, **kwargs)

        lease = reserve(args, kwargs).admit()
        try:
            with lease.current():
                result = function(*args, **kwargs)
        except BaseException as error:
            lease.fail(error)
            raise

        return results.settled(lease, result)

    return plain


async def awaited(lease: Lease, call: Callable[[], Awaitable[Any]]) -> Any:
    """Await a call under its lease; an exception settles it."""
    try:
        with lease.current():
            return await call()
    except BaseException as error:
        lease.fail(error)
        raise
