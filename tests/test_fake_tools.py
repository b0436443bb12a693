"""FakeOpenAI calls the tools that a request offers and asks for, so that a framework's
whole round trip can be tried on it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import run_virtual


class Weather(BaseModel):
    """Ask for the weather."""

    city: str = Field(min_length=3)
    unit: Literal["celsius", "fahrenheit"]
    days: int = Field(ge=1, le=7)


class Report(BaseModel):
    """A structured answer."""

    title: str
    scores: list[float] = Field(min_length=2)
    author: dict[str, str] | None


WEATHER: Any = pydantic_function_tool(Weather, name="get_weather")
TIME: Any = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
}
FLAT: Any = [{"type": "function", **tool["function"]} for tool in (WEATHER, TIME)]


def user(text: str) -> Any:
    """A message of the user."""
    return {"role": "user", "content": text}


def in_process(server: FakeOpenAI) -> openai.AsyncOpenAI:
    """The real client, without a network and without retries."""
    http = httpx2.AsyncClient(transport=server.transport())
    return openai.AsyncOpenAI(
        base_url="http://fake/v1", api_key="sk-test", max_retries=0, http_client=http
    )


async def chat_turn(api: openai.AsyncOpenAI, *, stream: bool, **body: Any) -> Any:
    """The message of one answer, put together from a stream where it is one."""
    body = {"model": "m", **body}
    if not stream:
        answer = await api.chat.completions.create(**body)
        return answer.choices[0]

    async with api.chat.completions.stream(**body) as events:
        return (await events.get_final_completion()).choices[0]


async def response_turn(api: openai.AsyncOpenAI, *, stream: bool, **body: Any) -> Any:
    """The response, taken from a stream where it is one."""
    body = {"model": "m", **body}
    if not stream:
        return await api.responses.create(**body)

    async with api.responses.stream(**body) as events:
        return await events.get_final_response()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "get_weather"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [WEATHER]},
        },
        None,
    ],
    ids=["required", "named", "allowed", "by a word"],
)
def test_a_chat_calls_a_tool_and_then_answers(choice: Any, stream: bool) -> None:
    """The call's arguments satisfy the tool's schema; once its result has been sent
    back the answer is text.
    """

    async def main() -> tuple[Any, Any]:
        api = in_process(FakeOpenAI(latency=0))
        question = user("Please use get_weather now." if choice is None else "How is it?")
        asked: dict[str, Any] = {"tools": [WEATHER]}
        if choice is not None:
            asked["tool_choice"] = choice

        first = await chat_turn(api, stream=stream, messages=[question], **asked)
        made = first.message.tool_calls[0]
        said = {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": made.id,
                    "type": "function",
                    "function": {"name": made.function.name, "arguments": made.function.arguments},
                }
            ],
        }
        result = {"role": "tool", "tool_call_id": made.id, "content": "rain"}
        second = await chat_turn(api, stream=stream, messages=[question, said, result], **asked)
        return first, second

    first, second = run_virtual(main)
    call = first.message.tool_calls[0]

    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    assert call.function.name == "get_weather"
    assert Weather.model_validate_json(call.function.arguments).days == 1
    assert second.finish_reason == "stop"
    assert second.message.content
    assert not second.message.tool_calls


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("by_id", [False, True], ids=["whole input", "previous_response_id"])
def test_a_response_calls_a_tool_and_then_answers(stream: bool, by_id: bool) -> None:
    """The same in Responses, with the call sent back or kept behind an id."""

    async def main() -> tuple[Any, Any]:
        api = in_process(FakeOpenAI(latency=0))
        question = user("How is it?")
        asked: Any = {"tools": FLAT[:1], "tool_choice": "required"}
        first = await response_turn(api, stream=stream, input=[question], **asked)
        call = first.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        before = [] if by_id else [question, call.model_dump(exclude_none=True)]
        if by_id:
            asked["previous_response_id"] = first.id

        return first, await response_turn(api, stream=stream, input=[*before, result], **asked)

    first, second = run_virtual(main)

    assert [item.type for item in first.output] == ["function_call"]
    assert first.output[0].name == "get_weather"
    assert Weather.model_validate_json(first.output[0].arguments).days == 1
    assert [item.type for item in second.output] == ["message"]
    assert second.output_text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_several_tools_are_called_at_once_where_that_is_allowed(stream: bool) -> None:
    """A prompt that names two tools gets two calls, one after the other when the body
    forbids parallel calls.
    """

    async def main(parallel: bool) -> list[str]:
        server = FakeOpenAI(latency=0)
        first = await response_turn(
            in_process(server),
            stream=stream,
            input="get_time and get_weather, please",
            tools=FLAT,
            parallel_tool_calls=parallel,
        )
        return [item.name for item in first.output]

    assert run_virtual(main, True) == ["get_weather", "get_time"]
    assert run_virtual(main, False) == ["get_weather"]


@pytest.mark.parametrize(
    ("use", "choice", "called"),
    [
        ("asked", "auto", False),
        ("asked", "none", False),
        ("always", "auto", True),
        ("always", "none", False),
        ("never", "required", False),
    ],
)
def test_tools_are_called_only_where_asked(use: Any, choice: Any, called: bool) -> None:
    """An offer alone is not a request; an option of the server makes it one."""

    async def main() -> Any:
        api = in_process(FakeOpenAI(latency=0, tool_calls=use))
        return await chat_turn(
            api, stream=False, messages=[user("hi")], tools=[WEATHER], tool_choice=choice
        )

    assert bool(run_virtual(main).message.tool_calls) is called


def test_a_name_inside_a_word_is_no_request() -> None:
    """`forget_time` does not ask for `get_time`, nor does an earlier message."""

    async def main() -> Any:
        api = in_process(FakeOpenAI(latency=0))
        messages = [user("get_time"), {"role": "assistant", "content": "no"}, user("forget_time")]
        return await chat_turn(api, stream=False, messages=messages, tools=[TIME])

    assert not run_virtual(main).message.tool_calls


def test_custom_tools_are_called_with_text() -> None:
    """A custom tool has no schema: its input is free text, in both endpoints."""

    async def main() -> tuple[Any, Any]:
        api = in_process(FakeOpenAI(latency=0))
        chat: Any = {"type": "custom", "custom": {"name": "run_code"}}
        first = await chat_turn(
            api, stream=False, messages=[user("hi")], tools=[chat], tool_choice="required"
        )
        second = await response_turn(
            api,
            stream=True,
            input="hi",
            tools=[{"type": "custom", "name": "run_code"}],
            tool_choice="required",
        )
        return first.message.tool_calls[0], second.output[0]

    chat, response = run_virtual(main)

    assert (chat.type, chat.custom.name) == ("custom", "run_code")
    assert (response.type, response.name, response.input) == (
        "custom_tool_call",
        "run_code",
        "text",
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_structured_answer_satisfies_its_schema(stream: bool) -> None:
    """The SDK's own parsing of a pydantic model succeeds, in chat and in Responses."""

    async def main() -> tuple[Any, Any]:
        api = in_process(FakeOpenAI(latency=0))
        messages: Any = [user("hi")]
        if stream:
            async with api.chat.completions.stream(
                model="m", messages=messages, response_format=Report
            ) as events:
                chat = (await events.get_final_completion()).choices[0].message.parsed

            async with api.responses.stream(model="m", input="hi", text_format=Report) as more:
                return chat, (await more.get_final_response()).output_parsed

        parsed = await api.chat.completions.parse(
            model="m", messages=messages, response_format=Report
        )
        response = await api.responses.parse(model="m", input="hi", text_format=Report)
        return parsed.choices[0].message.parsed, response.output_parsed

    chat, response = run_virtual(main)

    assert isinstance(chat, Report)
    assert isinstance(response, Report)


