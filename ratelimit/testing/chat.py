"""The objects of chat and of legacy completions, whole and streamed.

Owns their shapes, as the openai client reads them. Must never touch HTTP, time or
limits. A stream carries its usage in its last chunk, when
`stream_options.include_usage` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ratelimit.testing.bodies import Answer, Event, Json, chat_usage, server_sent_event
from ratelimit.testing.charges import most_output

if TYPE_CHECKING:
    from ratelimit.testing.contents import ToolCall

__all__ = ["chat_completion", "chunks", "text_completion"]


def chat_completion(answer: Answer) -> Json:
    """Return a `chat.completion`."""
    made = [
        {
            "index": index,
            "message": _message(answer, index, length),
            "logprobs": None,
            "finish_reason": _finish(answer, length),
        }
        for index, length in enumerate(answer.lengths())
    ]
    return _head(answer, "chatcmpl", "chat.completion") | {
        "choices": made,
        "usage": chat_usage(answer.usage),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def text_completion(answer: Answer) -> Json:
    """Return a legacy `text_completion`."""
    made = [
        {
            "index": index,
            "text": answer.text(length),
            "logprobs": None,
            "finish_reason": _finish(answer, length),
        }
        for index, length in enumerate(answer.lengths())
    ]
    head = _head(answer, "cmpl", "text_completion")
    return head | {"choices": made, "usage": chat_usage(answer.usage)}


def chunks(answer: Answer, pieces: int) -> Iterator[Event]:
    """Return the chunks of a stream, its text or arguments in `pieces`."""
    chat = answer.call.endpoint == "chat.completions"
    name = ("chatcmpl", "chat.completion.chunk") if chat else ("cmpl", "text_completion")
    head = _head(answer, *name)
    counted = _usage_is_wanted(answer)
    lengths = answer.lengths()

    def chunk(index: int, delta: Json, finish: str | None = None) -> bytes:
        content = {"delta": delta} if chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if counted else {}
        return server_sent_event(head | {"choices": [choice]} | usage)

    first = [chunk(index, _first_delta(answer, index)) for index in range(len(lengths))]
    yield Event(0.0, b"".join(first))

    deltas = [list(_deltas(answer, length, pieces)) for length in lengths]
    for piece in range(pieces):
        made = ((index, choice[piece]) for index, choice in enumerate(deltas))
        data = b"".join(chunk(index, delta) for index, delta in made if delta)
        yield Event((piece + 1) / pieces, data)

    end = [chunk(index, {}, _finish(answer, length)) for index, length in enumerate(lengths)]
    if counted:
        end.append(server_sent_event(head | {"choices": [], "usage": chat_usage(answer.usage)}))

    yield Event(1.0, b"".join([*end, b"data: [DONE]\n\n"]), last=True)


def _head(answer: Answer, prefix: str, kind: str) -> Json:
    return {
        "id": f"{prefix}-{answer.identity}",
        "object": kind,
        "created": answer.created,
        "model": answer.call.model,
    }


def _finish(answer: Answer, length: int) -> str:
    if answer.content.calls:
        return "tool_calls"

    return "length" if length == most_output(answer.call.body) else "stop"


def _usage_is_wanted(answer: Answer) -> bool:
    options = answer.call.body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _message(answer: Answer, choice: int, length: int) -> Json:
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    calls = answer.content.calls
    if calls:
        numbered = (_tool_call(answer, choice, place, call) for place, call in enumerate(calls))
        return message | {"tool_calls": list(numbered)}

    return message | {"content": answer.text(length)}


def _tool_call(answer: Answer, choice: int, place: int, call: ToolCall) -> Json:
    identity = f"call_{answer.identity[-20:]}{choice}{place}"
    if call.custom:
        tool = {"name": call.name, "input": call.arguments}
        return {"id": identity, "type": "custom", "custom": tool}

    function = {"name": call.name, "arguments": call.arguments}
    return {"id": identity, "type": "function", "function": function}


def _first_delta(answer: Answer, choice: int) -> Json:
    """Return the delta that opens a choice: its role, and its tools by name."""
    calls = answer.content.calls
    if not calls:
        return {"role": "assistant", "content": "", "refusal": None}

    opened = []
    for place, call in enumerate(calls):
        tool = _tool_call(answer, choice, place, call._replace(arguments=""))
        opened.append({"index": place, **tool})

    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": opened}


def _deltas(answer: Answer, length: int, pieces: int) -> Iterator[Json]:
    """Return the deltas of one choice, one for each piece, some of them empty."""
    if not answer.content.calls:
        for text in answer.pieces(length, pieces):
            yield {"content": text} if text else {}

        return

    for piece in range(pieces):
        parts = []
        for place, call in enumerate(answer.content.calls):
            size = len(call.arguments)
            text = call.arguments[size * piece // pieces : size * (piece + 1) // pieces]
            kind, field = ("custom", "input") if call.custom else ("function", "arguments")
            if text:
                parts.append({"index": place, kind: {field: text}})

        yield {"tool_calls": parts} if parts else {}
