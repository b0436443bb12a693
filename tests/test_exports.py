"""What the package shows is what it lists, and what users are handed can be named.

Owns the look at every listed name. Must never hold a list of names of its own.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator

import pytest

import ratelimit
from ratelimit import errors


@pytest.mark.parametrize(
    "name",
    [
        "ratelimit",
        "ratelimit.batch",
        "ratelimit.estimate",
        "ratelimit.events",
        "ratelimit.feedback",
        "ratelimit.testing",
    ],
)
def test_all_is_what_shows(name: str) -> None:
    """Every listed name exists, and no other public name but submodules shows."""
    module = importlib.import_module(name)
    shown = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_") and not inspect.ismodule(value)
    }

    assert set(module.__all__) == shown
    assert len(module.__all__) == len(shown)


def test_every_error_is_shown_and_in_the_printed_tree() -> None:
    """Each error and warning stands in the tree at the top of errors.py."""
    tree = errors.__doc__ or ""
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, (Exception, Warning)):
            assert name in ratelimit.__all__
            assert name in tree
            assert issubclass(error, (errors.LimiterError, errors.LimiterWarning))
            assert error.__doc__


def test_errors_are_what_python_people_expect_to_catch() -> None:
    """A bad argument is a ValueError and a TypeError, a timeout a TimeoutError."""
    assert issubclass(ratelimit.InvalidArgument, ValueError)
    assert issubclass(ratelimit.InvalidArgument, TypeError)
    assert issubclass(ratelimit.WaitTimeout, TimeoutError)
    assert issubclass(ratelimit.RequestTooLarge, ValueError)
    assert issubclass(ratelimit.ReentrantUse, RuntimeError)
    assert issubclass(ratelimit.LimiterWarning, RuntimeWarning)


def classes_in(annotation: object) -> Iterator[type]:
    """Yield the classes that a type hint is made of: A and B for `A | list[B]`."""
    if inspect.isclass(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from classes_in(argument)


def handed_out(thing: type) -> Iterator[tuple[str, type]]:
    """Yield the classes that the public methods and properties of a class return."""
    for name, member in inspect.getmembers(thing):
        if name.startswith("_") and name not in {"__enter__", "__aenter__", "__call__"}:
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            returned = inspect.get_annotations(function, eval_str=True).get("return")
            yield from ((f"{thing.__name__}.{name}", each) for each in classes_in(returned))


@pytest.mark.parametrize(
    "thing",
    [value for value in vars(ratelimit).values() if inspect.isclass(value)],
    ids=lambda thing: thing.__name__,
)
def test_what_a_public_method_returns_is_exported(thing: type) -> None:
    """Whoever is handed an object can name its type in an annotation."""
    public = [getattr(ratelimit, name) for name in ratelimit.__all__]
    missing = [
        f"{method} returns {returned.__name__}"
        for method, returned in handed_out(thing)
        if returned.__module__.partition(".")[0] == "ratelimit" and returned not in public
    ]

    assert missing == []


def test_public_things_have_docstrings() -> None:
    """Classes, methods and properties that users meet explain themselves."""
    for name in ratelimit.__all__:
        thing = getattr(ratelimit, name)
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (
                    inspect.isfunction(value) or isinstance(value, property)
                ):
                    assert inspect.getdoc(value), f"{name}.{member}"
            assert inspect.getdoc(thing), name
