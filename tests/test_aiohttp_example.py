"""The context manager around a raw POST of aiohttp: the documented example, run.

Owns the example, and a web server of aiohttp before the fake server, in the loop and
the virtual time of the test. Must never wait in real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI, VirtualClock

pytestmark = pytest.mark.usefixtures("vocabulary")

BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 30,
}


async def ask(
    session: aiohttp.ClientSession, limiter: RateLimiter, url: str, body: Mapping[str, Any]
) -> Any:
    """Wait for the turn, post, and pass on the headers and the usage, as documented."""
    async with (
        limiter.reserve(body) as lease,
        session.post(f"{url}/chat/completions", json=body) as response,
    ):
        answer = await response.json()
        lease.observe(response.headers, status=response.status, body=answer)
        response.raise_for_status()
        lease.settle(answer)
        return answer


@asynccontextmanager
async def serving(server: FakeOpenAI) -> AsyncIterator[str]:
    """Serve the fake server on loopback from the running loop; yield its base URL."""
    async with httpx2.AsyncClient(transport=server.transport(), base_url="http://fake") as inner:

        async def forward(request: web.Request) -> web.Response:
            answer = await inner.request(
                request.method, request.path, content=await request.read(), headers=request.headers
            )
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name not in {"content-length", "transfer-encoding"}
            }
            return web.Response(body=answer.content, status=answer.status_code, headers=kept)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        async with TestServer(app) as http:
            yield str(http.make_url("/v1"))


def new_clock() -> VirtualClock:
    """Return a clock that trusts loopback: client and server share one loop."""
    return VirtualClock(grace=0.001)


def play(
    clock: VirtualClock, server: FakeOpenAI, *batches: tuple[RateLimiter, int], url: str = ""
) -> list[Any]:
    """Ask as often as each batch says, batch after batch; return answers and errors."""

    async def main() -> list[Any]:
        async with (
            serving(server) as base_url,
            aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test"}) as session,
        ):
            return [
                outcome
                for limiter, calls in batches
                for outcome in await asyncio.gather(
                    *(ask(session, limiter, url or base_url, BODY) for _ in range(calls)),
                    return_exceptions=True,
                )
            ]

    return clock.run(main)


def test_raw_posts_stay_within_the_limits() -> None:
    """Sixty calls of aiohttp pass a server's bucket of forty a second, none is refused,
    and what they reserved in vain comes back.
    """
    clock = new_clock()
    server = FakeOpenAI(rpm=6_000, rps=40, tpm=100_000, latency=0.01, output=5, output_spread=0)
    limiter = RateLimiter(rps=40, tpm=100_000, arrival_slack=0, clock=clock)

    answers = play(clock, server, (limiter, 60))
    family = limiter.statistics().families["*"]
    used = sum(answer["usage"]["total_tokens"] for answer in answers)

    assert len(server.ledger.refused) == 0
    assert (family.admitted, family.ended, family.refused) == (60, 60, 0)
    assert 100_000 - family.levels["tokens/60s"] <= used


def test_a_refusal_closes_the_queue() -> None:
    """Where another client has spent the limit, the 429 is counted, raised by aiohttp,
    and pauses the queue for everybody.
    """
    clock = new_clock()
    server = FakeOpenAI(rpm=1, latency=0.01)
    limiter = RateLimiter(rpm=500, clock=clock)

    answer, error = play(clock, server, (RateLimiter(clock=clock), 1), (limiter, 1))
    family = limiter.statistics().families["*"]

    assert answer["usage"]
    assert isinstance(error, aiohttp.ClientResponseError)
    assert error.status == 429
    assert (family.refused, family.in_flight) == (1, 0)
    assert family.closed_for == pytest.approx(60, abs=1)


def test_a_connection_that_failed_costs_nothing() -> None:
    """Nothing was sent, so the whole reserve comes back."""
    clock = new_clock()
    limiter = RateLimiter(rpm=500, tpm=30_000, arrival_slack=0, clock=clock)

    (error,) = play(clock, FakeOpenAI(), (limiter, 1), url="http://127.0.0.1:9/v1")
    family = limiter.statistics().families["*"]

    assert isinstance(error, aiohttp.ClientConnectorError)
    assert family.in_flight == 0
    assert family.levels == {"requests/60s": 500, "tokens/60s": 30_000}
