"""Errors travel: copied or pickled they keep their kind, message and attributes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import warnings
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import errors
from ratelimit.errors import LimiterError, LimiterWarning, RequestTooLarge, WaitTimeout, WouldBlock

TREE = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, (LimiterError, LimiterWarning))
]
NUMBERS = st.none() | st.integers() | st.floats(allow_nan=False)


class Own(WaitTimeout):
    """A user's own error, with a constructor of its own."""

    def __init__(self, who: str, many: int) -> None:
        super().__init__(f"{who} waited {many} times", retry_after=2.0)
        self.many = many


def of_the_sdk(error: LimiterError) -> LimiterError:
    """Make ``error`` one of the SDK's kind as well, as wrapped clients do."""
    ours = type(error)
    error.__class__ = type(
        ours.__name__, (ours, openai.OpenAIError), {"__module__": ours.__module__}
    )
    return error


def twins(error: BaseException) -> list[Any]:
    """Return ``error`` as it comes out of every way of copying it."""
    pickled = [
        pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # our own bytes
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    return [*pickled, copy.copy(error), copy.deepcopy(error)]


@given(
    kind=st.sampled_from(TREE),
    message=st.text(max_size=20),
    details=st.dictionaries(
        st.sampled_from(["name", "amount", "limit", "retry_after", "of_mine"]), NUMBERS
    ),
    note=st.text(max_size=5),
    sdk=st.booleans(),
)
def test_an_error_survives_pickling_and_copying(
    kind: type[Any], message: str, details: dict[str, Any], note: str, sdk: bool
) -> None:
    """A worker's error reaches its parent with the figures to act on, and is still
    caught as the SDK's own where it was one.
    """
    error = kind(message)
    error.__dict__.update(details)
    error.add_note(note)
    if sdk and isinstance(error, LimiterError):
        of_the_sdk(error)

    for twin in twins(error):
        assert isinstance(twin, kind)
        assert isinstance(twin, openai.OpenAIError) == isinstance(error, openai.OpenAIError)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


@pytest.mark.parametrize(
    "error",
    [
        RequestTooLarge("big", name="tokens", amount=9, limit=5),
        WaitTimeout("late", retry_after=1.5),
        WouldBlock("full", retry_after=None),
        of_the_sdk(WaitTimeout("late", retry_after=1.5)),
        Own("somebody", 3),
        of_the_sdk(Own("somebody", 3)),
    ],
    ids=str,
)
def test_the_figures_of_an_error_survive(error: LimiterError) -> None:
    """Keyword-only figures are no argument of `Exception`, and survive all the same."""
    for twin in twins(error):
        assert vars(twin) == vars(error) != {}
        assert isinstance(twin, type(error).__bases__[0])


def test_a_class_that_pickle_cannot_find_becomes_its_nearest_kin() -> None:
    """An error of a class that exists inside a function only arrives as the error that
    it is derived from; a copy in the same process keeps the class.
    """

    class Local(WouldBlock):
        pass

    error = Local("full", retry_after=3.0)

    assert type(pickle.loads(pickle.dumps(error))) is WouldBlock  # noqa: S301  # our own
    assert type(copy.copy(error)) is type(copy.deepcopy(error)) is Local


def _fail() -> None:
    raise of_the_sdk(WaitTimeout("late", retry_after=1.5))


def test_an_error_comes_out_of_a_worker_process() -> None:
    """`multiprocessing` hands on the error itself, not a complaint about pickling."""
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(openai.OpenAIError) as caught,
    ):
        pool.apply(_fail)

    assert isinstance(caught.value, WaitTimeout)
    assert caught.value.retry_after == 1.5


@pytest.mark.logs("something degraded")
def test_a_caution_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Where warnings are errors the sentence is logged, and the call goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors.caution("something degraded")

    assert caplog.messages == ["something degraded"]
