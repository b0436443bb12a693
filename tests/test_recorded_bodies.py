"""Calls shaped like recorded ones - pictures, files, long answers - against a server
that settles to the usage: none of them may bring a 429.

The bodies are invented; what they have in common with recorded ones is how far apart
estimate, charge and bill are.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

EVEN = Latency(base=0.3, per_token=0.0, spread=0.0, jitter=(0.02, 0.02))
REFILL = 30_000 / 60 * EVEN.jitter[1] + 1.5
"""Tokens that refill while a request travels, and what headers cut off."""


def client_of(
    server: FakeOpenAI, limiter: RateLimiter, transport: httpx2.AsyncBaseTransport | None = None
) -> openai.AsyncOpenAI:
    """A wrapped client that never retries, so that each 429 is an error."""
    http = httpx2.AsyncClient(transport=transport or server.transport(), timeout=None)
    bare = openai.AsyncOpenAI(
        base_url="http://fake/v1", api_key="any", http_client=http, max_retries=0
    )
    return limiter.wrap(bare)


def billed(prompt: int, output: int) -> dict[str, str]:
    """The header that tells the fake server what to bill."""
    return {"x-fake-usage": json.dumps({"prompt_tokens": prompt, "completion_tokens": output})}


def text(prompt: int, output: int) -> dict[str, Any]:
    """A chat call that is charged far less on arrival than it is billed."""
    message = {"role": "user", "content": "Name a colour. " * 2}
    return {
        "model": "gpt-4o",
        "messages": [message],
        "max_tokens": 200,
        "extra_headers": billed(prompt, output),
    }


def test_answers_longer_than_the_charge_do_not_look_like_a_server_that_keeps_it() -> None:
    """A full bucket lends its slack, and the headers give that back: no sign that the
    server keeps its charge for good, though a few bills were above theirs.
    """
    clock = VirtualClock()
    server = FakeOpenAI("P", rpm=5_000, tpm=30_000, latency=EVEN)
    limiter = RateLimiter(rpm=5_000, tpm=30_000, clock=clock)

    async def main() -> None:
        client = client_of(server, limiter)
        for wave in (1, 12, 1, 400, 400):
            calls = [client.chat.completions.create(**text(12, 140)) for _ in range(wave)]
            await asyncio.gather(*calls, return_exceptions=True)

    clock.run(main)

    assert [entry.reason for entry in server.ledger.refused] == []


def test_the_first_answer_lowers_our_level_to_the_servers() -> None:
    """What the first call has reserved for its answer comes back at its end, and is no
    reason to leave our level higher than the headers show.
    """
    clock = VirtualClock()
    server = FakeOpenAI("P", rpm=500, tpm=30_000, latency=EVEN, level=0.04)
    limiter = RateLimiter(rpm=500, tpm=30_000, clock=clock)

    async def main() -> tuple[float, float]:
        client = client_of(server, limiter)
        await client.chat.completions.create(**text(12, 5))
        levels = limiter.statistics().families["*"].levels
        return levels["tokens/60s"], server.levels()["org-fake/tpm"]

    ours, theirs = clock.run(main)

    assert ours <= theirs + REFILL


def test_a_charge_estimated_too_high_is_given_back_once() -> None:
    """What the headers of a call have given back of its charge, its settlement does not
    give back again: our level is above the server's by no more than what refills while
    a request travels.
    """
    clock = VirtualClock()
    server = FakeOpenAI("P", rpm=500, tpm=30_000, latency=EVEN, level=0.5)
    limiter = RateLimiter(rpm=500, tpm=30_000, clock=clock)
    content = "data:application/pdf;base64," + "AAAA" * 2_000
    part: Any = {"type": "input_file", "filename": "a.pdf", "file_data": content}
    question: Any = {"type": "input_text", "text": "What does it say?"}

    async def main() -> tuple[float, float]:
        client = client_of(server, limiter)
        await client.chat.completions.create(**text(12, 140))
        for _ in range(3):
            await client.responses.create(
                model="gpt-4o",
                input=[{"role": "user", "content": [part, question]}],
                extra_headers=billed(40, 10),
            )
        levels = limiter.statistics().families["*"].levels
        return levels["tokens/60s"], server.levels()["org-fake/tpm"]

    ours, theirs = clock.run(main)

    assert ours <= theirs + REFILL


def test_reserves_kept_by_cancelled_calls_do_not_look_like_a_server_that_keeps_its_charge() -> None:
    """Calls that end without usage keep their reserve, and the headers give it back:
    no sign that the server never settles.
    """
    clock = VirtualClock()
    server = FakeOpenAI("P", rpm=5_000, tpm=30_000, latency=EVEN)
    limiter = RateLimiter(rpm=5_000, tpm=30_000, clock=clock)

    async def main() -> None:
        client = client_of(server, limiter)
        await client.chat.completions.create(**text(12, 140))
        for _ in range(16):
            cut = client.chat.completions.create(**text(12, 140) | {"max_tokens": 1_500})
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cut, 0.1)
        for wave in (1, 1, 105, 1, 1, 1, 100, 400):
            calls = [client.chat.completions.create(**text(12, 140)) for _ in range(wave)]
            await asyncio.gather(*calls, return_exceptions=True)

    clock.run(main)

    assert [entry.reason for entry in server.ledger.refused] == []


def test_a_refusal_takes_back_that_the_server_keeps_its_charge() -> None:
    """A server that kept its charge and settles from now on refuses calls of one wave,
    not of every wave that comes after it.
    """
    clock = VirtualClock()
    keeps = FakeOpenAI("I", rpm=5_000, tpm=30_000, latency=EVEN)
    settles = FakeOpenAI("P", rpm=5_000, tpm=30_000, latency=EVEN)
    serving = {"now": keeps.transport(), "then": settles.transport()}
    limiter = RateLimiter(rpm=5_000, tpm=30_000, clock=clock)

    class Switch(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return await serving["now"].handle_async_request(request)

    async def main() -> int:
        client = client_of(keeps, limiter, Switch())

        async def waves(count: int, size: int) -> None:
            for _ in range(count):
                calls = [client.chat.completions.create(**text(12, 140)) for _ in range(size)]
                await asyncio.gather(*calls, return_exceptions=True)

        for size in (1, 105, 1, 1, 105, 1, 1):
            await waves(1, size)
        serving["now"] = serving["then"]
        await waves(1, 400)
        await waves(5, 60)
        before = len(settles.ledger.refused)
        await waves(5, 60)
        return before

    before = clock.run(main)

    assert not keeps.ledger.refused
    assert len(settles.ledger.refused) == before > 0


@pytest.mark.parametrize("burst", [1 / 60, 0.1, 0.5])
def test_a_small_burst_is_kept_while_the_server_has_more(burst: float) -> None:
    """Headers that show more than our burst let nothing go beyond burst and rate."""
    clock = VirtualClock()
    server = FakeOpenAI("P", rpm=5_000, tpm=30_000, latency=EVEN)
    limiter = RateLimiter(rpm=5_000, tpm=30_000, burst_share=burst, clock=clock)

    async def main() -> None:
        client = client_of(server, limiter)
        for _ in range(200):
            await client.chat.completions.create(**text(100, 100))

    clock.run(main)
    used = 200 * 200 - 200

    assert not server.ledger.refused
    assert used <= 30_000 * (burst + clock.now() / 60)
