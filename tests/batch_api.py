"""The API that tests of `ratelimit.run` ask: invented answers in the loop's own time,
and the real client before it.

Owns no expectation and no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
from openai import AsyncOpenAI

import ratelimit
from ratelimit import RateLimiter
from ratelimit.batch import Result
from ratelimit.testing.clocks import TrioClock, VirtualClock

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]

ANSWER = {
    "object": "chat.completion",
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
}
Reply = Callable[[int], httpx2.Response]


class Api(httpx2.AsyncBaseTransport):
    """Answers after `seconds` of the loop's time; `reply(number)` may answer or raise
    in another way.
    """

    def __init__(self, seconds: float = 1.0, reply: Reply | None = None) -> None:
        self.seconds = seconds
        self.reply = reply
        self.requests: list[httpx2.Request] = []
        self.times: list[float] = []
        self.running = self.most = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        number = len(self.requests)
        self.requests.append(request)
        self.times.append(anyio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.running -= 1
        return self.reply(number) if self.reply else good(number)


def good(number: int) -> httpx2.Response:
    """A good answer."""
    return httpx2.Response(
        200, json=ANSWER | {"id": f"chatcmpl-{number}"}, headers={"x-request-id": f"req_{number}"}
    )


def bad(status: int, code: str, message: str = "no") -> httpx2.Response:
    """An HTTP error."""
    return httpx2.Response(
        status, json={"error": {"message": message, "type": code, "param": None, "code": code}}
    )


def client_of(api: Api, retries: int = 0) -> AsyncOpenAI:
    """The real client before an invented API."""
    return AsyncOpenAI(
        api_key="sk-test",
        base_url="http://api/v1",
        max_retries=retries,
        http_client=httpx2.AsyncClient(transport=api),
    )


def bodies(count: int) -> Iterator[dict[str, Any]]:
    """Make `count` request bodies."""
    for number in range(count):
        yield {
            "model": "gpt-4o",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": f"Say {number}."}],
        }


def play(
    loop_clock: LoopClock,
    api: Api,
    requests: Any,
    retries: int = 0,
    concurrency: int | None = None,
    **limits: Any,
) -> list[Result]:
    """Run to the end and return the results."""
    clock = loop_clock()

    async def main() -> list[Result]:
        limiter = RateLimiter(clock=clock, **limits)
        async with (
            client_of(api, retries) as client,
            aclosing(ratelimit.run(requests, client, limiter, concurrency=concurrency)) as results,
        ):
            return [result async for result in results]

    return clock.run(main)
