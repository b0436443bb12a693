"""A lease of the decorator whose first HTTP attempt failed: the retry pays with its
own, and the answer's usage is not charged twice.
"""

from __future__ import annotations

from typing import Literal

import anyio
import anyio.lowlevel
import httpx2
import pytest
from openai import AsyncOpenAI

from ratelimit import Limit, Limits, RateLimiter
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import VirtualClock


@pytest.mark.parametrize("fault", ["500", "429"])
def test_a_retried_call_through_decorator_and_wrap_pays_its_bill_once(
    fault: Literal["500", "429"],
) -> None:
    """Usage of the second attempt settles the second attempt's lease only; the first
    keeps what its own failure says.
    """
    clock = VirtualClock()
    server = FakeOpenAI(rpm=10_000, tpm=1_000_000, output=50)
    server.inject(fault, count=1)
    # refills nothing
    limiter = RateLimiter(
        limits=Limits(Limit("tokens", 1_000_000, per=1e12)), arrival_slack=0, clock=clock
    )

    async def main() -> int:
        client = limiter.wrap(
            AsyncOpenAI(
                base_url="http://fake/v1",
                api_key="any",
                http_client=httpx2.AsyncClient(transport=server.transport()),
            )
        )

        @limiter
        async def ask(**request: object) -> object:
            return await client.chat.completions.create(**request)  # type: ignore[call-overload]

        answer = await ask(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=100
        )
        await anyio.lowlevel.checkpoint()
        return int(answer.usage.total_tokens)  # type: ignore[attr-defined]

    usage = clock.run(main)
    (level,) = limiter.statistics().families["*"].levels.values()
    reserve = limiter.estimate(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=100
    )
    first = reserve.prompt_tokens + 100  # an attempt that failed keeps its reserve
    assert [entry.status for entry in server.ledger] == [int(fault), 200]
    assert abs(1_000_000 - level - (first + usage)) <= 2
