"""The promises against a server that enforces: FakeOpenAI in virtual time, with the
real client in front of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import Limit, Limits, RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

CALLS = 80
LATENCY = Latency(base=0.3, per_token=0.005, spread=0.5)


def ask_all(
    server: FakeOpenAI, limiter: RateLimiter, clock: VirtualClock, *, door: str, calls: int = CALLS
) -> tuple[int, int]:
    """Ask everything at once; return how many were answered and how many raised a
    429.
    """

    async def main() -> tuple[int, int]:
        http = httpx2.AsyncClient(transport=server.transport())
        client = openai.AsyncOpenAI(
            base_url="http://fake/v1", api_key="x", max_retries=0, http_client=http
        )
        client = limiter.wrap(client) if door == "wrap" else client

        async def create(**request: Any) -> Any:
            return await client.chat.completions.create(**request)

        ask = limiter(create) if door == "decorator" else create

        async def one(number: int) -> bool:
            body = {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": "word " * (number % 40 + 1)}],
                "max_tokens": 300,
            }
            try:
                await ask(**body)
            except openai.RateLimitError:
                return False
            return True

        answered = await asyncio.gather(*(one(number) for number in range(calls)))
        return sum(answered), len(answered) - sum(answered)

    return clock.run(main)


@pytest.mark.parametrize("door", ["wrap", "decorator"])
@pytest.mark.parametrize("variant", ["P", "I", "A"])
def test_a_server_with_our_limits_refuses_nothing(variant: str, door: str) -> None:
    """Everything is answered, nothing is refused, and it does not take longer than the
    limits make it.
    """
    clock = VirtualClock()
    server = FakeOpenAI(
        variant,
        rpm=500,
        tpm=10_000,
        latency=LATENCY,
        output=150,
        seed=1,
        count_prompt=lambda *_: 30,
    )
    limits = Limits(Limit("requests", 500), Limit("tokens", 10_000))
    limiter = RateLimiter(
        limits=limits, accounting="never_refund" if variant == "A" else "reconcile", clock=clock
    )

    answered, refused = ask_all(server, limiter, clock, door=door)

    assert (answered, refused) == (CALLS, 0)
    assert limiter.statistics().refused == len(server.ledger.refused) == 0
    assert limiter.statistics().families["*"].in_flight == 0
    assert clock.now() < 600


@pytest.mark.parametrize("door", ["wrap", "decorator"])
def test_every_refusal_is_counted_and_shown(door: str) -> None:
    """Where the server allows less than we were told, each 429 that happens is in the
    statistics: no more, no less, none hidden.
    """
    clock = VirtualClock()
    server = FakeOpenAI(
        "I", rpm=20, tpm=100_000, latency=LATENCY, seed=1, count_prompt=lambda *_: 30
    )
    limiter = RateLimiter(rpm=60, tpm=100_000, clock=clock)

    answered, refused = ask_all(server, limiter, clock, door=door, calls=60)

    assert answered + refused == 60
    assert limiter.statistics().refused == len(server.ledger.refused) == refused
    assert limiter.statistics().families["*"].in_flight == 0
    assert refused > 0 or door == "wrap"
