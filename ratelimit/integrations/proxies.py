"""Objects that pass for the one they stand before.

Owns which class a proxy seems to have, and for `proxy_class` which protocols: exactly
those of its object, for `hasattr` and the language alike. Must never know what passes
through it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import getattr_static
from typing import Any, Final, TypeVar

_NOT_FORWARDED: Final = frozenset(dir(object)) | {
    "__getattr__",
    "__del__",
    "__class_getitem__",
    "__set_name__",
    "__copy__",
    "__deepcopy__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__instancecheck__",
    "__subclasscheck__",
}
"""Special methods that make, copy or describe an object: a proxy has its own."""


class TransparentProxy:
    """Passes for `inner`, also with ``isinstance``.

    HTTP clients and web frameworks check the classes and protocols of what they are
    given. Python looks for special methods on the class alone: a subclass defines those
    that its users need, or, where any may be needed, is made by `proxy_class`, which
    gives it those of the class of `inner`. That takes a method named
    ``metered__iter__`` for the ``__iter__`` of the proxy.
    """

    def __init__(self, inner: Any) -> None:
        self.metered_inner = inner

    @property
    def __class__(self) -> type:
        kind: type = self.metered_inner.__class__  # of a proxy, too
        return kind

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("the class of a proxy is that of the object it stands for")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.metered_inner, name)


P = TypeVar("P", bound=TransparentProxy)


def proxy_class(kind: type[P], inner: Any) -> type[P]:
    """Return the subclass of `kind` with the protocols of `inner`."""
    names = _special_methods(type(inner))  # type: ignore[arg-type]  # classes can be hashed
    return _proxy_class(kind, names)  # type: ignore[arg-type]


@lru_cache(maxsize=512)
def _special_methods(kind: type) -> tuple[str, ...]:
    return tuple(
        name
        for name in dir(kind)
        if name.startswith("__")
        and name.endswith("__")
        and name not in _NOT_FORWARDED
        and _is_method(kind, name)
    )


def _is_method(kind: type, name: str) -> bool:
    """Tell whether a special name is that of a method.

    A mock makes its special methods when they are looked up, each in a millisecond.
    """
    made_later = hasattr(getattr_static(kind, name, None), "create_mock")
    return made_later or callable(getattr(kind, name, None))


@lru_cache(maxsize=512)
def _proxy_class(kind: type[P], names: tuple[str, ...]) -> type[P]:
    methods = {name: getattr(kind, "metered" + name, None) or _forward(name) for name in names}
    return type(kind.__name__, (kind,), methods | {"__module__": kind.__module__})


def _forward(name: str) -> Callable[..., Any]:
    def forwarded(self: TransparentProxy, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.metered_inner, name)(*args, **kwargs)

    forwarded.__name__ = name
    return forwarded
