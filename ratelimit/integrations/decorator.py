"""The decorator's door: one call of a function, one admission.

Owns how a call's arguments become a request, and what its result settles: an answer, a
stream, an awaitable. Admits through the limiter's reservations; knows no buckets and no
HTTP.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, TypeVar

from ratelimit.admission.drivers import in_event_loop
from ratelimit.control.engine import Engine
from ratelimit.errors import EstimateWarning, InvalidArgument, caution
from ratelimit.estimate.endpoints import endpoint_of
from ratelimit.feedback import read_usage
from ratelimit.integrations.streams import MeteredStream
from ratelimit.lease import AdmittedLease as Lease
from ratelimit.reservation import Reservation

F = TypeVar("F", bound=Callable[..., Any])
_VARIADIC = inspect.Parameter.VAR_POSITIONAL
_KEYWORDS = inspect.Parameter.VAR_KEYWORD


def decorator(
    engine: Engine,
    request: Callable[..., Any] | None,
    timeout: float | None,
    patience: float,
) -> Callable[[F], F]:
    """Make the decorator for these settings; it keeps the function's kind and
    signature.
    """
    if request is not None and not callable(request):
        raise InvalidArgument(
            f"request= is a function that makes the request body of the call's arguments, not {request!r}"
        )

    def decorate(function: F) -> F:
        body_of = _body_maker(function, request)
        site = getattr(function, "__qualname__", "")

        def reserve(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reservation:
            body = body_of(args, kwargs)
            return Reservation(engine, body, timeout=timeout, patience=patience, site=site)

        return _wrap(function, reserve)

    return decorate


def _wrap(function: F, reserve: Callable[[tuple[Any, ...], dict[str, Any]], Reservation]) -> F:
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            stream = MeteredStream(
                function(*args, **kwargs), await reserve(args, kwargs).admit_async()
            )
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

        wrapper = async_generator
    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (
                yield from MeteredStream(function(*args, **kwargs), reserve(args, kwargs).admit())
            )

        wrapper = generator
    else:
        wrapper = _wrap_function(function, reserve)
    return wrapper  # type: ignore[return-value]  # the same kind of callable, with the same signature


def _wrap_function(
    function: Callable[..., Any], reserve: Callable[[tuple[Any, ...], dict[str, Any]], Reservation]
) -> Callable[..., Any]:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        lease = await reserve(args, kwargs).admit_async()
        return _settled(lease, await _awaited(lease, lambda: function(*args, **kwargs)))

    called = getattr(function, "__call__", None)  # noqa: B004  # an object may have an async one
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        wrapper: Callable[..., Any] = functools.wraps(function)(coroutine)
    else:
        # A plain wrapper around `async def`, as the SDK's methods are: in an event loop
        # it must wait as a task, not block the thread.
        hidden = inspect.iscoroutinefunction(inspect.unwrap(function))

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if hidden and in_event_loop():
                return coroutine(*args, **kwargs)
            lease = reserve(args, kwargs).admit()
            try:
                with lease.current():
                    result = function(*args, **kwargs)
            except BaseException as error:
                lease.fail(error)
                raise
            return _settled(lease, result)

        wrapper = plain
    return wrapper


async def _awaited(lease: Lease, call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        with lease.current():
            return await call()
    except BaseException as error:
        lease.fail(error)
        raise


def _settled(lease: Lease, result: Any) -> Any:
    """Settle by what the function returned, and return it: itself, or a stream that
    settles when it ends.
    """
    usage = read_usage(result)
    if usage is not None:
        lease.settle(usage)
    elif hasattr(result, "__anext__") or hasattr(result, "__next__"):
        return MeteredStream(result, lease)
    elif inspect.isawaitable(result):

        async def later() -> Any:
            return _settled(lease, await _awaited(lease, lambda: result))

        return later()
    else:
        lease.close()
    return result


def _body_maker(
    function: Callable[..., Any], request: Callable[..., Any] | None
) -> Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Any]]:
    """Return what turns a call's arguments into a request body; refuse, now, what could
    only fail at the first call.
    """
    if not callable(function):
        raise InvalidArgument(
            f"the limiter decorates functions, not {function!r}; below @classmethod or @staticmethod, not above"
        )
    name = getattr(function, "__qualname__", repr(function))
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        raise InvalidArgument(
            f"the arguments of {name} are not known to Python; decorate a function that calls it"
        ) from None
    parameters = list(signature.parameters.values())
    if request is not None:
        _match(name, parameters, request)

        def made(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
            body = request(*args, **kwargs)
            if not isinstance(body, Mapping):
                raise InvalidArgument(
                    f"request= of {name} must return the request body, a mapping, not {type(body).__name__}"
                )
            return body

        return made
    if not parameters or any(parameter.kind is _VARIADIC for parameter in parameters):
        raise InvalidArgument(
            f"the arguments of {name}{signature} cannot be read as a request body by their names; "
            "say how they become one: @limiter.limit(request=lambda ...: {...})"
        )
    return _named(name, signature)


def _named(
    name: str, signature: inspect.Signature
) -> Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Any]]:
    """Return what reads arguments by their names: they are the body's fields, or one of
    them is the body.
    """
    parameters = list(signature.parameters.values())
    # A default is sent as well as what is given; of those that stand for "not given"
    # (None, a sentinel) the body has nothing.
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if isinstance(parameter.default, (str, int, float, list, dict))
    }
    first = parameters[0].name if parameters[0].name in {"self", "cls"} else None
    rest = next((parameter.name for parameter in parameters if parameter.kind is _KEYWORDS), None)
    warned = False

    def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        nonlocal warned
        if not args:
            fields = defaults | kwargs if defaults else kwargs
        else:
            fields = defaults | signature.bind(*args, **kwargs).arguments
            if first is not None:
                fields.pop(first, None)
            if rest is not None:
                fields.update(fields.pop(rest, {}))
        if "messages" in fields or endpoint_of(fields) != "other":
            return fields
        body = _body_among(fields)
        if body is not None:
            return body
        if not warned and fields.keys() != {"model"}:
            warned = True
            caution(
                f"among the arguments of {name}{signature} are no messages, input or prompt, so the tokens of its calls are a flat guess; say"
                " how they become a request body: @limiter.limit(request=lambda ...: {...}), or pass its fields as keyword arguments",
                EstimateWarning,
                stacklevel=4,
            )
        return fields

    return named


def _body_among(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the one argument that is a whole request body, as of ``ask(request)`` or
    ``ask(session, request)``; None without one.
    """
    bodies = [
        value
        for value in fields.values()
        if isinstance(value, Mapping) and endpoint_of(value) != "other"
    ]
    return bodies[0] if len(bodies) == 1 else None


def _match(name: str, parameters: list[inspect.Parameter], request: Callable[..., Any]) -> None:
    try:
        wanted = inspect.signature(request).parameters.values()
    # some builtins have no signature: they say what they miss when they are called
    except ValueError:
        return
    if inspect.iscoroutinefunction(request):
        raise InvalidArgument(
            f"request= of {name} must be a plain function: it is called before there is anything to await"
        )
    if any(parameter.kind in {_VARIADIC, _KEYWORDS} for parameter in parameters):
        return
    known = {parameter.name for parameter in parameters}
    missing = [
        parameter.name
        for parameter in wanted
        if parameter.kind not in {_VARIADIC, _KEYWORDS}
        and parameter.default is parameter.empty
        and parameter.name not in known
    ]
    if missing:
        raise InvalidArgument(
            f"request= of {name} wants {', '.join(missing)}, but {name} takes {', '.join(known) or 'no arguments'}"
        )
