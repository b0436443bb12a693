"""Any JSON in any place, and what is no JSON: the estimator answers, keeps its
promises, and repeats no warning.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from ratelimit.estimate import Estimator
from tests.estimate_bodies import Sentinel, bodies

BODIES = 6_000


def test_any_request_has_an_estimate() -> None:
    """20,000 requests, broken in every way, are each read, cost a sane amount, and no
    warning comes twice.
    """
    estimator = Estimator()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index, (body, endpoint) in enumerate(bodies(BODIES)):
            result = estimator.estimate(body, endpoint=endpoint, site=str(index % 50))
            amounts = (
                result.prompt_tokens,
                result.output_tokens,
                result.charge,
                result.images,
                result.choices,
            )
            assert all(type(amount) is int and amount >= 0 for amount in amounts), (
                index,
                body,
                result,
            )
            assert result.max_output_tokens is None or result.max_output_tokens >= 0, (
                index,
                body,
                result,
            )
            assert estimator.needs_thread(body) in (True, False)
            estimator.learn(result, prompt_tokens=index % 700, output_tokens=index % 90)

    said = [str(warning.message) for warning in caught]
    assert len(said) == len(set(said)) <= 20
    assert not [
        kind for kind in estimator.statistics().warnings if kind.startswith("unreadable")
    ], said


def test_an_estimate_leaves_the_request_alone() -> None:
    """What is estimated is what will be sent: no body is changed by looking at it, no
    generator in it is read.
    """
    estimator = Estimator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for body, endpoint in bodies(1_000, seed=7):
            before = repr(body)
            estimator.estimate(body, endpoint=endpoint)
            estimator.needs_thread(body)
            assert repr(body) == before

        pieces = (piece for piece in "abc")
        estimator.estimate({"model": "gpt-4o", "messages": pieces})
        assert list(pieces) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "request_",
    [None, 1, "text", b"x", [], [{}], (), object(), Sentinel(), {1: 2}, str, Exception("x")],
)
def test_what_is_no_request_has_an_estimate(request_: object) -> None:
    """Anything at all in the place of a request is a guess, not an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Estimator().estimate(request_).prompt_tokens >= 0


@pytest.mark.parametrize("levels", [100, 1_000, 100_000])
def test_a_bottomless_body_has_an_estimate(levels: int) -> None:
    """Nesting beyond what Python can follow is a guess, not an exception, wherever it
    stands.
    """
    deep: Any = "x"
    schema: Any = {"type": "string"}
    for _ in range(levels):
        deep, schema = [deep], {"type": "object", "properties": {"a": schema}}
    function = {"type": "function", "function": {"name": "a", "parameters": schema}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for body in (
            {"messages": deep},
            {"messages": [{"role": "user", "content": deep}]},
            {"messages": [], "tools": [function]},
            {
                "messages": [],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": schema},
                },
            },
            {"input": deep},
            {
                "input": "a",
                "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}},
            },
            {"model": "text-embedding-3-small", "input": deep},
            {"prompt": deep},
        ):
            assert Estimator().estimate(body).prompt_tokens >= 0


def test_a_body_that_holds_itself_has_an_estimate() -> None:
    """A circle, which no JSON can be but a Python object can, ends."""
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [], "tools": []}
    body["messages"].append({"role": "user", "content": body["messages"]})
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"]["itself"] = schema
    body["tools"].append({"type": "function", "function": {"name": "a", "parameters": schema}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Estimator().estimate(body).prompt_tokens >= 0
