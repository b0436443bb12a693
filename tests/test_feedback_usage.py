import json
from types import MappingProxyType, SimpleNamespace
from typing import Any

import httpx2
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ratelimit.feedback.usage import MOST_TEXT, SSEUsage, StreamUsage, Usage, read_usage

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
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 40},
            Usage(10, 30, 40),
        ),
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
    assert read_usage(SimpleNamespace(usage=SimpleNamespace(**usage))) == expected
    if expected is not None:
        assert read_usage(json.dumps({"usage": usage})) == expected
        assert read_usage(json.dumps({"usage": usage}).encode()) == expected


COUNT = st.integers(0, 9)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, -1, 10, 10**15, 10**16, True, 7.0, "7", [], {}]
)


@settings(max_examples=300)
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
    """Looking for usage must not read the network nor raise because nobody read it yet."""
    assert read_usage(httpx2.Response(200, stream=httpx2.ByteStream(b"{}"))) is None
    assert read_usage(requests.Response()) is None


@pytest.mark.parametrize("numbers", [10, 200_000])
def test_a_large_answer_is_read_from_its_end(numbers: int) -> None:
    """An embeddings answer of a megabyte gives its usage, and a "usage" inside its text
    is not taken for it.
    """
    body = {
        "data": [0.5] * numbers,
        "note": 'say "usage": {"total_tokens": 1}',
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
        "name": "usage",
    }

    assert read_usage(json.dumps(body).encode()) == Usage(8, 0, 8)
    assert read_usage(json.dumps(body)) == Usage(8, 0, 8)


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
def test_garbage_as_an_answer_never_raises(answer: object) -> None:
    """Usage that cannot be believed is no usage."""
    found = read_usage(answer)
    if found is not None:
        assert 0 <= found.prompt_tokens <= found.total_tokens <= 2e15
        assert found.total_tokens >= found.prompt_tokens + found.output_tokens
        assert 0 <= found.cached_tokens <= found.prompt_tokens
    stream = StreamUsage()
    stream.feed(answer)
    assert len(stream.text) <= stream.text_length


def sse(*events: object, end: str = "\n") -> bytes:
    """Write events as a server does."""
    return "".join(
        f"data: {event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)}{end}{end}"
        for event in events
    ).encode()


def word(content: str, **more: object) -> dict[str, object]:
    """Make one chat chunk."""
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": content}}]} | more


STREAMS = [
    (
        "chat",
        sse(word("Héllo"), word(" wörld"), {"id": "x", "choices": [], "usage": CHAT}, "[DONE]"),
        (Usage(10, 5, 15, 4), "Héllo wörld", None, True),
    ),
    ("no usage", sse(word("Hello"), word("!"), "[DONE]"), (None, "Hello!", None, True)),
    ("cut off", sse(word("Hello")) + b'data: {"choices": [{"del', (None, "Hello", None, False)),
    (
        "cumulative usage",
        sse(
            word("a", usage={"prompt_tokens": 3, "completion_tokens": 1}),
            word("b", usage={"prompt_tokens": 3, "completion_tokens": 2}),
            "[DONE]",
        ),
        (Usage(3, 2, 5), "ab", None, True),
    ),
    (
        "responses",
        b"event: response.output_text.delta\n"
        + sse(
            {"type": "response.output_text.delta", "delta": "Hi"},
            {"type": "response.function_call_arguments.delta", "delta": "{}"},
            {
                "type": "response.completed",
                "response": {
                    "error": None,
                    "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
                },
            },
        ),
        (Usage(7, 2, 9), "Hi{}", None, True),
    ),
    (
        "failed inside",
        sse(
            {"type": "response.created", "response": {"error": None, "usage": None}},
            {
                "type": "response.failed",
                "response": {
                    "error": {"code": "rate_limit_exceeded", "message": "slow"},
                    "usage": None,
                },
            },
        ),
        (None, "", {"message": "slow", "code": "rate_limit_exceeded", "type": None}, True),
    ),
    (
        "error event",
        sse({"type": "error", "code": "server_error", "message": "oops"}),
        (None, "", {"message": "oops", "code": "server_error", "type": "error"}, True),
    ),
    (
        "chat error",
        sse({"error": {"message": "oops", "type": "server_error"}}),
        (None, "", {"message": "oops", "code": None, "type": "server_error"}, True),
    ),
    (
        "anthropic",
        sse(
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 7, "output_tokens": 1}},
            },
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "message_delta", "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
            end="\r\n",
        ),
        (Usage(7, 9, 16), "Hi", None, True),
    ),
    (
        "legacy",
        sse(
            {"choices": [{"text": "abc"}]},
            {"choices": [{"text": "def"}], "usage": None},
            "[DONE]",
            end="\r",
        ),
        (None, "abcdef", None, True),
    ),
    (
        "tools",
        sse(
            {
                "choices": [
                    {
                        "delta": {
                            "tool_calls": [
                                {"function": {"name": "f", "arguments": '{"a"'}},
                                {"function": {"arguments": ":1}"}},
                            ]
                        }
                    }
                ]
            }
        ),
        (None, 'f{"a":1}', None, False),
    ),
]


@pytest.mark.parametrize(
    ("body", "expected"), [case[1:] for case in STREAMS], ids=[case[0] for case in STREAMS]
)
@given(data=st.data())
def test_a_stream_means_the_same_however_it_is_cut(
    body: bytes, expected: tuple[object, ...], data: st.DataObject
) -> None:
    """Network pieces end anywhere, in the middle of a character or a line end; usage,
    text and error must not notice.
    """
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    reader = SSEUsage()
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        reader.feed(body[start:end])
    reader.close()

    assert (reader.usage, reader.text, reader.error, reader.finished) == expected


def test_a_stream_that_ends_without_a_line_end_still_counts() -> None:
    """The last event may come without its empty line."""
    reader = SSEUsage()
    reader.feed(sse({"usage": CHAT}).rstrip())
    reader.close()

    assert reader.usage == Usage(10, 5, 15, 4)


def test_memory_stays_bounded_while_the_usage_is_still_found() -> None:
    """Events of many megabytes and endless text are not kept; what stands at their end
    is still read.
    """
    reader = SSEUsage()
    picture = "A" * 5_000_000
    body = sse(
        {
            "type": "response.completed",
            "response": {"output": picture, "usage": {"input_tokens": 7, "output_tokens": 2}},
        }
    )
    for start in range(0, len(body), 10_000):
        reader.feed(body[start : start + 10_000])
        assert len(reader._line) <= 1_010_000
    talk = sse(word("b" * 100_000))
    for _ in range(20):
        reader.feed(talk)

    assert reader.usage == Usage(7, 2, 9)
    assert (len(reader.text), reader.text_length) == (MOST_TEXT, 2_000_000)


def test_sdk_chunks_are_read_as_the_bytes_are() -> None:
    """The decorator sees the SDK's objects where the transport sees bytes: the same
    figures come out.
    """
    stream = StreamUsage()
    base = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    for chunk in (word("Hello"), word(" you"), {"choices": [], "usage": CHAT}):
        stream.feed(ChatCompletionChunk.model_validate(base | chunk))

    assert (stream.text, stream.usage) == ("Hello you", Usage(10, 5, 15, 4))


@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [b"data:", b"\n", b"\r\n", b"data: {}", b'data: {"error": 5}', b"data: [[[["]
        )
    )
)
def test_garbage_in_a_stream_never_raises(pieces: list[bytes]) -> None:
    """A proxy may answer anything under text/event-stream."""
    reader = SSEUsage()
    for piece in pieces:
        reader.feed(piece)
    reader.close()

    assert reader.usage is None


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
