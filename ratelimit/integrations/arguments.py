"""How the arguments of a decorated function become a request body.

Owns the reading of signatures, and what is said of a function that has no body in its
arguments. Must never call the function, or know what a body costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from ratelimit.errors import EstimateWarning, InvalidArgument, caution
from ratelimit.estimate.endpoints import endpoint_of

BodyMaker: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Any]]
"""Makes a request body of a call's positional and keyword arguments."""

_VARIADIC: Final = inspect.Parameter.VAR_POSITIONAL
_KEYWORDS: Final = inspect.Parameter.VAR_KEYWORD


def body_maker(function: Callable[..., Any], request: Callable[..., Any] | None) -> BodyMaker:
    """Return what turns a call's arguments into a request body.

    :param request: makes the body of the same arguments; without it the arguments are
        the body's fields, or one of them is the body.
    :raises InvalidArgument: now, for what could only fail at the first call.
    """
    if not callable(function):
        raise InvalidArgument(
            f"the limiter decorates functions, not {function!r}; below @classmethod or"
            " @staticmethod, not above"
        )

    name = name_of(function)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        raise InvalidArgument(
            f"the arguments of {name} are not known to Python; decorate a function that calls it"
        ) from None

    parameters = list(signature.parameters.values())
    if request is not None:
        return _made_by(name, parameters, request)
    if not parameters or any(parameter.kind is _VARIADIC for parameter in parameters):
        raise InvalidArgument(
            f"the arguments of {name}{signature} cannot be read as a request body by their names;"
            " say how they become one: @limiter.limit(request=lambda ...: {...})"
        )
    return _named(name, signature)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which a message calls a function."""
    return getattr(function, "__qualname__", None) or repr(function)


def _made_by(
    name: str, parameters: list[inspect.Parameter], request: Callable[..., Any]
) -> BodyMaker:
    _match(name, parameters, request)

    def made(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        body = request(*args, **kwargs)
        if not isinstance(body, Mapping):
            raise InvalidArgument(
                f"request= of {name} must return the request body, a mapping, not"
                f" {type(body).__name__}"
            )
        return body

    return made


def _named(name: str, signature: inspect.Signature) -> BodyMaker:
    """Return what reads arguments by their names."""
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
                f"among the arguments of {name}{signature} are no messages, input or prompt, so the"
                " tokens of its calls are a flat guess; say how they become a request body:"
                " @limiter.limit(request=lambda ...: {...}), or pass its fields as keyword"
                " arguments",
                EstimateWarning,
                stacklevel=4,
            )
        return fields

    return named


def _body_among(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the one argument that is a whole request body; None without one.

    As of ``ask(request)`` or ``ask(session, request)``.
    """
    bodies = [
        value
        for value in fields.values()
        if isinstance(value, Mapping) and endpoint_of(value) != "other"
    ]
    return bodies[0] if len(bodies) == 1 else None


def _match(name: str, parameters: list[inspect.Parameter], request: Callable[..., Any]) -> None:
    """Raise `InvalidArgument` where `request` cannot take the function's arguments."""
    try:
        wanted = inspect.signature(request).parameters.values()
    except ValueError:  # some builtins have none, and say what they miss when called
        return

    if inspect.iscoroutinefunction(request):
        raise InvalidArgument(
            f"request= of {name} must be a plain function: it is called before there is anything"
            " to await"
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
            f"request= of {name} wants {', '.join(missing)}, but {name} takes"
            f" {', '.join(known) or 'no arguments'}"
        )
