"""Adapters for the hooks that frameworks left: their calls wait for the limiter's turn.

Owns one run of each hook by its real framework, in virtual time. Must never meter the
framework's HTTP client: these are for clients that cannot be reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ratelimit import InvalidArgument, RateLimiter, WaitTimeout
from ratelimit.testing import ThreadClock, VirtualClock

LLAMA = "llama-index is not installed: it is no part of the extra dev, being large"


def langchain(limiter: RateLimiter, **options: Any) -> Any:
    """Make LangChain's."""
    from ratelimit.adapters.langchain import rate_limiter

    return rate_limiter(limiter, **options)


def llama_index(limiter: RateLimiter, **options: Any) -> Any:
    """Make llama-index's, where that is installed."""
    pytest.importorskip("llama_index.core", reason=LLAMA, exc_type=ImportError)
    from ratelimit.adapters.llama_index import rate_limiter

    return rate_limiter(limiter, **options)


def pydantic_ai(limiter: RateLimiter, **options: Any) -> Any:
    """Make pydantic-ai's."""
    from ratelimit.adapters.pydantic_ai import concurrency_limiter

    return concurrency_limiter(limiter, **options)


ADAPTERS = [langchain, llama_index, pydantic_ai]


def used(limiter: RateLimiter, family: str = "*") -> dict[str, float]:
    """Return what has been taken of each daily limit of a family."""
    shown = limiter.statistics().families[family]
    full = {f"{limit.name}/86400s": limit.amount for limit in limiter.limits(family)}
    return {name: round(full[name] - level) for name, level in shown.levels.items()}


def test_langchain_calls_wait_in_a_task() -> None:
    """A chat model of any vendor waits where LangChain asks its rate limiter."""
    from langchain_core.language_models import FakeListChatModel

    clock = VirtualClock()
    limiter = RateLimiter(rpm=1, arrival_slack=0, clock=clock)
    model = FakeListChatModel(responses=["Hello."], rate_limiter=langchain(limiter, tokens=100))

    async def main() -> list[float]:
        times = []
        for _ in range(3):
            async for _chunk in model.astream("Hi"):
                pass
            times.append(clock.now())
        return times

    assert clock.run(main) == pytest.approx([0, 60, 120])


def test_langchain_calls_wait_in_a_thread() -> None:
    """The blocking half of the hook waits as well."""
    from langchain_core.language_models import FakeListChatModel

    clock = ThreadClock()
    limiter = RateLimiter(tpm=600, arrival_slack=0, clock=clock)
    model = FakeListChatModel(responses=["Hello."], rate_limiter=langchain(limiter, tokens=600))
    times = []

    def main() -> None:
        for _ in range(2):
            assert model.invoke("Hi").content == "Hello."
            times.append(clock.now())

    clock.run(main)

    assert times == pytest.approx([0, 60])


def test_langchain_is_answered_where_it_does_not_want_to_wait() -> None:
    """blocking=False takes what is there, and says False where there is nothing."""
    adapter = langchain(RateLimiter(rpm=2, arrival_slack=0, clock=VirtualClock()), tokens=0)

    async def ask() -> bool:
        answer: bool = await adapter.aacquire(blocking=False)
        return answer

    assert (adapter.acquire(blocking=False), asyncio.run(ask())) == (True, True)
    assert (adapter.acquire(blocking=False), asyncio.run(ask())) == (False, False)


def test_an_adapter_before_a_wrapped_client_pays_as_well() -> None:
    """The page says that both together pay twice: the hook shows no call to share."""
    import langchain_openai
    import openai
    from pydantic import SecretStr

    from ratelimit.testing import FakeOpenAI

    server = FakeOpenAI(rpm=500, tpm=30_000, latency=0.0)
    limiter = RateLimiter(rpm=500, tpm=30_000)
    with server.serve() as url, openai.DefaultHttpxClient() as http:
        chat = langchain_openai.ChatOpenAI(
            model="gpt-4o",
            api_key=SecretStr("none"),
            base_url=url,
            http_client=limiter.wrap(http),
            rate_limiter=langchain(limiter, tokens=100),
        )
        chat.invoke("Hi")

    assert len(server.ledger) == 1
    assert limiter.statistics().families["*"].admitted == 2


def test_llama_index_calls_wait() -> None:
    """A language model waits where llama-index asks its rate limiter."""
    clock = ThreadClock()
    adapter = llama_index(RateLimiter(rpm=1, arrival_slack=0, clock=clock), tokens=100)
    from llama_index.core.llms import MockLLM

    model = MockLLM()
    model.rate_limiter = adapter
    times = []

    def main() -> None:
        for _ in range(3):
            model.complete("Hi")
            times.append(clock.now())

    clock.run(main)

    assert times == pytest.approx([0, 60, 120])


def test_llama_index_calls_wait_in_a_task() -> None:
    """The other half of its hook waits as well, and lets other tasks run."""
    clock = VirtualClock()
    adapter = llama_index(RateLimiter(rpm=1, arrival_slack=0, clock=clock), tokens=100)

    async def main() -> float:
        await asyncio.gather(adapter.async_acquire(), adapter.async_acquire(50))
        return clock.now()

    assert clock.run(main) == pytest.approx(60)


