"""The objects of Responses, whole and streamed.

Owns their shapes, as the openai client reads them. Must never touch HTTP, time or
limits. A stream carries its usage in `response.completed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ratelimit.testing.bodies import Answer, Event, Json, response_usage, server_sent_event

if TYPE_CHECKING:
    from ratelimit.testing.contents import ToolCall

__all__ = ["compaction", "failed", "input_tokens", "response", "response_events"]


def response(answer: Answer) -> Json:
    """Return a finished `response`."""
    return _response(answer, "completed", _items(answer))


def compaction(answer: Answer) -> Json:
    """Return the `response.compaction` of an input."""
    kept = _items(answer)[:1]
    item = {
        "id": f"cmp_{answer.identity}",
        "type": "compaction",
        "encrypted_content": answer.text(8),
    }
    return {
        "id": f"resp_{answer.identity}",
        "object": "response.compaction",
        "created_at": answer.created,
        "output": [*kept, item],
        "usage": response_usage(answer.usage),
    }


def input_tokens(answer: Answer) -> Json:
    """Return the count of an input's tokens."""
    return {"object": "response.input_tokens", "input_tokens": answer.usage.prompt_tokens}


def failed(answer: Answer, problem: Mapping[str, Any]) -> bytes:
    """Return the event with which a stream fails after its 200."""
    broken = _response(answer, "failed", []) | {"usage": None, "error": dict(problem)}
    event = {"type": "response.failed", "sequence_number": 9_999, "response": broken}
    return server_sent_event(event, named=True)


def response_events(answer: Answer, pieces: int) -> Iterator[Event]:
    """Return the events of a stream, its text or arguments in `pieces`."""
    events = _Events()
    started = _response(answer, "in_progress", []) | {"usage": None}
    yield Event(
        0.0,
        events.make("response.created", response=started)
        + events.make("response.in_progress", response=started),
    )
    if answer.content.calls:
        yield from _call_events(answer, events, pieces)
    else:
        yield from _text_events(answer, events, pieces)

    yield Event(1.0, events.make("response.completed", response=response(answer)), last=True)


class _Events:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self._next = 0

    def make(self, kind: str, **fields: object) -> bytes:
        number, self._next = self._next, self._next + 1
        return server_sent_event({"type": kind, "sequence_number": number, **fields}, named=True)


def _text_events(answer: Answer, events: _Events, pieces: int) -> Iterator[Event]:
    text = answer.text(answer.output)
    item = _message(answer, text, "completed")
    place: Json = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = item | {"status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    opening = events.make("response.output_item.added", output_index=0, item=empty)
    yield Event(0.0, opening + events.make("response.content_part.added", **place, part=part))

    for number, piece in enumerate(answer.pieces(answer.output, pieces), start=1):
        if not piece:
            continue

        data = events.make("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield Event(number / pieces, data)

    closing = [
        events.make("response.output_text.done", **place, text=text, logprobs=[]),
        events.make("response.content_part.done", **place, part=part | {"text": text}),
        events.make("response.output_item.done", output_index=0, item=item),
    ]
    yield Event(1.0, b"".join(closing))


def _call_events(answer: Answer, events: _Events, pieces: int) -> Iterator[Event]:
    calls = answer.content.calls
    for index, call in enumerate(calls):
        item, field = _call(answer, index, call), "input" if call.custom else "arguments"
        kind = (
            "response.custom_tool_call_input" if call.custom else "response.function_call_arguments"
        )
        opened = item | {field: ""} | ({} if call.custom else {"status": "in_progress"})
        place: Json = {"item_id": item["id"], "output_index": index}
        data = events.make("response.output_item.added", output_index=index, item=opened)
        yield Event(index / len(calls), data)

        size = len(call.arguments)
        for piece in range(pieces):
            text = call.arguments[size * piece // pieces : size * (piece + 1) // pieces]
            share = (index + (piece + 1) / pieces) / len(calls)
            if text:
                yield Event(share, events.make(f"{kind}.delta", **place, delta=text))

        done = {field: call.arguments} | ({} if call.custom else {"name": call.name})
        closing = events.make(f"{kind}.done", **place, **done)
        closing += events.make("response.output_item.done", output_index=index, item=item)
        yield Event((index + 1) / len(calls), closing)


def _items(answer: Answer) -> list[Json]:
    calls = answer.content.calls
    if calls:
        return [_call(answer, index, call) for index, call in enumerate(calls)]

    return [_message(answer, answer.text(answer.output), "completed")]


def _message(answer: Answer, text: str, status: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{answer.identity}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def _call(answer: Answer, index: int, call: ToolCall) -> Json:
    named = {"call_id": f"call_{answer.identity[-20:]}{index}", "name": call.name}
    if call.custom:
        identity = {"id": f"ctc_{answer.identity}{index}", "type": "custom_tool_call"}
        return identity | named | {"input": call.arguments}

    identity = {"id": f"fc_{answer.identity}{index}", "type": "function_call"}
    return identity | named | {"arguments": call.arguments, "status": "completed"}


def _response(answer: Answer, status: str, output: list[Json]) -> Json:
    """Return the response with what its request has set, and the defaults else."""
    body = answer.call.body
    return {
        "id": f"resp_{answer.identity}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata") or {},
        "model": answer.call.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": response_usage(answer.usage),
    }


def _tool(given: Any) -> Any:
    """Return a tool as the response repeats it, a function with its defaults."""
    if isinstance(given, Mapping) and given.get("type") == "function":
        return {"parameters": None, "strict": True, "description": None, **given}

    return given
