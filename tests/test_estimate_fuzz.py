"""Any JSON in any place, and what is no JSON: the estimator answers, keeps its
promises, and repeats no warning.

The generator, `bodies`, is also what `benchmarks/estimating.py` times.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import gzip
import json
import random
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ratelimit.estimate import Estimator

RECORDED = Path(__file__).parents[2] / "shared" / "truth" / "calls.jsonl.gz"
BODIES = 20_000


def png(width: int, height: int) -> str:
    """The start of a PNG as a data URL: all that tells its size, and nothing of the
    picture.
    """
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0
    )
    return "data:image/png;base64," + base64.b64encode(head + b"\0" * 40).decode()


WEATHER = {
    "name": "get_weather",
    "description": "Weather at a place.\n\nToday only.",
    "parameters": {
        "type": "object",
        "title": "Waiter",
        "properties": {
            "city": {"type": "string", "description": "Its name", "default": "Ulm"},
            "unit": {"enum": ["C", "F"], "type": "string"},
            "days": {"type": ["integer", "null"], "minimum": 0},
            "where": {
                "anyOf": [
                    {"$ref": "#/$defs/Point"},
                    {"type": "array", "items": {"$ref": "#/$defs/Point"}},
                ]
            },
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {
            "Point": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "next": {"$ref": "#/$defs/Point"}},
            }
        },
    },
    "strict": True,
}
SCHEMA = {
    "name": "answer",
    "description": "An answer",
    "schema": WEATHER["parameters"],
    "strict": True,
}

# One body, or a few, for every endpoint and every kind of content: what the recorded
# calls hold and what they do not.
SEEDS: tuple[dict[str, Any], ...] = (
    {"model": "gpt-4o", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "ann"}]},
    {
        "model": "gpt-4o-mini",
        "n": 3,
        "max_tokens": 200,
        "stop": ["\n"],
        "stream": True,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this? 这是什么？"},
                    {"type": "image_url", "image_url": {"url": png(1024, 768), "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF", "format": "wav"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}},
                ],
            },
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "audio": {"id": "audio_1"}},
        ],
    },
    {
        "model": "gpt-4.1",
        "tools": [{"type": "function", "function": WEATHER}, {"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": True,
        "messages": [
            {"role": "developer", "content": "Use the tools."},
            {"role": "user", "content": "Ulm and Bonn?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Ulm"}'}},
                    {"id": "b", "type": "function", "function": {"name": "get_weather", "arguments": "{not json"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "sun"}]},
        ],
    },
    {
        "model": "gpt-5-mini",
        "reasoning_effort": "low",
        "max_completion_tokens": 1000,
        "response_format": {"type": "json_schema", "json_schema": SCHEMA},
        "prediction": {"type": "content", "content": "once"},
        "messages": [{"role": "user", "content": "Think."}],
    },
    {
        "model": "gpt-3.5-turbo-0613",
        "functions": [WEATHER],
        "function_call": {"name": "get_weather"},
        "response_format": {"type": "json_object"},
        "messages": [
            {"role": "assistant", "function_call": {"name": "get_weather", "arguments": "{}"}},
            {"role": "function", "name": "get_weather", "content": "rain"},
        ],
    },
    {"model": "gpt-4o-audio-preview", "modalities": ["text", "audio"], "audio": {"voice": "alloy"}, "messages": []},
    {"model": "my-gpt4o", "input": "Hello", "instructions": "Be brief.", "previous_response_id": "resp_1", "max_output_tokens": 50},
    {
        "model": "gpt-4o",
        "input": [
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": png(640, 480)}]},
            {"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}, {"type": "input_image", "file_id": "file_2"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I see", "annotations": []}]},
            {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": '{"city":"Ulm"}'},
            {"type": "function_call_output", "call_id": "a", "output": "rain"},
            {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "rain"}]},
        ],
        "tools": [{"type": "function", **WEATHER}, {"type": "web_search_preview"}, {"type": "mcp", "server_label": "a", "server_url": "https://example.org"}],
        "text": {"format": {"type": "json_schema", **SCHEMA}},
        "tool_choice": "auto",
    },
    {
        "model": "o4-mini",
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I thought"}], "encrypted_content": "gAAAA" * 50},
            {"type": "item_reference", "id": "msg_1"},
            {"type": "computer_call_output", "call_id": "a", "output": {"type": "computer_screenshot", "image_url": png(1280, 800)}},
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "ulm"}},
            {"type": "custom_tool_call", "call_id": "b", "name": "sql", "input": "select 1"},
        ],
        "tools": [
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "image_generation"},
            {"type": "file_search", "vector_store_ids": ["vs"]},
        ],
    },
    {"model": "gpt-5", "prompt": {"id": "pmpt_1", "variables": {"city": "Ulm"}}, "conversation": "conv_1"},
    {"model": "text-embedding-3-small", "input": ["one", "", "three"], "dimensions": 256},
    {"model": "text-embedding-ada-002", "input": [[1, 2, 3], [4]], "encoding_format": "base64"},
    {"model": "text-embedding-3-large", "input": "one"},
    {"model": "gpt-3.5-turbo-instruct", "prompt": ["a", "b"], "max_tokens": 5, "n": 2, "best_of": 3, "suffix": "!", "echo": True},
    {"model": "text-davinci-003", "prompt": [1, 2, 3]},
    {"model": "davinci-002", "prompt": [[1, 2], [3]]},
    {"model": "gpt-image-1", "prompt": "a cat", "n": 2, "size": "1024x1024", "quality": "high"},
    {"model": "gpt-4o-mini-tts", "input": "Hello", "voice": "alloy", "instructions": "slowly"},
    {"model": "whisper-1", "file": b"RIFF", "language": "en", "prompt": "names"},
    {"model": "omni-moderation-latest", "input": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": png(8, 8)}}]},
    {"model": "claude", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]},
    {"model": "deepseek-reasoner", "messages": [{"role": "assistant", "content": "", "reasoning_content": "hm", "prefix": True}]},
    {"messages": [{"role": "user", "content": "no model"}]},
    {},
)  # fmt: skip
ENDPOINTS = (
    None,
    None,
    None,
    "chat.completions",
    "responses",
    "/v1/embeddings",
    "completions",
    "images/generations",
    "audio/speech",
    "moderations",
    "",
)


class Sentinel:
    """What an SDK puts where nothing was given."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


