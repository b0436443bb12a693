"""The context manager around a raw POST, for those who use aiohttp and no SDK: the
example of the documentation, run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI

BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 30,
}


async def ask(
    session: aiohttp.ClientSession, limiter: RateLimiter, url: str, body: Mapping[str, Any]
) -> Any:
    """The example: wait for the turn, post, tell the limiter what the headers and the
    usage say.
    """
    async with (
        limiter.reserve(body) as lease,
        session.post(f"{url}/chat/completions", json=body) as response,
    ):
        answer = await response.json()
        lease.observe(response.headers, status=response.status, body=answer)
        response.raise_for_status()
        lease.settle(answer)
        return answer


def play(server: FakeOpenAI, limiter: RateLimiter, calls: int, address: str = "") -> list[Any]:
    """Ask so many times at once; what was answered or raised."""

    async def main() -> list[Any]:
        with server.serve() as url:
            async with aiohttp.ClientSession(
                headers={"Authorization": "Bearer sk-test"}
            ) as session:
                return await asyncio.gather(
                    *(ask(session, limiter, address or url, BODY) for _ in range(calls)),
                    return_exceptions=True,
                )

    return asyncio.run(main())


def test_raw_posts_share_the_limits_with_everybody_else() -> None:
    """Sixty calls of aiohttp stay within a server's bucket of forty, and what they held
    in reserve comes back when it was not used.
    """
    server = FakeOpenAI(rpm=6_000, rps=40, tpm=100_000, latency=0.01, output=5, output_spread=0)
    # half of what the server allows: this machine's time on the wire has no say
    limiter = RateLimiter(rps=20, tpm=100_000, slack=0)
    answers = play(server, limiter, 60)
    family = limiter.statistics().families["*"]
    used = sum(answer["usage"]["total_tokens"] for answer in answers)

    assert len(server.ledger.refused) == 0
    assert (family.admitted, family.ended, family.refused) == (60, 60, 0)
    assert 100_000 - family.levels["tokens/60s"] <= used


def test_a_refusal_is_heard() -> None:
    """Where somebody else has spent the limit, the 429 is counted, raised by aiohttp,
    and closes the line for everybody.
    """
    server = FakeOpenAI(rpm=1, latency=0.01)
    limiter = RateLimiter(rpm=500)
    play(server, RateLimiter(), 1)

    async def main() -> None:
        with server.serve() as url:
            async with aiohttp.ClientSession() as session:
                await ask(session, RateLimiter(), url, BODY)
                with pytest.raises(aiohttp.ClientResponseError, match="429"):
                    await ask(session, limiter, url, BODY)

    asyncio.run(main())
    family = limiter.statistics().families["*"]

    assert (family.refused, family.in_flight) == (1, 0)
    assert family.closed_for > 30


def test_a_connection_that_failed_costs_nothing() -> None:
    """Nothing was sent, so the whole reserve comes back."""
    limiter = RateLimiter(rpm=500, tpm=30_000, slack=0)
    (error,) = play(FakeOpenAI(), limiter, 1, "http://127.0.0.1:9/v1")
    family = limiter.statistics().families["*"]

    assert isinstance(error, aiohttp.ClientConnectorError)
    assert (family.levels["requests/60s"], family.levels["tokens/60s"], family.in_flight) == (
        500,
        30_000,
        0,
    )
