"""What the package shows is what it lists."""

from __future__ import annotations

import inspect

import pytest

import ratelimit
from ratelimit import errors


@pytest.mark.parametrize(
    "name", ["ratelimit", "ratelimit.estimate", "ratelimit.feedback", "ratelimit.testing"]
)
def test_all_is_what_shows(name: str) -> None:
    """Every listed name exists, and no public name but submodules shows without being
    listed.
    """
    import importlib

    module = importlib.import_module(name)
    shown = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_") and not inspect.ismodule(value)
    }

    assert set(module.__all__) == shown
    assert len(module.__all__) == len(shown)


def test_every_error_is_shown_and_in_the_printed_tree() -> None:
    """The tree at the top of errors.py is the tree: each class with its parent above
    it.
    """
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
