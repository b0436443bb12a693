"""The connections belong to the given client, whatever becomes of its copies.

Over real HTTP on loopback.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

import ratelimit
from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI

ASK: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 20,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server whose answers take long enough to be in flight while copies go."""
    with FakeOpenAI(rpm=100_000, tpm=10_000_000, latency=0.15, output=10).serve() as base_url:
        yield base_url


def limiter() -> RateLimiter:
    """Limits that do not bind."""
    return RateLimiter(rpm=100_000, tpm=10_000_000)


def http_client(kind: str) -> Any:
    """Make the async HTTP client that a user passes, or None for the SDK's own."""
    kinds: dict[str, Any] = {
        "own": lambda: None,
        "httpx2": httpx2.AsyncClient,
        "httpx": httpx.AsyncClient,
        "aiohttp": openai.DefaultAioHttpClient,
    }
    return kinds[kind]()


@pytest.mark.parametrize("kind", ["own", "httpx2", "httpx", "aiohttp"])
def test_a_forgotten_async_copy_closes_nothing(url: str, kind: str) -> None:
    """Calls of the given client that are in flight go on while copies of it are made,
    used and collected.
    """

    async def main() -> int:
        base = openai.AsyncOpenAI(
            base_url=url, api_key="x", max_retries=0, http_client=http_client(kind)
        )
        await base.chat.completions.create(**ASK)
        in_flight = [asyncio.ensure_future(base.chat.completions.create(**ASK)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for _ in range(3):
            limiter().wrap(base)
            await limiter().wrap(base).models.list()
            gc.collect()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*in_flight)
        answers.append(await base.chat.completions.create(**ASK))
        await base.close()
        return len(answers)

    assert asyncio.run(main()) == 5


def test_a_forgotten_sync_copy_closes_nothing(url: str) -> None:
    """A stream that the given client is reading goes on."""
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as base:
        stream = base.chat.completions.create(**ASK, stream=True)
        next(stream)
        for _ in range(3):
            limiter().wrap(base).models.list()
            gc.collect()

        assert len(list(stream)) > 1
        assert base.chat.completions.create(**ASK).choices


def test_a_copy_that_is_closed_leaves_the_given_client_alone(url: str) -> None:
    """A `with` block around a copy ends the copy, and no stream of the given client."""
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as base:
        stream = base.chat.completions.create(**ASK, stream=True)
        next(stream)
        with limiter().wrap(base) as copied:
            copied.models.list()
        with limiter().wrap(base.with_options(timeout=5)) as of_copy:
            of_copy.models.list()

        assert copied.is_closed()
        assert not base.is_closed()
        assert len(list(stream)) > 1


def test_a_copy_that_is_closed_leaves_the_given_async_client_alone(url: str) -> None:
    """The same for async clients, with a call in flight."""

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as base:
            in_flight = asyncio.ensure_future(base.chat.completions.create(**ASK))
            await asyncio.sleep(0.05)
            async with limiter().wrap(base) as copied:
                await copied.models.list()

            assert (await in_flight).choices
            assert not base.is_closed()

    asyncio.run(main())


def test_two_runs_share_a_client(url: str) -> None:
    """A run that ends does not end the calls of another one."""

    async def one(client: openai.AsyncOpenAI, calls: int) -> int:
        requests = [{"body": ASK, "url": "/v1/chat/completions"} for _ in range(calls)]
        run = ratelimit.run(requests, client, limiter(), concurrency=4)
        results = [result async for result in run]
        await asyncio.sleep(0.05)  # the other run's next calls are in flight
        del run
        gc.collect()
        return sum(result.ok for result in results)

    async def main() -> list[int]:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
            return list(await asyncio.gather(one(client, 1), one(client, 12)))

    assert asyncio.run(main()) == [1, 12]


@pytest.mark.parametrize("wraps", [1, 2])
def test_a_copy_without_its_given_client_closes_the_connections(wraps: int) -> None:
    """`limiter.wrap(OpenAI())` is closed as `OpenAI()` is, through every copy."""
    closed: list[int] = []

    class Counting(httpx2.HTTPTransport):
        def close(self) -> None:
            closed.append(1)
            super().close()

    client = openai.OpenAI(
        base_url="http://127.0.0.1:9/v1",
        api_key="x",
        http_client=httpx2.Client(transport=Counting()),
    )
    for _ in range(wraps):
        client = limiter().wrap(client)
    client.close()

    assert closed == [1]


def test_a_client_that_was_used_can_be_wrapped_and_entered() -> None:
    """An HTTP client may be entered once; its copy has not been yet."""
    handled = httpx2.MockTransport(lambda _: httpx2.Response(200, json={}))
    with httpx2.Client(transport=handled) as given:
        given.get("http://x")
        with limiter().wrap(given) as wrapped:
            assert wrapped.get("http://x").status_code == 200

        assert given.get("http://x").status_code == 200


def test_cookies_and_hooks_of_a_copy_are_its_own() -> None:
    """What the copy is sent, and what is hooked into it, does not show in the given
    client.
    """
    handled = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"set-cookie": "a=b"}))
    given = httpx2.Client(transport=handled, cookies={"mine": "1"})
    wrapped = limiter().wrap(given)
    wrapped.event_hooks["request"].append(lambda _: None)
    wrapped.get("http://x")

    assert dict(wrapped.cookies) == {"mine": "1", "a": "b"}
    assert dict(given.cookies) == {"mine": "1"}
    assert given.event_hooks["request"] == []
