"""Promises 5 and 8: every 429 is counted once, and a client stays the user's."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import VirtualClock

pytestmark = pytest.mark.usefixtures("vocabulary")

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 5,
}
REFUSED = httpx2.Response(
    429,
    json={"error": {"message": "Slower, please.", "type": "requests", "code": None}},
    headers={"retry-after": "1"},
    request=httpx2.Request("POST", "http://fake/v1/chat/completions"),
)


class Closable(httpx2.AsyncBaseTransport):
    """A transport that answers nothing any more once it is closed."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self.inner = inner
        self.closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert not self.closed
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        self.closed = True


def client_of(fake: FakeOpenAI) -> AsyncOpenAI:
    """Return a client of the fake server that tries nothing again."""
    http = httpx2.AsyncClient(transport=Closable(fake.transport()))
    return AsyncOpenAI(
        base_url="http://fake/v1", api_key="any", http_client=http, max_retries=0, timeout=1e6
    )


async def raised(limiter: RateLimiter, _: FakeOpenAI) -> None:
    """A function raises the SDK's error."""

    @limiter.limit(request=lambda: BODY)
    async def ask() -> object:
        raise openai.RateLimitError("Slower.", response=REFUSED, body=None)

    with pytest.raises(openai.RateLimitError):
        await ask()


async def returned(limiter: RateLimiter, _: FakeOpenAI) -> None:
    """A function returns the refusal as a response."""

    @limiter.limit(request=lambda: BODY)
    async def ask() -> httpx2.Response:
        return REFUSED

    await ask()


async def observed(limiter: RateLimiter, _: FakeOpenAI) -> None:
    """A context manager is given the status."""
    async with limiter.reserve(BODY) as lease:
        lease.observe(REFUSED.headers, status=429, body=REFUSED.content)


async def answered(limiter: RateLimiter, fake: FakeOpenAI) -> None:
    """A wrapped client is refused."""
    fake.inject("429", count=1)
    with pytest.raises(openai.RateLimitError):
        await limiter.wrap(client_of(fake)).chat.completions.create(**BODY)


async def inside_a_success(limiter: RateLimiter, fake: FakeOpenAI) -> None:
    """A wrapped client gets a 200 with an error in its body."""
    fake.inject("error_200", count=1, code=429)
    await limiter.wrap(client_of(fake)).chat.completions.create(**BODY)


async def nested(limiter: RateLimiter, _: FakeOpenAI) -> None:
    """It passes two functions, the outer of which makes an error of its own of it."""

    @limiter.limit(request=lambda: BODY)
    async def inner() -> object:
        raise openai.RateLimitError("Slower.", response=REFUSED, body=None)

    @limiter.limit(request=lambda: BODY)
    async def outer() -> object:
        try:
            return await inner()
        except openai.RateLimitError as error:
            raise RuntimeError("no answer") from error

    with pytest.raises(RuntimeError):
        await outer()


async def answered_inside(limiter: RateLimiter, fake: FakeOpenAI) -> None:
    """A wrapped client is refused a call that is none of the function around it."""
    fake.inject("429", count=1)

    @limiter.limit(request=lambda: BODY)
    async def ask() -> object:
        client = limiter.wrap(client_of(fake))
        return await client.chat.completions.create(**{**BODY, "model": "gpt-4o-mini"})

    with pytest.raises(openai.RateLimitError):
        await ask()


WAYS: list[Callable[[RateLimiter, FakeOpenAI], Any]] = [
    raised,
    returned,
    observed,
    answered,
    inside_a_success,
    nested,
    answered_inside,
]


@given(st.lists(st.sampled_from(WAYS), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_every_429_is_counted_once_and_pauses_the_queue(ways: list[Any]) -> None:
    """Raised, returned, observed, answered, or inside a success, in any order."""
    clock = VirtualClock()
    limiter = RateLimiter(rpm=600, tpm=600_000, clock=clock)
    fake = FakeOpenAI(rpm=600, tpm=600_000)

    async def main() -> None:
        for count, way in enumerate(ways, 1):
            await way(limiter, fake)
            statistics = limiter.statistics()
            assert statistics.refused == count
            assert statistics.families["*"].closed_for > 0
            assert statistics.in_flight == 0
            await asyncio.sleep(100)

    clock.run(main)


COPIES = st.lists(
    st.sampled_from(["wrap", "forget", "options", "close", "call", "call a copy"]),
    min_size=1,
    max_size=10,
)


@given(COPIES)
@settings(max_examples=40, deadline=None)
def test_the_given_client_answers_whatever_becomes_of_its_copies(steps: list[str]) -> None:
    """Wrapped, forgotten, closed or configured anew: the client stays the user's."""
    clock = VirtualClock()
    limiter = RateLimiter(rpm=600, tpm=600_000, clock=clock)
    fake = FakeOpenAI(rpm=600, tpm=600_000)

    async def main() -> None:
        given_one = client_of(fake)
        copies: list[AsyncOpenAI] = []
        for step in steps:
            if step == "wrap":
                copies.append(limiter.wrap(given_one))
            elif step == "options" and copies:
                copies.append(copies[-1].with_options(timeout=5e5))
            elif step == "forget" and copies:
                copies.pop()
                gc.collect()
            elif step == "close" and copies:
                await copies.pop().close()
            elif step == "call a copy" and copies:
                await copies[-1].chat.completions.create(**BODY)
            else:
                await given_one.chat.completions.create(**BODY)
        assert not given_one.is_closed()
        answer = await given_one.chat.completions.create(**BODY)
        assert answer.choices

    clock.run(main)
