"""The public face as users type it: checked by mypy and pyright, never run.

Owns examples whose types must hold, and misuse that must be an error of types. Must
never hold what only shows when it runs.
"""

# ruff: noqa: D103  # what a function shows is its types
from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import Any, assert_type

from langchain_core.rate_limiters import BaseRateLimiter
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from pydantic_ai.concurrency import AbstractConcurrencyLimiter

import ratelimit
from ratelimit import (
    Estimate,
    FamilyStatistics,
    KnownLimit,
    Lease,
    Limit,
    Limits,
    RateLimiter,
    Statistics,
    Subscription,
)
from ratelimit.adapters.langchain import rate_limiter
from ratelimit.adapters.pydantic_ai import concurrency_limiter
from ratelimit.events import Refused
from ratelimit.testing import ThreadClock, TrioClock, VirtualClock, run_virtual

assert_type(ratelimit.__version__, str)
limiter = RateLimiter(rpm=500, tpm=30_000)
RateLimiter()
RateLimiter(
    limits={
        "gpt-4o": Limits(rpm=500, tpm=30_000),
        "gpt-4o-mini*": Limits("500 rpm", Limit("tokens", 10, per=1), concurrency=5),
    }
)
RateLimiter(
    rps=2.5,
    accounting="never_refund",
    output="learned",
    priorities={"now": 0, "later": 60.0},
    clock=VirtualClock(),
)
RateLimiter(clock=ThreadClock())
RateLimiter(clock=TrioClock())
RateLimiter(accounting="reserve everything")  # type: ignore[arg-type]
RateLimiter(output="min")  # type: ignore[arg-type]
RateLimiter(500)  # type: ignore[call-arg]


@limiter
async def ask(*, model: str, messages: list[dict[str, str]]) -> ChatCompletion:
    return await AsyncOpenAI().chat.completions.create(model=model, messages=messages)  # type: ignore[arg-type]


def about(question: str) -> dict[str, object]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": question}]}


@limiter.limit(
    request=about,
    timeout=30,
    priority="batch",
)
def ask_about(question: str) -> str:
    return question


@limiter.limit()
async def stream(model: str) -> AsyncGenerator[int, str]:
    yield len(model)


@limiter
def stream_now(model: str) -> Generator[int, str, bytes]:
    yield len(model)
    return b""


async def in_tasks() -> None:
    assert_type(await ask(model="gpt-4o", messages=[]), ChatCompletion)
    assert_type(stream("gpt-4o"), AsyncGenerator[int, str])
    async with limiter.reserve(model="gpt-4o", messages=[], timeout=30, priority="batch") as lease:
        assert_type(lease, Lease)
        lease.settle({"total_tokens": 5})
        lease.settle(tokens=5, requests=1)
        lease.observe({"x-ratelimit-remaining-tokens": "5"}, status=200)
    assert_type(await limiter.acquire(tokens=5), Lease)
    await ask("gpt-4o")  # type: ignore[call-arg]


def in_threads() -> None:
    assert_type(ask_about("why?"), str)
    assert_type(stream_now("gpt-4o"), Generator[int, str, bytes])
    with limiter.reserve({"model": "gpt-4o"}) as lease:
        assert_type(lease, Lease)
        assert_type(lease.cost, dict[str, float])
    assert_type(limiter.acquire_sync(tokens=5), Lease)
    assert_type(limiter.acquire_nowait(cost={"images": 2}), Lease)
    assert_type(limiter.estimate(model="gpt-4o", messages=[]), Estimate)
    assert_type(limiter.estimate(model="gpt-4o").prompt_tokens, int)
    assert_type(limiter.price(limiter.estimate(model="gpt-4o")), dict[str, float])
    assert_type(limiter.price(model="gpt-4o"), dict[str, float])
    statistics = limiter.statistics()
    assert_type(statistics, Statistics)
    assert_type(statistics.families, Mapping[str, FamilyStatistics])
    statistics.families["*"].waiting = 5  # type: ignore[misc]
    assert_type(limiter.explain("gpt-4o").families["*"].limits, tuple[KnownLimit, ...])


def on_refusal(event: Refused) -> None:
    assert_type(event.server_wait, float | None)
    event.pause = 5  # type: ignore[misc]


def looking() -> None:
    with limiter.subscribe(on_refusal, Refused) as subscription, ratelimit.live(limiter):
        assert_type(subscription, Subscription)
    limiter.subscribe(on_refusal, "Refused")  # type: ignore[arg-type]
    with limiter.reserve(tokens=5) as lease:
        assert_type(lease.waited, float)
    ask_about(5)  # type: ignore[arg-type]


def wrapped() -> None:
    assert_type(limiter.wrap(AsyncOpenAI()), AsyncOpenAI)
    assert_type(limiter.wrap(OpenAI(), timeout=5, priority=10.0), OpenAI)


def adapted() -> None:
    assert_type(rate_limiter(limiter, tokens=800, priority="batch"), BaseRateLimiter)
    assert_type(concurrency_limiter(limiter, tokens=800), AbstractConcurrencyLimiter)
    rate_limiter(limiter)  # type: ignore[call-arg]


async def number(value: int) -> int:
    return value


def decorated_functions_are_passed_on() -> None:
    kept: Callable[[str], str] = ask_about
    later: Callable[..., Coroutine[Any, Any, ChatCompletion]] = ask
    assert_type(run_virtual(number, 5), int)
    assert_type(VirtualClock().run(number, 5), int)
    assert_type(TrioClock().run(number, 5), int)
    del kept, later
