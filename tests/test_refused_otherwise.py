"""Refusals whose status is not 429: counted where their code or text is sure."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from ratelimit import RateLimiter
from ratelimit.feedback import read_error, read_refusal
from ratelimit.testing import ThreadClock

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
REFUSALS: list[tuple[int, dict[str, Any]]] = [
    (400, {"message": "slow", "code": "rate_limit_exceeded"}),
    (400, {"message": "slow", "code": "ThrottlingException"}),
    (403, {"message": "API rate limit exceeded for user 5"}),
    (403, {"message": "Rate limit exceeded: try again in 5s"}),
]
FAILURES: list[tuple[int, dict[str, Any]]] = [
    (400, {"message": "You exceeded your quota", "code": "insufficient_quota"}),
    (400, {"message": "max_tokens is too large", "type": "invalid_request_error"}),
    (400, {"message": 'Unknown tool "rate limit exceeded"'}),
    (400, {"message": "bad", "type": "tokens"}),
    (403, {"message": "You may not use this model"}),
]


def asked(status: int, error: dict[str, Any]) -> RateLimiter:
    """Ask a server that fails so, once, by a wrapped client."""
    limiter = RateLimiter(rpm=600, tpm=100_000, clock=ThreadClock())
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(
            status, json={"error": error}, headers={"x-ratelimit-limit-requests": "60"}
        )
    )
    client = limiter.wrap(httpx2.Client(transport=transport))
    response = client.post("http://x/v1/chat/completions", json=BODY)

    assert response.json() == {"error": error}
    assert limiter.statistics().families["*"].in_flight == 0
    return limiter


@pytest.mark.parametrize(("status", "error"), REFUSALS)
def test_a_refusal_with_another_status_is_counted_and_obeyed(
    status: int, error: dict[str, Any]
) -> None:
    """What the server says of a rate stops the queue, whatever number stands above."""
    family = asked(status, error).statistics().families["*"]

    assert family.refused == 1
    assert family.closed_for > 0
    assert read_error(error | {"status": status}) is not None


def test_a_tier_without_capacity_pauses_the_queue() -> None:
    """Groq's 498 means what a 503 means, and is no fault of the rate."""
    family = asked(498, {"message": "Flex tier capacity exceeded"}).statistics().families["*"]

    assert (family.refused, family.closed_for > 0) == (0, True)


@pytest.mark.parametrize(("status", "error"), FAILURES)
def test_a_bad_request_is_no_refusal(status: int, error: dict[str, Any]) -> None:
    """A pause for one's own mistake would stop all calls."""
    family = asked(status, error).statistics().families["*"]

    assert (family.refused, family.closed_for) == (0, 0)
    assert read_refusal(status, None, {"error": error}) is None


def test_the_headers_of_a_bad_request_are_read() -> None:
    """They show the limits as those of any other answer do."""
    read = asked(*FAILURES[1]).limits("gpt-4o")

    assert any(limit.amount == 60 for limit in read)
