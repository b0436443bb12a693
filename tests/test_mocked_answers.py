"""Mocks, and proxies that answer any name, cost a call a few looks and no more."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from ratelimit import InvalidArgument, RateLimiter
from ratelimit.testing import ThreadClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}


class Remote:
    """Makes another one for any name, as proxies of objects elsewhere do."""

    looks = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        Remote.looks += 1
        return Remote()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(Mock, marks=pytest.mark.logs("returned no usage")), MagicMock, AsyncMock],
)
def test_a_mock_makes_no_attribute_that_a_test_has_not_asked_for(kind: type[Mock]) -> None:
    """Each would take a millisecond, and there are hundreds of names to look for."""
    limiter = RateLimiter(rpm=60, tpm=60_000, clock=ThreadClock())
    answer = kind()

    @limiter
    def asked(**_body: Any) -> Any:
        return answer

    asked(**BODY)
    with pytest.raises(InvalidArgument, match="no usage"):
        limiter.acquire_sync(tokens=1).settle(answer)

    made = {name for name in answer._mock_children if not name.startswith("__")}
    assert made == set()


@pytest.mark.parametrize("kind", [Mock, MagicMock, AsyncMock])
def test_what_a_test_has_set_on_a_mock_settles(kind: type[Mock]) -> None:
    """A test of a user's code sees the levels that the real answer would leave."""
    limiter = RateLimiter(rpm=60, tpm=60_000, clock=ThreadClock())
    answer = kind()
    answer.usage.prompt_tokens, answer.usage.completion_tokens = 5, 7
    lease = limiter.acquire_sync(tokens=100)

    lease.settle(answer)

    assert lease.cost["tokens"] == 12


@pytest.mark.logs("returned no usage")
def test_a_proxy_that_answers_any_name_is_looked_at_a_few_times() -> None:
    """It wraps whatever it is asked for, so its wrappers are not followed."""
    limiter = RateLimiter(rpm=60, tpm=60_000, clock=ThreadClock())

    @limiter
    def asked(**_body: Any) -> Any:
        return Remote()

    Remote.looks = 0

    asked(**BODY)

    assert Remote.looks < 200