# What nobody would write there: wrong types, extremes, broken texts, and what is no
# JSON at all.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, float("nan"), float("inf"), 10**400, 2**63,
    "", " ", "\ud800", "\udc00\ud800", "\x00", "a" * 9_000, "国" * 4_000, " \t" * 3_000 + "x", "=" * 9_000, "{", '{"a":',
    "<|endoftext|>", "user", "auto", "object", "array", "#/$defs/Point", "#", "#/", "2025-01-01", "https://example.org/x.png",
    "data:image/png;base64,", "data:image/png;base64,!!!", "data:,", "data:image/jpeg;base64,/9j/4AAQSkZJRg==",
    png(0, 0), png(2**31 - 1, 2**31 - 1), png(1, 60_000),
    (), ("a", 1), {1, 2}, b"\xff\xfe", bytearray(b"x"), object(), Sentinel(), dt.datetime(2025, 3, 20, tzinfo=dt.UTC), 1j, str, len,
    MappingProxyType({1: 2}), MappingProxyType({None: "x"}), (piece for piece in "abc"), range(10**9),
)  # fmt: skip
# Containers, as JSON: each use makes new ones, since later mutations change them.
ODD_CONTAINERS = (
    "[]", "{}", "[[]]", "[null]", "[{}]", "[[[]]]", '{"": ""}', "[1, 2]", '["a", 1]', "[true]", str([*range(500)]), f"[{'1, ' * 500}1]",
    '{"type": null}', '{"type": "text"}', '{"type": []}', '{"type": ["null"]}', '{"anyOf": []}', '{"enum": []}', '{"enum": [null, {}, 1.5]}',
    '{"$ref": "#"}', '{"$ref": "#/properties/a"}', '{"$ref": 7}', '{"type": "image_url"}', '{"type": "input_image"}', '{"type": "function"}',
    '{"role": "user"}',
)  # fmt: skip


def odd(chance: random.Random) -> Any:
    """Draw something odd, now and then at the bottom of a deep nest."""
    if chance.random() < 0.3:
        return json.loads(chance.choice(ODD_CONTAINERS))
    drawn = chance.choice(ODD)
    if chance.random() < 0.03:
        for _ in range(chance.choice((3, 30, 300))):
            drawn = chance.choice(
                (
                    [drawn],
                    {"type": "array", "items": drawn},
                    {"properties": {"a": drawn}},
                    {"content": drawn},
                )
            )
    return drawn


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Walk every place in a body, the outermost excepted, down to a sane depth."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield (*path, key)
        if len(path) < 12:
            yield from places(child, (*path, key))


def fresh(seed: dict[str, Any] | str) -> dict[str, Any]:
    """Make a body that may be changed from a seed: a recorded call's JSON, or one of
    SEEDS.
    """
    body: dict[str, Any] = json.loads(seed) if isinstance(seed, str) else copy.deepcopy(seed)
    return body


