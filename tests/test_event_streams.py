"""Server-sent events in every form that their standard and their servers give them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.feedback import SSEUsage, StreamUsage, Usage, read_error
from ratelimit.feedback.streams import LONGEST_LINE

USED = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
EVENTS: list[Any] = [
    {"choices": [{"index": 0, "delta": {"content": "Héllo 😀"}}]},
    {"choices": [{"index": 0, "delta": {"content": '{"usage": 1}\n'}, "finish_reason": "stop"}]},
    USED,
]


def passed(body: bytes, *cuts: int) -> SSEUsage:
    """Let a body pass in these pieces."""
    reader = SSEUsage()
    places = sorted(cut % (len(body) + 1) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        reader.feed(body[start:end])
    reader.close()
    return reader


@settings(max_examples=200)
@given(
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    indents=st.tuples(*[st.sampled_from([None, 0, 1])] * 3),
    besides=st.lists(
        st.sampled_from(
            [": ping", "event: message", "id: 5", "id", "retry: 10", "data", ": data:"]
        ),
        min_size=3,
        max_size=3,
    ),
    space=st.sampled_from(["", " "]),
    last=st.sampled_from(["", "\n", "\r\n\r\n"]),
    ascii_only=st.booleans(),
    cuts=st.lists(st.integers(0, 2_000), max_size=12),
)
def test_an_event_is_read_in_whatever_lines_it_comes(
    end: str,
    indents: tuple[int | None, ...],
    besides: list[str],
    space: str,
    last: str,
    ascii_only: bool,
    cuts: list[int],
) -> None:
    """An event may stand in several lines of data, ended in three ways, with or without
    a blank, between other fields; the last one may lack its end.
    """
    written = []
    for event, indent, field in zip(EVENTS, indents, besides, strict=True):
        text = json.dumps(event, indent=indent, ensure_ascii=ascii_only)
        lines = [f"data:{space}{line}" for line in text.split("\n")]
        written.append(end.join([field, *lines]))
    body = (end + end).join(written) + last
    reader = passed(body.encode(), *cuts)

    assert (reader.usage, reader.text) == (Usage(10, 5, 15), 'Héllo 😀{"usage": 1}\n')
    assert reader.finished


def test_events_without_an_empty_line_between_them_are_read() -> None:
    """Some relays end an event by one line end, also one that they have cut."""
    lines = [f"data: {json.dumps(event)}" for event in EVENTS]
    lines.insert(1, 'data: {"choices": [{"ind')
    reader = passed("\n".join([*lines, "data: [DONE]"]).encode())

    assert (reader.usage, reader.text) == (Usage(10, 5, 15), 'Héllo 😀{"usage": 1}\n')
    assert reader.finished


def test_an_event_of_endless_lines_is_kept_in_bounds() -> None:
    """Lines that never become an event fill no memory, and what follows is read."""
    reader = SSEUsage()
    for _ in range(400):
        reader.feed(b"data: {\n" + b"data: " + b"x" * 10_000 + b"\n")
        assert reader._size <= LONGEST_LINE + 20_000
    reader.feed(b"\ndata: " + json.dumps(USED).encode())
    reader.close()

    assert reader.usage == Usage(10, 5, 15)


REFUSED: list[bytes] = [
    b'id:1\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling.RateQuota","message":"slow"}\n\n',
    b'event: error\r\ndata: {"code": 429, "message": "slow"}\r\n\r\n',
    b'event: error\ndata: {"error": {"type": "overloaded_error"}}\n\n',
    b'event: error\ndata: {"type": "rate_limit_error",\ndata: "message": "slow"}\n\n',
    b'data: {"code": 429, "message": "slow"}\n\n',
    b'data: {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}\n\n',
    b'data: {"choices": null, "base_resp": {"status_code": 1002, "status_msg": "x"}}\n\n',
    b'data: {"success": false, "code": 429, "msg": "slow"}\n\n',
    b'data: {"errors": [{"code": 429, "message": "slow"}]}\n\n',
]


@pytest.mark.parametrize("body", REFUSED)
def test_a_refusal_inside_a_stream_is_found_in_a_foreign_shape(body: bytes) -> None:
    """By the name of its event, or by the shape that a vendor gives its errors."""
    start = b"event: message\ndata: " + json.dumps(EVENTS[0]).encode() + b"\n\n"
    for reader in (passed(body), passed(start + body), passed(start + body, *range(200))):
        assert read_error(reader.error) is not None


NOTHING: list[Any] = [{}, "", [], False, 0, None]


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": None},
        {"choices": None, "usage": None, "message": "keep alive"},
        {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": False},
        {"candidates": [{"content": {}}], "code": 429, "message": "hi"},
        {"event_type": "stream-start", "id": "x"},
        {"output": {"text": "hi"}, "code": 429, "message": "hi"},
        *EVENTS,
        *({**EVENTS[0], "error": nothing} for nothing in NOTHING),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "error": {}}]},
        {"type": "response.created", "response": {"error": {}}},
        {},
    ],
)
def test_a_chunk_is_no_error(chunk: Any) -> None:
    """What holds output, or says nothing of a failure, is a part of the answer."""
    stream = StreamUsage()
    stream.feed(chunk)

    assert stream.error is None
    assert passed(b"event: message\ndata: " + json.dumps(chunk).encode()).error is None


def test_the_name_of_one_event_is_not_the_next_ones() -> None:
    """A chunk behind an error event is a chunk."""
    body = b'event: error\ndata: {"code": 1}\n\ndata: ' + json.dumps(USED).encode() + b"\n\n"

    assert passed(b"event: error\n\ndata: " + json.dumps(USED).encode()).error is None
    assert passed(body).usage == Usage(10, 5, 15)
    assert passed(body).error == {"code": 1}
