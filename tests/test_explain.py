"""Explanations: who waits for what, which limits hold, and where they come from."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest

from ratelimit import Limits, RateLimiter
from ratelimit.testing import ThreadClock, VirtualClock
from tests.answers import HEADERS, LIMIT_REACHED, TooMany, refuse


def test_a_limiter_without_waiters_says_so() -> None:
    """With the limits that were given, and no word of 429s."""
    limiter = RateLimiter(rpm=60, tpm=600, clock=ThreadClock())

    assert str(limiter.explain()) == (
        "*: nobody waits; 0 in flight; limits: 60 requests/min (given; 60 left), "
        "600 tokens/min (given; 600 left)"
    )


def test_the_head_says_what_it_needs_and_when_it_goes() -> None:
    """How many wait, and what the first of them waits for."""
    clock = VirtualClock()
    limiter = RateLimiter(tpm=600, arrival_slack=0, clock=clock)
    said: list[str] = []

    async def wait(tokens: int) -> None:
        (await limiter.acquire(tokens=tokens)).close()

    async def main() -> None:
        await wait(600)
        async with anyio.create_task_group() as group:
            group.start_soon(wait, 100)
            group.start_soon(wait, 200)
            await anyio.sleep(4)
            explanation = limiter.explain().families["*"]
            assert explanation.waiting == 2
            assert explanation.next_in == pytest.approx(6)
            said.append(str(explanation))

    clock.run(main)

    assert said[0].startswith(
        "2 wait; the head: it needs 100 of tokens/60s, where 40 of 600 are left; "
        "it goes in 6.0 s at the earliest; 0 in flight"
    )


def test_a_limit_names_its_source_and_its_age() -> None:
    """What a header showed, and how long ago."""
    clock = ThreadClock()
    limiter = RateLimiter(clock=clock)
    limiter.acquire_sync(model="gpt-4o", messages=[], max_tokens=5).observe(HEADERS)
    clock.sleep(3)

    (known,) = limiter.explain("gpt-4o").families["*"].limits

    assert (known.source, known.limit.amount) == ("header", 30_000)
    assert known.age == pytest.approx(3)
    assert "30,000 tokens/min (header, 3 s ago; " in str(known)


def test_a_refusal_is_explained_with_its_limit() -> None:
    """How many there were, when the last one came, and for which limit."""
    clock = ThreadClock()
    limiter = RateLimiter(tpm=30_000, clock=clock)
    refuse(limiter, TooMany(LIMIT_REACHED.format(limit=20_000, used=19_990, wait=2)))
    clock.sleep(1)

    explanation = limiter.explain().families["*"]

    assert explanation.limits[0].source == "refusal"
    assert "paused for 1.0 s by a refusal" in str(explanation)
    assert str(explanation).endswith("1 429s, the last 1 s ago for tokens/60s")


def test_a_call_that_waits_for_a_slot_is_explained() -> None:
    """Where only the end of a call helps, no moment is named."""
    clock = VirtualClock()
    limiter = RateLimiter(concurrency=1, clock=clock)
    said: list[str] = []

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.sleep(1)
            said.append(str(limiter.explain()))
            lease.close()

    clock.run(main)

    assert "as many calls are in flight as may be; it goes when a call in flight ends" in said[0]
    assert "1 of at most 1 in flight" in said[0]


def test_one_model_is_explained_by_itself() -> None:
    """Only its family is in the explanation, which can be pickled."""
    limits: dict[str, Any] = {"gpt-4o": Limits(rpm=5), "*": Limits(rpm=9)}
    limiter = RateLimiter(limits=limits, clock=ThreadClock())

    explanation = limiter.explain("gpt-4o-2024-08-06")

    assert list(explanation.families) == ["gpt-4o"]
    assert pickle.loads(pickle.dumps(explanation)) == explanation  # noqa: S301  # our own bytes
