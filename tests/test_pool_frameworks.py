"""Frameworks that take an OpenAI client, with a pool's, unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import Member, Pool, RateLimiter
from tests.test_frameworks import Model


class Bench:
    """Two members with scripted models, and a pool's client before them."""

    def __init__(self) -> None:
        self.models = [Model(), Model()]
        members = [
            Member(
                openai.AsyncOpenAI(
                    api_key="none",
                    base_url=f"http://m{place}/v1",
                    http_client=httpx2.AsyncClient(
                        transport=httpx2.MockTransport(model.handle_async)
                    ),
                ),
                limiter=RateLimiter(rpd=1_000, tpd=100_000, arrival_slack=0),
                name=f"m{place}",
            )
            for place, model in enumerate(self.models)
        ]
        self.pool = Pool(members)
        self.client = self.pool.client()

    def check(self, calls: int) -> None:
        """Each request went to one member, was admitted there, and settled."""
        now = self.pool.statistics()
        families = [one.limiter.families["*"] for one in now.members.values()]

        assert sum(len(model.seen) for model in self.models) == calls
        assert [family.ended for family in families] == [len(model.seen) for model in self.models]
        assert sum(family.admitted for family in families) == calls
        left = sum(family.levels["tokens/86400s"] for family in families)
        assert 200_000 - left == pytest.approx(25 * calls, abs=10)


@pytest.fixture
def bench() -> Bench:
    """Make a fresh pool."""
    return Bench()


def test_the_openai_agents_sdk(bench: Bench) -> None:
    """An agent's runs, streamed and not, go to both members."""
    import agents

    agents.set_tracing_disabled(True)
    model = agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=bench.client)
    agent = agents.Agent(name="greeter", instructions="Greet.", model=model)

    async def main() -> None:
        result = await agents.Runner.run(agent, "Hi")
        assert result.final_output == "Hello there."
        stream = agents.Runner.run_streamed(agent, "Hi")
        async for _ in stream.stream_events():
            pass
        assert stream.final_output == "Hello there."

    asyncio.run(main())

    bench.check(2)
    assert [len(model.seen) for model in bench.models] == [1, 1]


def test_pydantic_ai(bench: Bench) -> None:
    """The provider takes the pool's client as it is."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=bench.client)
    agent = Agent(OpenAIChatModel("gpt-4o", provider=provider))

    async def main() -> None:
        for _ in range(3):
            assert (await agent.run("Hi")).output == "Hello there."

    asyncio.run(main())
    bench.check(3)


def test_langchain(bench: Bench) -> None:
    """The chat model takes the client's completions."""
    from langchain_openai import ChatOpenAI

    options: dict[str, Any] = {"async_client": bench.client.chat.completions}
    model = ChatOpenAI(model="gpt-4o", api_key="none", **options)  # type: ignore[arg-type]  # a text is taken

    async def main() -> None:
        assert (await model.ainvoke("Hi")).content == "Hello there."
        pieces = [piece.content async for piece in model.astream("Hi")]
        assert "".join(map(str, pieces)) == "Hello there."

    asyncio.run(main())
    bench.check(2)


def test_instructor(bench: Bench) -> None:
    """Instructor patches the client's methods; the transport below is the pool's."""
    import instructor
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    client = instructor.from_openai(bench.client)

    async def main() -> None:
        person = await client.chat.completions.create(
            model="gpt-4o",
            response_model=Person,
            messages=[{"role": "user", "content": "Ada, 36"}],
        )
        assert person.name == "Ada"

    asyncio.run(main())
    bench.check(1)
