"""Values of foreign classes, which may raise whatever is asked of them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ratelimit import RateLimiter
from ratelimit.feedback import (
    Outcome,
    StreamUsage,
    Usage,
    read_error,
    read_error_answer,
    read_exception,
    read_headers,
    read_refusal,
    read_response,
    read_usage,
)
from ratelimit.feedback.failures import refusal_among
from ratelimit.testing import ThreadClock


class Hostile:
    """Raises in every question that Python has."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __eq__(self, other: object) -> bool:
        raise ValueError("cannot be compared")

    def __len__(self) -> int:
        raise ValueError("has no length")

    __hash__ = None  # type: ignore[assignment]  # as of an array


VALUES: list[Any] = [np.array([0.1, 0.2]), np.array(["a", "b"]), Hostile()]
NAMES = (
    *("error", "code", "type", "object", "status", "status_code", "message", "errors", "detail"),
    *("base_resp", "success", "choices", "data", "output", "text", "content", "headers", "body"),
    *("usage", "response", "delta", "finish_reason", "candidates", "embeddings"),
)


class Holder(Exception):
    """An answer, an error or an exception with one such value."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__()
        setattr(self, name, value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_value_without_a_truth_is_read(name: str, value: Any) -> None:
    """An array raises when it is asked whether it is true, or equal to something."""
    deep = {"choices": [{name: value, "message": {name: value}, "delta": {name: value}}]}
    for answer in ({name: value}, deep, {"error": {name: value}}, Holder(name, value), value):
        stream = StreamUsage()
        stream.feed(answer)

        assert read_usage(answer) is None
        assert read_error_answer(answer) in {None, Outcome("unknown")}
        assert read_error(answer) is None
        assert read_response(answer) is None
        assert refusal_among((answer,)) is None
        assert stream.usage is None
        assert read_refusal(429, {"retry-after": value}, answer) is not None
        assert read_refusal(value, {}, answer) is None
    assert read_exception(Holder(name, value)) == Outcome("unknown")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_embedding_is_an_answer(value: Any) -> None:
    """What a function makes of the server's answer holds something generated."""
    assert read_error_answer({"data": value, "error": {"code": 500}}) is None
    assert read_error_answer({"embeddings": value, "message": "done", "code": 429}) is None


class Unhashable:
    """Raises when a dictionary asks for its hash."""

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@pytest.mark.parametrize("name", [Hostile(), Unhashable(), np.array([1, 2]), 5, None, ("a", "b")])
def test_a_header_that_is_none_is_left_out(name: Any) -> None:
    """Those beside it count."""
    headers: Any = [(name, "1"), ("x-ratelimit-limit-requests", "60"), ("retry-after", "3")]
    refusal = read_refusal(429, headers, b"")

    assert [reading.limit for reading in read_headers(headers)] == [60]
    assert refusal is not None
    assert refusal.wait == 3


def test_an_embedding_that_is_returned_settles_by_its_usage() -> None:
    """A decorated function may put its answer into any form."""
    limiter = RateLimiter(tpm=1_000, arrival_slack=0, clock=ThreadClock())

    @limiter
    def embed(**_body: Any) -> Any:
        return {"data": np.zeros(3), "usage": {"prompt_tokens": 9, "total_tokens": 9}}

    embed(model="text-embedding-3-small", input="a text")

    assert limiter.statistics().families["*"].levels["tokens/60s"] == pytest.approx(991, abs=1)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float32, np.float64, Decimal, Fraction])
def test_counts_of_foreign_numbers_are_counts(kind: Any) -> None:
    """A sum made by an array library is a number of its own kind."""
    counts = {"prompt_tokens": kind(9), "completion_tokens": kind(3)}

    assert read_usage({"usage": counts}) == Usage(9, 3, 12)


@pytest.mark.parametrize("value", [Decimal("sNaN"), Decimal("NaN"), Fraction(10**400), np.nan])
def test_a_foreign_number_that_cannot_be_is_no_count(value: Any) -> None:
    """The reserve of its call stays."""
    assert read_usage({"usage": {"prompt_tokens": value, "completion_tokens": 3}}) is None