def test_llama_index_says_the_tokens_of_a_call_or_leaves_them_to_the_adapter() -> None:
    """A count of its own takes the place of the adapter's."""
    limiter = RateLimiter(rpd=100, tpd=10_000, arrival_slack=0, clock=VirtualClock())
    adapter = llama_index(limiter, tokens=100)

    adapter.acquire()
    adapter.acquire(num_tokens=700)

    assert used(limiter) == {"requests/86400s": 2, "tokens/86400s": 800}


def test_pydantic_ai_requests_wait() -> None:
    """A model of any vendor waits where pydantic-ai asks its concurrency limiter."""
    from pydantic_ai import Agent
    from pydantic_ai.models.concurrency import ConcurrencyLimitedModel
    from pydantic_ai.models.test import TestModel

    clock = VirtualClock()
    limiter = RateLimiter(rpm=1, arrival_slack=0, clock=clock)
    agent = Agent(ConcurrencyLimitedModel(TestModel(), pydantic_ai(limiter, tokens=100)))

    async def main() -> list[float]:
        times = []
        for _ in range(3):
            await agent.run("Hi")
            times.append(clock.now())
        return times

    assert clock.run(main) == pytest.approx([0, 60, 120])
    assert limiter.statistics().families["*"].in_flight == 0


def test_pydantic_ai_holds_a_slot_until_it_gives_it_back_in_any_task() -> None:
    """`concurrency=` holds for its calls, a stream read by another task included."""
    clock = VirtualClock()
    limiter = RateLimiter(concurrency=1, arrival_slack=0, clock=clock)
    adapter = pydantic_ai(limiter, tokens=0)

    async def give_back() -> None:
        await asyncio.sleep(5)
        adapter.release()

    async def main() -> float:
        await adapter.acquire("model:x")
        reader = asyncio.create_task(give_back())
        await adapter.acquire("model:x")
        await reader
        return clock.now()

    assert clock.run(main) == pytest.approx(5)
    assert limiter.statistics().families["*"].in_flight == 1
    adapter.release()
    assert limiter.statistics().families["*"].in_flight == 0


def test_pydantic_ai_gives_back_the_slot_of_a_call_that_is_still_there() -> None:
    """A request that died with its event loop is not what a later release is about."""
    clock = VirtualClock()
    limiter = RateLimiter(concurrency=1, arrival_slack=0, clock=clock)
    adapter = pydantic_ai(limiter, tokens=0)

    async def dies() -> None:
        await adapter.acquire("model:x")

    async def lives() -> None:
        await adapter.acquire("model:x")
        adapter.release()

    clock.run(dies)
    clock.run(lives)

    assert limiter.statistics().families["*"].in_flight == 0


def test_pydantic_ai_gives_back_nothing_that_it_never_took() -> None:
    """A release that follows no admission is the caller's mistake, and is said."""
    adapter = pydantic_ai(RateLimiter(rpm=1), tokens=0)

    with pytest.raises(InvalidArgument, match="release"):
        adapter.release()


def take(adapter: Any) -> None:
    """Admit a call by whatever the hook is called."""
    answer = adapter.acquire("model:x") if hasattr(adapter, "release") else adapter.acquire()
    if asyncio.iscoroutine(answer):
        asyncio.run(answer)


@pytest.mark.parametrize("make", ADAPTERS)
def test_a_call_takes_what_was_given_for_it(make: Callable[..., Any]) -> None:
    """One request and the tokens are debited from the buckets of the named model, and
    stay debited: no hook says what a call has used.
    """
    from ratelimit import Limits

    limits = Limits(rpd=100, tpd=10_000)
    limiter = RateLimiter(limits={"a": limits, "*": limits}, arrival_slack=0, clock=VirtualClock())

    take(make(limiter, tokens=250, model="a"))

    assert used(limiter, "a") == {"requests/86400s": 1, "tokens/86400s": 250}
    assert limiter.statistics().families["a"].admitted == 1


@pytest.mark.parametrize("make", ADAPTERS)
def test_a_wait_is_bounded(make: Callable[..., Any]) -> None:
    """A call that cannot go within its timeout raises out of the framework."""
    limiter = RateLimiter(rpm=1, arrival_slack=0, clock=VirtualClock())
    adapter = make(limiter, tokens=0, timeout=30)
    take(adapter)

    with pytest.raises(WaitTimeout):
        take(adapter)


@pytest.mark.parametrize("make", ADAPTERS)
@pytest.mark.parametrize(
    "wrong",
    [{"tokens": -1}, {"tokens": "many"}, {"timeout": -1}, {"priority": "urgnt"}, {"tenant": 3}],
)
def test_what_cannot_be_used_is_said_at_once(
    make: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    """A wrong option is an error where it is given, not in a model's first call."""
    with pytest.raises(InvalidArgument):
        make(RateLimiter(rpm=1), **{"tokens": 0, **wrong})
