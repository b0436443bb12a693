"""What an answer says that it used, by every provider's names."""

from __future__ import annotations

import json
from types import MappingProxyType, SimpleNamespace
from typing import Any

import httpx2
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from ratelimit.feedback import JsonReader, SSEUsage, StreamUsage, Usage, read_usage
from ratelimit.feedback.untrusted import LARGEST_USAGE

CHAT = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CHAT, Usage(10, 5, 15, 4)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "total_tokens": 15,
                "input_tokens_details": {"cached_tokens": 4},
            },
            Usage(10, 5, 15, 4),
        ),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 8)),
        ({"total_tokens": 8}, Usage(8, 0, 8)),
        (
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 20,
                "cache_read_input_tokens": 30,
                "output_tokens": 5,
            },
            Usage(60, 5, 65, 30),
        ),
        (
            {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 5},
            Usage(40, 5, 45, 30),
        ),
        (
            {
                "input_tokens": 40,
                "cache_read_input_tokens": 30,
                "output_tokens": 5,
                "total_tokens": 45,
            },
            Usage(40, 5, 45, 30),
        ),
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 40},
            Usage(10, 30, 40),
        ),
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "cachedContentTokenCount": 4,
            },
            Usage(10, 12, 22, 4, 7),
        ),
        (
            {"prompt_token_count": 10, "candidates_token_count": 5, "total_token_count": 15},
            Usage(10, 5, 15),
        ),
        ({"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}, Usage(10, 5, 15)),
        (
            {
                "total_input_tokens": 8,
                "total_tool_use_tokens": 2,
                "total_cached_tokens": 4,
                "total_output_tokens": 3,
                "total_thought_tokens": 2,
                "total_tokens": 15,
            },
            Usage(10, 5, 15, 4, 2),
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 8, "output_tokens": 2},
            Usage(8, 2, 10),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"total_tokens": 0}, None),
        ({"prompt_tokens": 10, "completion_tokens": 10**12}, None),
        ({"prompt_tokens": 10, "completion_tokens": -1, "total_tokens": 9}, None),
        ({"prompt_tokens": 10, "completion_tokens": float("nan"), "total_tokens": 10}, None),
        ({"total_tokens": 2 * 10**9}, None),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}, Usage(10, 5, 15)),
        ({"prompt_tokens": -1, "completion_tokens": float("nan"), "total_tokens": 10**400}, None),
        ({"prompt_tokens": True, "completion_tokens": "7"}, None),
        ({"type": "duration", "seconds": 9}, None),
        ({}, None),
    ],
)
def test_each_providers_names_mean_the_same_counts(
    usage: dict[str, Any], expected: Usage | None
) -> None:
    """A usage object is read bare, inside an answer, as attributes and as JSON;
    nonsense is none.
    """
    assert read_usage(usage) == expected
    assert read_usage({"id": "x", "usage": usage}) == expected
    assert read_usage({"candidates": [], "usageMetadata": usage}) == expected
    assert read_usage(SimpleNamespace(usage=SimpleNamespace(**usage))) == expected
    if expected is not None:
        assert read_usage(json.dumps({"usage": usage})) == expected
        assert read_usage(json.dumps({"usage": usage}).encode()) == expected


COUNT = st.integers(0, 9)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, -1, 10, 10**15, 10**16, True, 7.0, "7", [], {}]
)


@settings(max_examples=200)
@given(
    st.tuples(COUNT, COUNT, COUNT, COUNT),
    st.dictionaries(
        st.sampled_from(
            [*CHAT, "completion_tokens_details", "input_tokens", "prompt_cache_hit_tokens", "x"]
        ),
        COUNT | ODD,
        max_size=1,
    ),
    st.dictionaries(
        st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens"]), ODD, max_size=1
    ),
)
def test_a_usage_means_the_same_in_any_kind_of_mapping(
    counts: tuple[int, int, int, int], odd: dict[str, Any], odd_detail: dict[str, Any]
) -> None:
    """What is read of a plain dict in one step is what is read of any object, field by
    field; one thing is odd about it, or nothing.
    """
    prompt, output, cached, thought = counts
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached} | odd_detail,
        "completion_tokens_details": {"reasoning_tokens": thought} | odd_detail,
    } | odd

    assert read_usage({"usage": usage}) == read_usage({"usage": MappingProxyType(usage)})


