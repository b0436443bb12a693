"""FakeOpenAI's answers, held against the SDK's own models: every endpoint, whole and
streamed.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx2
import openai
import pytest
from openai import types
from openai.types import audio, chat, responses
from pydantic import BaseModel, TypeAdapter

from ratelimit.testing import FakeOpenAI, Usage
from ratelimit.testing.clocks import run_virtual

HI: Any = [{"role": "user", "content": "hi"}]
KNOWN = {"x-fake-usage": '{"prompt_tokens": 8, "completion_tokens": 40}'}
TOOL: Any = {
    "type": "function",
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
}
CHAT_TOOL: Any = {
    "type": "function",
    "function": {name: value for name, value in TOOL.items() if name != "type"},
}

PICTURE = ("a.png", b"\x89PNG\r\n\x1a\n\x00--\xff", "image/png")
SPEECH = ("a.wav", b"RIFF\x00\x00\x00\x00WAVE", "audio/wav")


def posted(
    path: str, body: Mapping[str, Any], files: Mapping[str, Any] | None = None
) -> httpx2.Response:
    """The raw answer of a fresh server."""

    async def main() -> httpx2.Response:
        server = FakeOpenAI(latency=0)
        async with httpx2.AsyncClient(
            transport=server.transport(), base_url="http://fake/v1"
        ) as http:
            if files is not None:
                return await http.post(path, data=dict(body), files=dict(files))

            return await http.post(path, json=dict(body))

    return run_virtual(main)


def events(content: str) -> Iterator[str]:
    """The data of a stream's events."""
    for line in content.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield line.removeprefix("data: ")


BODIES: list[tuple[str, Mapping[str, Any], type[BaseModel]]] = [
    ("/chat/completions", {"model": "gpt-4o", "messages": HI, "n": 2}, chat.ChatCompletion),
    ("/chat/completions", {"model": "gpt-5", "messages": HI}, chat.ChatCompletion),
    (
        "/chat/completions",
        {"model": "m", "messages": HI, "tools": [CHAT_TOOL], "tool_choice": "required"},
        chat.ChatCompletion,
    ),
    ("/completions", {"model": "davinci-002", "prompt": ["a", "b"]}, types.Completion),
    ("/responses", {"model": "gpt-4o", "input": "hi"}, responses.Response),
    (
        "/responses",
        {
            "model": "gpt-5",
            "input": HI,
            "instructions": "Be brief.",
            "metadata": {"a": "b"},
            "temperature": 0.5,
            "max_output_tokens": 100,
            "reasoning": {"effort": "low"},
            "tools": [TOOL, {"type": "web_search"}],
            "tool_choice": {"type": "function", "name": "look_up"},
        },
        responses.Response,
    ),
    (
        "/responses",
        {
            "model": "gpt-4o",
            "input": HI,
            "instructions": None,
            "temperature": None,
            "top_p": None,
            "text": {
                "format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}},
                "verbosity": "low",
            },
            "tools": [
                {"type": "custom", "name": "run"},
                {"type": "file_search", "vector_store_ids": ["vs_1"]},
                {"type": "function", "name": "bare", "parameters": None, "strict": None},
            ],
            "tool_choice": {"type": "file_search"},
            "parallel_tool_calls": None,
            "previous_response_id": "resp_1",
            "store": False,
            "truncation": "auto",
        },
        responses.Response,
    ),
    ("/responses/compact", {"model": "gpt-5", "input": HI}, responses.CompactedResponse),
    (
        "/responses/input_tokens",
        {"model": "gpt-5", "input": HI},
        responses.InputTokenCountResponse,
    ),
    ("/embeddings", {"model": "e", "input": ["a", "b"]}, types.CreateEmbeddingResponse),
    ("/moderations", {"input": "hi"}, types.ModerationCreateResponse),
    ("/images/generations", {"model": "gpt-image-1", "prompt": "a cat"}, types.ImagesResponse),
    ("/images/generations", {"model": "dall-e-3", "prompt": "a cat"}, types.ImagesResponse),
]