def mutate(body: dict[str, Any], other: dict[str, Any] | str, chance: random.Random) -> None:
    """Change one place of `body`: something odd, a part of another body, gone, doubled,
    wrapped, or under another name.
    """
    everywhere = list(places(body))
    if not everywhere or chance.random() < 0.1:
        body[
            chance.choice(
                (
                    "messages",
                    "input",
                    "prompt",
                    "tools",
                    "model",
                    "n",
                    "max_tokens",
                    "stop",
                    "text",
                    "x",
                )
            )
        ] = odd(chance)
        return
    *way, last = chance.choice(everywhere)
    parent: Any = body
    for key in way:
        parent = parent[key]
    match chance.randrange(6):
        case 0 | 1:
            parent[last] = odd(chance)
        case 2:
            theirs: Any = fresh(other)
            for key in chance.choice(list(places(theirs)) or [()]):
                theirs = theirs[key]
            parent[last] = theirs
        case 3:
            del parent[last]
        case 4:
            parent[last] = (
                [parent[last]] * chance.choice((1, 2, 40))
                if chance.random() < 0.5
                else {"content": parent[last]}
            )
        case _ if isinstance(parent, dict):
            parent[
                chance.choice(
                    (
                        "type",
                        "content",
                        "text",
                        "role",
                        "name",
                        "input",
                        "parameters",
                        "items",
                        "\ud800",
                    )
                )
            ] = parent.pop(last)
        case _:
            parent.insert(0, odd(chance))


def bodies(number: int, seed: int = 20250320) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Generate requests and the endpoint they are sent to (None: not said): all the
    seeds, then mutations of up to four places.

    Recorded calls are seeds too, where their file is present.
    """
    chance = random.Random(seed)
    seeds: list[dict[str, Any] | str] = [*SEEDS]
    if RECORDED.exists():
        with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
            recorded = [json.dumps(json.loads(line)["request"]) for line in lines]
        seeds += [body for body in recorded if len(body) < 10_000]
    for index in range(number):
        own = index < len(SEEDS) or chance.random() < 0.5
        body = fresh(SEEDS[index % len(SEEDS)] if own else chance.choice(seeds))
        if index >= len(SEEDS):
            for _ in range(chance.randint(1, 4)):
                mutate(body, chance.choice(seeds), chance)
        yield body, chance.choice(ENDPOINTS)


def test_any_request_has_an_estimate() -> None:
    """20,000 requests, broken in every way, are each read, cost a sane amount, and no
    warning comes twice.
    """
    estimator = Estimator()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index, (body, endpoint) in enumerate(bodies(BODIES)):
            result = estimator.estimate(body, endpoint=endpoint, site=str(index % 50))
            amounts = (
                result.prompt_tokens,
                result.output_tokens,
                result.charge,
                result.images,
                result.choices,
            )
            assert all(type(amount) is int and amount >= 0 for amount in amounts), (
                index,
                body,
                result,
            )
            assert result.max_output_tokens is None or result.max_output_tokens >= 0, (
                index,
                body,
                result,
            )
            assert estimator.needs_thread(body) in (True, False)
            estimator.learn(result, prompt_tokens=index % 700, output_tokens=index % 90)

    said = [str(warning.message) for warning in caught]
    assert len(said) == len(set(said)) <= 20
    assert not [
        kind for kind in estimator.statistics().warnings if kind.startswith("unreadable")
    ], said


def test_an_estimate_leaves_the_request_alone() -> None:
    """What is estimated is what will be sent: no body is changed by looking at it, no
    generator in it is read.
    """
    estimator = Estimator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for body, endpoint in bodies(1_000, seed=7):
            before = repr(body)
            estimator.estimate(body, endpoint=endpoint)
            estimator.needs_thread(body)
            assert repr(body) == before

        pieces = (piece for piece in "abc")
        estimator.estimate({"model": "gpt-4o", "messages": pieces})
        assert list(pieces) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "request_",
    [None, 1, "text", b"x", [], [{}], (), object(), Sentinel(), {1: 2}, str, Exception("x")],
)
def test_what_is_no_request_has_an_estimate(request_: object) -> None:
    """Anything at all in the place of a request is a guess, not an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Estimator().estimate(request_).prompt_tokens >= 0


@pytest.mark.parametrize("levels", [100, 1_000, 100_000])
def test_a_bottomless_body_has_an_estimate(levels: int) -> None:
    """Nesting beyond what Python can follow is a guess, not an exception, wherever it
    stands.
    """
    deep: Any = "x"
    schema: Any = {"type": "string"}
    for _ in range(levels):
        deep, schema = [deep], {"type": "object", "properties": {"a": schema}}
    function = {"type": "function", "function": {"name": "a", "parameters": schema}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for body in (
            {"messages": deep},
            {"messages": [{"role": "user", "content": deep}]},
            {"messages": [], "tools": [function]},
            {
                "messages": [],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": schema},
                },
            },
            {"input": deep},
            {
                "input": "a",
                "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}},
            },
            {"model": "text-embedding-3-small", "input": deep},
            {"prompt": deep},
        ):
            assert Estimator().estimate(body).prompt_tokens >= 0


def test_a_body_that_holds_itself_has_an_estimate() -> None:
    """A circle, which no JSON can be but a Python object can, ends."""
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [], "tools": []}
    body["messages"].append({"role": "user", "content": body["messages"]})
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"]["itself"] = schema
    body["tools"].append({"type": "function", "function": {"name": "a", "parameters": schema}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Estimator().estimate(body).prompt_tokens >= 0
