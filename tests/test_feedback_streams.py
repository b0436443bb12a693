"""Streams that pass in pieces: their usage, their text and their errors."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ConfigDict

from ratelimit.feedback import SSEUsage, StreamUsage, Usage, read_error
from ratelimit.feedback.streams import MOST_CHOICES, MOST_TEXT
from ratelimit.feedback.untrusted import field

CHAT = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def sse(*events: object, end: str = "\n") -> bytes:
    """Write events as a server does."""
    written = [
        event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        for event in events
    ]
    return "".join(f"data: {data}{end}{end}" for data in written).encode()


def word(content: str, **more: object) -> dict[str, object]:
    """Make one chat chunk."""
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": content}}]} | more


STREAMS = [
    (
        "chat",
        sse(word("Héllo"), word(" wörld"), {"id": "x", "choices": [], "usage": CHAT}, "[DONE]"),
        (Usage(10, 5, 15, 4), "Héllo wörld", None),
    ),
    ("no usage", sse(word("Hello"), word("!"), "[DONE]"), (None, "Hello!", None)),
    ("cut off", sse(word("Hello")) + b'data: {"choices": [{"del', (None, "Hello", None)),
    (
        "cumulative usage",
        sse(
            word("a", usage={"prompt_tokens": 3, "completion_tokens": 1}),
            word("b", usage={"prompt_tokens": 3, "completion_tokens": 2}),
            "[DONE]",
        ),
        (Usage(3, 2, 5), "ab", None),
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
        (Usage(7, 2, 9), "Hi{}", None),
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
        (None, "", {"message": "slow", "code": "rate_limit_exceeded"}),
    ),
    (
        "error event",
        sse({"type": "error", "code": "server_error", "message": "oops"}),
        (None, "", {"message": "oops", "code": "server_error", "type": "error"}),
    ),
    (
        "chat error",
        sse({"error": {"message": "oops", "type": "server_error"}}),
        (None, "", {"message": "oops", "type": "server_error"}),
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
        (Usage(7, 9, 16), "Hi", None),
    ),
    (
        "legacy",
        sse(
            {"choices": [{"text": "abc"}]},
            {"choices": [{"text": "def"}], "usage": None},
            "[DONE]",
            end="\r",
        ),
        (None, "abcdef", None),
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
        (None, 'f{"a":1}', None),
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

    assert (reader.usage, reader.text, reader.error) == expected


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
        assert reader._members is None or len(reader._members._member) <= 80_000
    talk = sse(word("b" * 100_000))
    for _ in range(20):
        reader.feed(talk)

    assert reader.usage == Usage(7, 2, 9)
    assert len(reader.text) == MOST_TEXT


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


def test_a_name_that_a_chunk_lacks_is_not_asked_of_pydantic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own look-up of a missing name would be most of the cost of a stream."""
    asked: list[str] = []
    monkeypatch.setattr(BaseModel, "__getattr__", lambda _, name: asked.append(name))
    stream = StreamUsage()
    stream.feed(ChatCompletionChunk.construct(None, **word("Hello", usage=CHAT)))

    assert (stream.text, stream.usage) == ("Hello", Usage(10, 5, 15, 4))
    assert asked == []


class Model(BaseModel):
    """An object with every kind of attribute that pydantic's may have."""

    model_config = ConfigDict(extra="allow")
    declared: int = 1
    constant: ClassVar[int] = 2

    @property
    def computed(self) -> int:
        return 3


class Forwarding(Model):
    """One that looks names up by itself."""

    def __getattr__(self, name: str) -> int:
        return 5


def test_a_name_is_found_wherever_an_object_keeps_it() -> None:
    """In a field, a class, a property, what came besides, or a look-up of its own."""
    names = ("declared", "constant", "computed", "besides", "missing")
    found = [
        [field(kind.model_validate({"besides": 4}), name) for name in names]
        for kind in (Model, Forwarding)
    ]

    assert found == [[1, 2, 3, 4, None], [1, 2, 3, 5, 5]]


@pytest.mark.parametrize("count", [-5, "9", 1e30, float("nan"), True, [9]])
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens", "total_tokens"])
def test_a_usage_that_cannot_be_takes_back_an_earlier_one(name: str, count: object) -> None:
    """What a stream has used by half of it is not what it has used."""
    stream = StreamUsage()
    stream.feed(word("a", usage={"prompt_tokens": 3, "completion_tokens": 1}))
    stream.feed(word("b", usage={"prompt_tokens": 3, "completion_tokens": 9, name: count}))
    taken_back = stream.usage
    for usage in (None, {}, {"prompt_tokens": 0, "completion_tokens": 0}):
        stream.feed(word("c", usage={"prompt_tokens": 3, "completion_tokens": 12}))
        stream.feed({"choices": [], "usage": usage})

    assert taken_back is None
    assert stream.usage == Usage(3, 12, 15)


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"status": 429, "message": "slow"}},
        {"error": {"status_code": 429, "code": "from upstream"}},
        {"choices": [{"index": 0, "error": {"code": 429}, "finish_reason": "error"}]},
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}},
    ],
)
def test_an_error_inside_a_stream_keeps_what_makes_it_a_refusal(event: object) -> None:
    """Its status and its code, of the stream or of a choice."""
    stream = SSEUsage()
    stream.feed(sse(word("Hello"), event))

    assert read_error(stream.error) is not None


def choice(index: int, reason: str | None = None) -> dict[str, object]:
    """Make one choice of a chat chunk."""
    return {"index": index, "delta": {"content": "a"}, "finish_reason": reason}


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([], False),
        ([{"choices": []}], False),
        ([word("a"), word("b")], False),
        ([word("a"), {"choices": [choice(0, "stop")]}], True),
        ([word("a"), {"choices": [choice(0, "stop")]}, {"choices": [], "usage": CHAT}], True),
        ([{"choices": [choice(0), choice(1)]}, {"choices": [choice(0, "stop")]}], False),
        (
            [
                {"choices": [choice(0), choice(1)]},
                {"choices": [choice(0, "stop")]},
                {"choices": [choice(1, "length")]},
            ],
            True,
        ),
        ([{"choices": [choice(0, "stop")]}, {"choices": [choice(0)], "usage": CHAT}], True),
        ([{"choices": [choice(0, "stop")]}, {"choices": [choice(0)]}, word("b")], True),
        ([{"choices": [choice(0, "stop")]}, {"choices": [choice(1)]}], False),
        ([{"type": "response.output_text.delta", "delta": "a"}], False),
        ([{"type": "response.completed", "response": {}}], True),
        ([{"type": "message_stop"}], True),
        ([word("a"), "[DONE]"], True),
    ],
)
def test_a_stream_is_finished_with_its_last_word(events: list[object], finished: bool) -> None:
    """Whoever leaves it then has read the whole answer; of several choices, all of
    them.
    """
    stream = SSEUsage()
    stream.feed(sse(*events))

    assert stream.finished == finished


def test_a_stream_of_endless_choices_is_kept_in_bounds() -> None:
    """Which of them have ended is remembered of as many as a request can ask for."""
    stream = StreamUsage()
    for index in range(10_000):
        stream.feed({"choices": [choice(index), choice(-index, "stop"), choice(10**index)]})

    assert len(stream._unfinished) + len(stream._ended) <= MOST_CHOICES
    assert not stream.finished