@pytest.mark.parametrize(
    ("path", "body", "model"),
    BODIES,
    ids=[f"{path} {number}" for number, (path, _, _) in enumerate(BODIES)],
)
def test_every_body_is_valid(path: str, body: Mapping[str, Any], model: type[BaseModel]) -> None:
    """Pydantic, strict, finds every field that the SDK declares, of its type."""
    answer = posted(path, body)

    assert answer.status_code == 200
    model.model_validate_json(answer.content, strict=True)


FORMS: list[tuple[str, Mapping[str, Any], Mapping[str, Any], type[BaseModel]]] = [
    ("/images/edits", {"prompt": "a hat", "n": "2"}, {"image": PICTURE}, types.ImagesResponse),
    ("/images/edits", {"prompt": "a hat"}, {"image[]": PICTURE}, types.ImagesResponse),
    ("/images/variations", {"model": "dall-e-2"}, {"image": PICTURE}, types.ImagesResponse),
    ("/audio/transcriptions", {"model": "whisper-1"}, {"file": SPEECH}, audio.Transcription),
    (
        "/audio/transcriptions",
        {"model": "whisper-1", "response_format": "verbose_json"},
        {"file": SPEECH},
        audio.TranscriptionVerbose,
    ),
    (
        "/audio/transcriptions",
        {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json"},
        {"file": SPEECH},
        audio.TranscriptionDiarized,
    ),
    ("/audio/translations", {"model": "whisper-1"}, {"file": SPEECH}, audio.Translation),
]


@pytest.mark.parametrize(
    ("path", "form", "files", "model"),
    FORMS,
    ids=[f"{path} {number}" for number, (path, *_) in enumerate(FORMS)],
)
def test_every_body_for_a_form_is_valid(
    path: str, form: Mapping[str, Any], files: Mapping[str, Any], model: type[BaseModel]
) -> None:
    """Pictures and sound come as forms with files; their answers are valid too."""
    answer = posted(path, form, files)

    assert answer.status_code == 200
    model.model_validate_json(answer.content, strict=True)


STREAMS: list[tuple[str, Mapping[str, Any], Any]] = [
    (
        "/chat/completions",
        {"model": "gpt-4o", "messages": HI, "n": 2, "stream_options": {"include_usage": True}},
        chat.ChatCompletionChunk,
    ),
    (
        "/chat/completions",
        {"model": "m", "messages": HI, "tools": [CHAT_TOOL], "tool_choice": "required"},
        chat.ChatCompletionChunk,
    ),
    ("/completions", {"model": "davinci-002", "prompt": "a"}, types.Completion),
    ("/responses", {"model": "gpt-5", "input": "hi"}, responses.ResponseStreamEvent),
    (
        "/responses",
        {"model": "gpt-5", "input": "hi", "tools": [TOOL], "tool_choice": "required"},
        responses.ResponseStreamEvent,
    ),
    (
        "/images/generations",
        {"model": "gpt-image-1", "prompt": "a cat"},
        types.ImageGenStreamEvent,
    ),
]


@pytest.mark.parametrize(
    ("path", "body", "model"),
    STREAMS,
    ids=[f"{path} {number}" for number, (path, _, _) in enumerate(STREAMS)],
)
def test_every_event_of_a_stream_is_valid(path: str, body: Mapping[str, Any], model: Any) -> None:
    """Each event is valid by itself; a legacy chunk has a reason only at its end."""
    answer = posted(path, {**body, "stream": True})
    found = list(events(answer.text))
    adapter = TypeAdapter(model)
    for event in found:
        # the SDK declares a legacy chunk as a whole completion, which has always ended
        legacy = model is types.Completion
        ended = event.replace('"finish_reason":null', '"finish_reason":"stop"')
        adapter.validate_json(ended if legacy else event, strict=True)

    assert len(found) >= 2


def test_a_transcription_is_streamed_as_events() -> None:
    """The text comes in deltas, and whole at the end."""
    answer = posted(
        "/audio/transcriptions", {"model": "gpt-4o-transcribe", "stream": "true"}, {"file": SPEECH}
    )
    adapter: TypeAdapter[Any] = TypeAdapter(audio.TranscriptionStreamEvent)
    found = [adapter.validate_json(event, strict=True) for event in events(answer.text)]

    assert "".join(event.delta for event in found[:-1]).strip() == found[-1].text


def in_process(server: FakeOpenAI) -> openai.AsyncOpenAI:
    """The real client, without a network and without retries."""
    http = httpx2.AsyncClient(transport=server.transport())
    return openai.AsyncOpenAI(
        base_url="http://fake/v1", api_key="sk-test", max_retries=0, http_client=http
    )


def walk(api: openai.AsyncOpenAI) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every call of the real client that the server answers."""
    picture, speech = io.BytesIO(PICTURE[1]), io.BytesIO(SPEECH[1])
    return {
        "chat": lambda: api.chat.completions.create(model="gpt-4o", messages=HI),
        "completions": lambda: api.completions.create(model="davinci-002", prompt="a"),
        "responses": lambda: api.responses.create(model="gpt-5", input="hi"),
        "compact": lambda: api.responses.compact(model="gpt-5", input="hi"),
        "count": lambda: api.responses.input_tokens.count(model="gpt-5", input="hi"),
        "embeddings": lambda: api.embeddings.create(model="e", input="a"),
        "moderations": lambda: api.moderations.create(input="hi"),
        "images": lambda: api.images.generate(prompt="a cat"),
        "edits": lambda: api.images.edit(image=picture, prompt="a hat"),
        "variations": lambda: api.images.create_variation(image=picture),
        "speech": lambda: api.audio.speech.create(input="hi", model="tts-1", voice="alloy"),
        "transcriptions": lambda: api.audio.transcriptions.create(file=speech, model="whisper-1"),
        "text": lambda: api.audio.transcriptions.create(
            file=speech, model="whisper-1", response_format="text"
        ),
        "translations": lambda: api.audio.translations.create(file=speech, model="whisper-1"),
        "models": api.models.list,
        "model": lambda: api.models.retrieve("gpt-4o"),
    }


@pytest.mark.filterwarnings("ignore:deprecated")  # the SDK's word on image variations
def test_the_real_client_walks_every_endpoint() -> None:
    """No call is answered by anything but a 200, and none is left out of the ledger but
    the list of models, which costs nothing.
    """
    server = FakeOpenAI(latency=0)

    async def main() -> list[str]:
        calls = walk(in_process(server))
        return [name for name, call in calls.items() if await call() is None]

    assert run_virtual(main) == []
    assert {entry.status for entry in server.ledger} == {200}
    assert len(server.ledger) == len(walk(in_process(server))) - 2


def test_models_are_listed_and_retrieved_by_name() -> None:
    """Configured names come first, called ones are added, a name that a pattern covers
    can be retrieved, and an unknown name gets the 404 of OpenAI.
    """
    server = FakeOpenAI(latency=0, models={"my-model,other-*": {"rpm": 5}, "org/named": {"rpm": 5}})

    async def main() -> tuple[list[str], list[str]]:
        api = in_process(server)
        await api.embeddings.create(model="called-once", input="a")
        listed = [model.id async for model in api.models.list()]
        names = ("my-model", "other-one", "org/named", "called-once", "gpt-4o")
        retrieved = [(await api.models.retrieve(name)).id for name in names]
        with pytest.raises(openai.NotFoundError, match="'unknown' does not exist"):
            await api.models.retrieve("unknown")

        return listed, retrieved

    listed, retrieved = run_virtual(main)

    assert listed[:2] == ["my-model", "org/named"]
    assert "called-once" in listed
    assert "gpt-4o" in listed
    assert retrieved == ["my-model", "other-one", "org/named", "called-once", "gpt-4o"]


def test_a_prompt_that_repeats_is_cached() -> None:
    """From 1,024 tokens on, in steps of 128, a prompt's beginning is read from the
    cache when it was there before, and the rest is written; each model has its own.
    """
    long = "the of and to " * 500
    first: Any = [{"role": "system", "content": long}, *HI]

    async def main() -> list[tuple[int | None, int | None]]:
        api, found = in_process(FakeOpenAI(latency=0, tpm=None)), []
        longer = [*first, {"role": "assistant", "content": long}, *HI]
        for model, messages in (
            ("gpt-4o", HI),
            ("gpt-4o", first),
            ("gpt-4o", first),
            ("gpt-4o", longer),
            ("gpt-4o-mini", first),
        ):
            answer = await api.chat.completions.create(model=model, messages=messages)
            assert answer.usage
            details = answer.usage.prompt_tokens_details
            assert details
            found.append((details.cached_tokens, details.cache_write_tokens))

        return found

    short, written, read, extended, elsewhere = run_virtual(main)

    assert short == (0, 0)
    assert written == elsewhere == (0, 1920)
    assert read == (1792, 128)
    assert extended == (1792, 2176)


def test_the_cache_ends_with_its_time() -> None:
    """Ten minutes after its last use a prompt is written again."""
    long: Any = [{"role": "user", "content": "the of and to " * 500}]

    async def main() -> list[int]:
        server, cached = FakeOpenAI(latency=0, tpm=None), []
        for pause in (0, 500, 500, 601):
            await asyncio.sleep(pause)
            await in_process(server).chat.completions.create(model="gpt-4o", messages=long)
            usage = server.ledger[-1].usage
            cached.append(usage.cached_tokens if usage else -1)

        return cached

    assert run_virtual(main) == [0, 1792, 1792, 0]


@pytest.mark.parametrize(
    ("body", "reasoning"),
    [
        ({"model": "gpt-4o"}, 0),
        ({"model": "gpt-5"}, 448),
        ({"model": "gpt-5", "reasoning_effort": "minimal"}, 0),
        ({"model": "o3", "reasoning_effort": "high"}, 704),
    ],
)
def test_reasoning_models_spend_tokens_unseen(body: dict[str, Any], reasoning: int) -> None:
    """They are in the usage and its details, and not in the text."""
    server = FakeOpenAI(latency=0, output=1_000, output_spread=0)

    async def main() -> chat.ChatCompletion:
        answer: chat.ChatCompletion = await in_process(server).chat.completions.create(
            messages=HI, **body
        )
        return answer

    answer = run_virtual(main)
    assert answer.usage
    assert answer.usage.completion_tokens_details

    assert answer.usage.completion_tokens == 1_000
    assert answer.usage.completion_tokens_details.reasoning_tokens == reasoning
    assert len((answer.choices[0].message.content or "").split()) == 1_000 - reasoning


def test_a_workload_sets_every_figure_of_the_usage() -> None:
    """`x-fake-usage` sets cached and reasoning tokens too, each within its whole."""
    known = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 99,
        "reasoning_tokens": 5,
    }
    server = FakeOpenAI(latency=0)

    async def main() -> responses.Response:
        return await in_process(server).responses.create(
            model="m", input="hi", extra_headers={"x-fake-usage": json.dumps(known)}
        )

    answer = run_virtual(main)
    assert answer.usage

    assert server.ledger[0].usage == Usage(10, 20, cached_tokens=10, reasoning_tokens=5)
    assert answer.usage.input_tokens_details.cached_tokens == 10
    assert answer.usage.output_tokens_details.reasoning_tokens == 5
    assert len(answer.output_text.split()) == 15
