"""What an instance holds of itself, bound anew to its copy.

Owns the search for references from a client's fields back to the client: resources,
bound methods, patches. Must never know what a client does.
"""

from __future__ import annotations

import functools
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from ratelimit.errors import InvalidArgument

_DEEPEST: Final = 8
"""Fields of fields in which references are looked for; an SDK's resources are nested
four deep.
"""

_LONGEST: Final = 100
"""Elements of a list or dictionary that are looked through."""

_MOST: Final = 10_000
"""Values that one search looks at."""


class Rebinding:
    """Carries the fields of `given` over to `copied`, which shares them so far.

    A field that leads back to `given` would let its calls pass the limiter by. Where
    the class makes such a field anew, it is made anew; where that would lose a patch,
    `InvalidArgument` says so.
    """

    def __init__(self, given: Any, copied: Any) -> None:
        self._given = given
        self._copied = copied

    def fields(self, done: set[str]) -> None:
        """Carry over all fields but those in `done`, which are the copy's own."""
        leading_back = [
            name
            for name, value in vars(self._given).items()
            if name not in done and self._leads_back(value)
        ]
        # All of them go before the first is made anew, which may use another one.
        for name in leading_back:
            del self._copied.__dict__[name]

        for name in leading_back:
            value = vars(self._given)[name]
            fresh = self._made_anew(name, value)
            self._carry(value, fresh, name)
            self._copied.__dict__[name] = fresh

    def method(self, name: str, value: Any) -> Any:
        """Return for the copy what replaces a method of the given instance."""
        if not self._leads_back(value):
            return value

        return self._bound(value, self._given, self._copied, name)

    def _made_anew(self, name: str, value: Any) -> Any:
        """Make the field that the copy has in place of `value`."""
        kind = type(self._given)
        if isinstance(getattr(kind, name, None), functools.cached_property):
            return getattr(self._copied, name)
        if callable(getattr(kind, name, None)) or isinstance(value, MethodType):
            return self._bound(value, self._given, self._copied, name)
        if getattr(value, "_client", None) is self._given:
            # Older SDKs make their resources in the constructor.
            return type(value)(self._copied)
        raise self._lost(name)

    def _carry(self, value: Any, fresh: Any, path: str) -> None:
        """Carry over what was added to a field, and refuse what would be lost.

        The copy's own field shows what an unchanged one looks like.
        """
        if type(value) is not type(fresh):
            raise self._lost(path)
        if isinstance(value, MethodType):
            if value.__func__ is not fresh.__func__:
                raise self._lost(path)
            return
        if isinstance(value, FunctionType):
            if value.__code__ is not fresh.__code__:
                raise self._lost(path)
            return
        if not hasattr(value, "__dict__") or path.count(".") >= _DEEPEST:
            return

        for name, inner in vars(value).items():
            if not self._leads_back(inner):
                if name not in vars(fresh):
                    setattr(fresh, name, inner)
            elif inner is not self._given:
                self._carry_inner(value, fresh, name, f"{path}.{name}")

    def _carry_inner(self, value: Any, fresh: Any, name: str, path: str) -> None:
        inner = vars(value)[name]
        made = name in vars(fresh) or isinstance(
            getattr(type(value), name, None), functools.cached_property
        )
        if made:
            self._carry(inner, getattr(fresh, name), path)
        else:
            setattr(fresh, name, self._bound(inner, value, fresh, path))

    def _bound(self, value: Any, old: Any, new: Any, path: str) -> Any:
        """Bind a method of `old` to `new`."""
        if (
            isinstance(value, MethodType)
            and value.__self__ is old
            and not self._leads_back(value.__func__)
        ):
            return MethodType(value.__func__, new)
        raise self._lost(path)

    def _leads_back(self, value: Any) -> bool:
        return _reaches(value, self._given, set(), _DEEPEST)

    def _lost(self, path: str) -> InvalidArgument:
        kind = type(self._given).__name__
        below = "http_client=limiter.wrap(openai.DefaultHttpxClient())"
        if hasattr(self._given, "with_options"):  # an SDK's client, which takes another
            below = f"{kind}({below})"
        return InvalidArgument(
            f"wrap() cannot carry {path} of this {kind} over to its copy: it was replaced or added"
            " on the instance, by a tracer for example, and calls the given client, past the"
            " limiter. Wrap first and patch the wrapped client, or meter the HTTP client below the"
            f" SDK: {below}, or DefaultAsyncHttpxClient()"
        )


def _reaches(value: Any, target: object, seen: set[int], depth: int) -> bool:
    """Tell whether `value` holds `target`, or calls it."""
    if value is target:
        return True
    if depth == 0 or id(value) in seen or len(seen) >= _MOST:
        return False
    if isinstance(value, (type, ModuleType, str, bytes)):
        return False

    seen.add(id(value))
    return any(_reaches(inner, target, seen, depth - 1) for inner in _held_by(value))


def _named_in(code: CodeType) -> set[str]:
    """Return the names that a function and those inside it look up outside."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return {*code.co_names, *(name for one in inner for name in _named_in(one))}


def _held_by(value: Any) -> list[Any]:
    """List what a value holds.

    A function's closure, defaults and the globals that it names, a method's object,
    elements, fields, and what calling it calls.
    """
    held: list[Any] = []
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            # A cell may be empty: its variable is not assigned yet.
            if cell != CellType():
                held.append(cell.cell_contents)  # noqa: PERF401  # the condition has its reason
        named = _named_in(value.__code__)
        held += [value.__globals__[name] for name in named if name in value.__globals__]
        held += value.__defaults__ or ()
        held += (value.__kwdefaults__ or {}).values()
    elif isinstance(value, functools.partial):
        held += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, dict):
        held += list(value.values())[:_LONGEST]
    elif isinstance(value, (list, tuple, set, frozenset)):
        held += list(value)[:_LONGEST]

    fields = getattr(value, "__dict__", None)
    if isinstance(fields, dict):
        held += list(fields.values())[:_LONGEST]
    call = getattr(type(value), "__call__", None)  # noqa: B004  # the function, not whether
    if isinstance(call, FunctionType):
        held.append(call)

    return held