def test_json_mode_answers_json() -> None:
    """`json_object` asks for any JSON object."""

    async def main() -> Any:
        api = in_process(FakeOpenAI(latency=0))
        form: Any = {"type": "json_object"}
        return await chat_turn(api, stream=False, messages=[user("hi")], response_format=form)

    assert isinstance(json.loads(run_virtual(main).message.content), dict)


def test_the_bill_has_the_tokens_of_what_is_answered() -> None:
    """A call's or a JSON answer's usage follows its size, not the drawn length, and a
    workload's own figure goes before both.
    """
    server = FakeOpenAI(latency=0, output=5_000, output_spread=0)
    asked: Any = {"tools": [WEATHER], "tool_choice": "required"}

    async def main() -> None:
        api = in_process(server)
        await chat_turn(api, stream=False, messages=[user("hi")], **asked)
        known = {"x-fake-usage": '{"completion_tokens": 77}'}
        await chat_turn(api, stream=False, messages=[user("hi")], extra_headers=known, **asked)

    run_virtual(main)
    first, second = (entry.usage for entry in server.ledger)
    assert first
    assert second

    assert 10 < first.completion_tokens < 40
    assert second.completion_tokens == 77


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["function", "custom", "user", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "function",
                    "custom",
                    "name",
                    "parameters",
                    "role",
                    "content",
                    "text",
                    "tools",
                    "mode",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    endpoint=st.sampled_from(["chat/completions", "responses"]),
    fields=st.dictionaries(
        st.sampled_from(["messages", "input", "tools", "tool_choice", "response_format", "text"]),
        JSON,
    ),
    stream=st.booleans(),
)
def test_no_body_breaks_the_server(endpoint: str, fields: dict[str, Any], stream: bool) -> None:
    """Whatever stands where tools, choices and messages should, the answer is a 200 or
    a 400, whole or as a stream.
    """
    body = {"model": "m", "messages": [user("a")], "input": "a", "stream": stream, **fields}

    async def main() -> int:
        server = FakeOpenAI(latency=0, tool_calls="always", count_prompt=lambda *_: 1)
        request = httpx2.Request("POST", f"http://fake/v1/{endpoint}", json=body)
        response = await server.transport().handle_async_request(request)
        await response.aread()
        return response.status_code

    assert asyncio.run(main()) in {200, 400}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_the_openai_agents_sdk_makes_its_round_trip(endpoint: str, stream: bool) -> None:
    """An agent offers a function, the server calls it, and its result leads to the
    final answer.
    """
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    server = FakeOpenAI(latency=0)
    seen: list[tuple[str, int]] = []

    @agents.function_tool  # type: ignore[untyped-decorator, unused-ignore]
    def get_weather(city: str, days: int) -> str:
        """Tell the weather."""
        seen.append((city, days))
        return "rain"

    async def main() -> str:
        kind = {
            "chat": agents.OpenAIChatCompletionsModel,
            "responses": agents.OpenAIResponsesModel,
        }[endpoint]
        agent = agents.Agent(
            name="helper",
            model=kind(model="gpt-4o", openai_client=in_process(server)),
            tools=[get_weather],
        )
        if not stream:
            return str((await agents.Runner.run(agent, "Call get_weather")).final_output)

        streamed = agents.Runner.run_streamed(agent, "Call get_weather")
        async for _ in streamed.stream_events():
            pass

        return str(streamed.final_output)

    assert asyncio.run(main())
    assert seen == [("text", 1)]
    assert [entry.status for entry in server.ledger] == [200, 200]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_pydantic_ai_makes_its_round_trip(endpoint: str) -> None:
    """Its function is called first; then its output tool is, whose arguments become the
    structured result.
    """
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    server = FakeOpenAI(latency=0)
    provider = OpenAIProvider(openai_client=in_process(server))
    kind: Any = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[endpoint]
    agent: Any = Agent(kind("gpt-4o", provider=provider), output_type=Report)
    seen: list[str] = []

    @agent.tool_plain  # type: ignore[untyped-decorator, unused-ignore]
    def get_weather(city: str) -> str:
        """Tell the weather."""
        seen.append(city)
        return "rain"

    result = asyncio.run(agent.run("How is it?"))

    assert isinstance(result.output, Report)
    assert seen == ["text"]
    assert [entry.status for entry in server.ledger] == [200, 200]


def test_pydantic_ai_streams_its_round_trip() -> None:
    """The same for a plain answer, streamed after the call."""
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    server = FakeOpenAI(latency=0)
    provider = OpenAIProvider(openai_client=in_process(server))
    agent: Any = Agent(OpenAIChatModel("gpt-4o", provider=provider))
    seen: list[str] = []

    @agent.tool_plain  # type: ignore[untyped-decorator, unused-ignore]
    def get_weather(city: str) -> str:
        """Tell the weather."""
        seen.append(city)
        return "rain"

    async def main() -> str:
        async with agent.run_stream("Call get_weather") as result:
            return str(await result.get_output())

    assert asyncio.run(main())
    assert seen == ["text"]