def test_sdk_objects_and_http_responses_carry_their_usage() -> None:
    """An SDK answer, its raw response and a response of httpx or requests can be handed
    over as they are.
    """
    answer = {
        "id": "x",
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "choices": [],
        "usage": CHAT,
    }
    body = json.dumps(answer).encode()
    asked = requests.Response()
    asked._content = body
    response = httpx2.Response(200, content=body)

    assert read_usage(ChatCompletion.model_validate(answer)) == Usage(10, 5, 15, 4)
    assert read_usage(response) == Usage(10, 5, 15, 4)
    assert read_usage(SimpleNamespace(http_response=response)) == Usage(10, 5, 15, 4)
    assert read_usage(asked) == Usage(10, 5, 15, 4)


def test_a_response_that_was_not_read_is_not_read_here() -> None:
    """Looking for usage neither reads the network nor raises where nothing was read."""
    assert read_usage(httpx2.Response(200, stream=httpx2.ByteStream(b"{}"))) is None
    assert read_usage(requests.Response()) is None


def test_a_kept_response_is_named_and_its_thoughts_are_told() -> None:
    """A later request that builds on a Response pays for it again, without its
    reasoning: both have to be known.
    """
    details = {"reasoning_tokens": 40}
    found = read_usage(
        {
            "id": "resp_1",
            "usage": {"input_tokens": 10, "output_tokens": 50, "output_tokens_details": details},
        }
    )

    assert found is not None
    assert (found.response_id, found.reasoning_tokens) == ("resp_1", 40)


class Hostile:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "response",
                    "choices",
                    "delta",
                    "content",
                    "total_tokens",
                    "prompt_tokens",
                    "type",
                    "error",
                    "message",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON | st.binary() | st.text() | st.builds(Hostile))
def test_garbage_as_an_answer_never_becomes_an_absurd_usage(answer: object) -> None:
    """Counts that cannot be are no usage, whichever reader they come to."""
    reader, events = JsonReader(), SSEUsage()
    stream = StreamUsage()
    stream.feed(answer)
    body = answer if isinstance(answer, bytes) else repr(answer).encode()
    reader.feed(body)
    reader.close()
    events.feed(b"data: " + body)
    events.close()

    for found in (read_usage(answer), stream.usage, reader.usage, events.usage):
        if found is not None:
            assert found.total_tokens == found.prompt_tokens + found.output_tokens > 0
            assert 0 <= found.cached_tokens <= found.prompt_tokens <= 3 * LARGEST_USAGE
            assert 0 <= found.reasoning_tokens <= found.output_tokens <= 3 * LARGEST_USAGE


USAGES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "promptTokenCount",
            "thoughtsTokenCount",
        ]
    ),
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, "7", "1e300", True, 1e9, 2e9, None, [], {}]),
)


@settings(max_examples=200)
@given(USAGES)
def test_a_figure_that_cannot_be_is_not_replaced_by_a_smaller_one(usage: dict[str, Any]) -> None:
    """What is not known to be less is held in full: an absurd count beside a sane one
    must not settle the call to the sane one.
    """
    found = read_usage({"usage": usage})

    if found is not None:
        assert 0 < found.total_tokens <= 4 * LARGEST_USAGE
        sane = [count for count in usage.values() if type(count) is int and 0 < count <= 1e9]
        assert not sane or found.total_tokens >= min(sane)


def test_moonshots_usage_stands_in_the_first_choice() -> None:
    """The last chunk of its streams has no usage of its own."""
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": CHAT}]}

    assert read_usage(chunk) == Usage(10, 5, 15, 4)
    assert read_usage({"choices": [{"usage": {"completion_tokens": -1}}]}) is None
    assert read_usage({"choices": []}) is None


def test_gemini_streams_a_list_of_chunks() -> None:
    """Without server-sent events its stream is a JSON list; the last chunk counts."""
    chunks = [
        {"candidates": [], "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 4}},
        {"candidates": [], "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 9}},
    ]

    assert read_usage(json.dumps(chunks)) == Usage(3, 6, 9)


def test_a_usage_inside_a_text_is_not_the_answers() -> None:
    """What a model writes, or a tool is given, does not settle its call."""
    body = {
        "choices": [{"message": {"content": '"usage": {"total_tokens": 1}'}}],
        "metadata": {"usage": {"total_tokens": 1}},
        "usage": CHAT,
    }

    assert read_usage(json.dumps(body)) == Usage(10, 5, 15, 4)
