"""Frameworks that take an OpenAI client or an HTTP client, with a wrapped one.

Owns a scripted model behind HTTP, and one call or more by each framework, unchanged but
for its client. Must never skip a framework: the extra `dev` installs them all.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import RateLimiter

USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


class Model:
    """A scripted model behind HTTP: it calls the tool it is offered, else says hello.

    ``seen`` lists the bodies it was asked with.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        body = json.loads(request.content)
        self.seen.append(body)
        tools = body.get("tools") or []
        message: dict[str, Any] = {"role": "assistant", "content": "Hello there."}
        if tools:
            call = {
                "id": "call_1",
                "type": "function",
                "function": {
                    "name": tools[0]["function"]["name"],
                    "arguments": '{"name": "Ada", "age": 36}',
                },
            }
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        base = {"id": "x", "created": 1, "model": body.get("model", "m")}
        if body.get("stream"):
            chunk = base | {"object": "chat.completion.chunk"}
            events = [
                chunk | {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
                chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                chunk | {"choices": [], "usage": USAGE},
            ]
            stream = (
                "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            )
            return 200, {"content-type": "text/event-stream"}, stream.encode()
        if "input" in body:
            answer: dict[str, Any] = {
                "object": "list",
                "model": "m",
                "usage": {"prompt_tokens": 25, "total_tokens": 25},
            }
            answer["data"] = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        else:
            choice = {
                "index": 0,
                "finish_reason": "tool_calls" if tools else "stop",
                "message": message,
            }
            answer = base | {"object": "chat.completion", "choices": [choice], "usage": USAGE}
        return 200, {"content-type": "application/json"}, json.dumps(answer).encode()

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        status, headers, body = self(request)
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))

    async def handle_async(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle(request)


class Bench:
    """A limiter, a scripted model, and wrapped clients before it."""

    def __init__(self) -> None:
        self.model = Model()
        self.limiter = RateLimiter(rpd=1_000, tpd=100_000, arrival_slack=0)
        http = httpx2.Client(transport=httpx2.MockTransport(self.model.handle))
        http_async = httpx2.AsyncClient(transport=httpx2.MockTransport(self.model.handle_async))
        self.client = self.limiter.wrap(
            openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http)
        )
        self.client_async = self.limiter.wrap(
            openai.AsyncOpenAI(api_key="none", base_url="http://x/v1", http_client=http_async)
        )

    def check(self, calls: int) -> None:
        """Every request was admitted, ended, and settled to its usage."""
        family = self.limiter.statistics().families["*"]

        assert len(self.model.seen) == family.admitted == family.ended == calls
        assert 1_000 - family.levels["requests/86400s"] == pytest.approx(calls, abs=0.5)
        assert 100_000 - family.levels["tokens/86400s"] == pytest.approx(25 * calls, abs=10)


@pytest.fixture
def bench() -> Bench:
    """Make a fresh limiter, model and clients."""
    return Bench()


def test_the_openai_agents_sdk(bench: Bench) -> None:
    """An agent's run, streamed and not, passes the limiter and settles."""
    import agents

    agents.set_tracing_disabled(True)
    model = agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=bench.client_async)
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


def test_pydantic_ai(bench: Bench) -> None:
    """The provider takes the wrapped client as it is."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    agent = Agent(
        OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=bench.client_async))
    )

    assert asyncio.run(agent.run("Hi")).output == "Hello there."
    bench.check(1)


def test_instructor(bench: Bench) -> None:
    """Instructor patches the client's methods; the transport below is still ours."""
    import instructor
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    patched = instructor.from_openai(bench.client)
    person = patched.chat.completions.create(
        model="gpt-4o", response_model=Person, messages=[{"role": "user", "content": "Ada is 36."}]
    )

    assert (person.name, person.age) == ("Ada", 36)
    bench.check(1)


def test_langchain(bench: Bench) -> None:
    """Chat models take the wrapped client's resources, streamed and not."""
    import langchain_openai
    from pydantic import SecretStr

    chat = langchain_openai.ChatOpenAI(
        model="gpt-4o",
        api_key=SecretStr("none"),
        client=bench.client.chat.completions,
        async_client=bench.client_async.chat.completions,
    )

    assert chat.invoke("Hi").content == "Hello there."
    chunks = chat.stream("Hi", stream_usage=True)
    assert "".join(str(chunk.content) for chunk in chunks) == "Hello there."
    assert asyncio.run(chat.ainvoke("Hi")).content == "Hello there."
    bench.check(3)


def test_a_bare_httpx_client() -> None:
    """A client of httpx is wrapped as one of httpx2 is."""
    import httpx

    model = Model()
    limiter = RateLimiter(rpd=1_000, tpd=100_000, arrival_slack=0)

    def handle(request: Any) -> Any:
        status, headers, body = model(request)
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    async def handle_async(request: Any) -> Any:
        return handle(request)

    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
    with limiter.wrap(httpx.Client(transport=httpx.MockTransport(handle))) as client:
        assert client.post("http://x/v1/chat/completions", json=body).json()["usage"] == USAGE

    async def main() -> None:
        async with limiter.wrap(
            httpx.AsyncClient(transport=httpx.MockTransport(handle_async))
        ) as client:
            response = await client.post(
                "http://x/v1/chat/completions", json=body | {"stream": True}
            )
            assert response.text.endswith("[DONE]\n\n")

    asyncio.run(main())
    family = limiter.statistics().families["*"]

    assert (family.admitted, family.ended) == (2, 2)
    assert 100_000 - family.levels["tokens/86400s"] == pytest.approx(50, abs=10)


def test_helpers_of_the_sdk(bench: Bench) -> None:
    """Parsing helpers, embeddings and stream managers use the same client."""
    from pydantic import BaseModel

    class Note(BaseModel):
        text: str

    messages: Any = [{"role": "user", "content": "Hi"}]
    # the scripted answer is no JSON; that it came and was paid is what counts
    with pytest.raises(ValueError, match="JSON"):
        bench.client.chat.completions.parse(model="gpt-4o", messages=messages, response_format=Note)
    bench.client.embeddings.create(model="text-embedding-3-small", input="Hi")
    with bench.client.chat.completions.stream(model="gpt-4o", messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello there."

    bench.check(3)


def test_the_aiohttp_transport_of_the_sdk() -> None:
    """DefaultAioHttpClient speaks through aiohttp, and is wrapped like any other, over
    real loopback HTTP.
    """
    from ratelimit.testing import FakeOpenAI

    server = FakeOpenAI(rpm=10_000, tpm=1_000_000, latency=0.0)
    limiter = RateLimiter(rpm=10_000, tpm=1_000_000)

    async def main(url: str) -> None:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=url, http_client=openai.DefaultAioHttpClient()
        ) as bare:
            client = limiter.wrap(bare)
            messages: Any = [{"role": "user", "content": "Hi"}]
            assert (await client.chat.completions.create(model="gpt-4o", messages=messages)).usage
            stream = await client.chat.completions.create(
                model="gpt-4o", messages=messages, stream=True
            )
            assert [chunk async for chunk in stream]

    with server.serve() as url:
        asyncio.run(main(url))
    family = limiter.statistics().families["*"]

    assert (family.admitted, family.in_flight) == (2, 0)
    assert len(server.ledger) == 2
