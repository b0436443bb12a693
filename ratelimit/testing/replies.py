"""What a served call is answered: the JSON objects of every endpoint, and the events of
a stream.

Owns: the shapes of answers as the openai client reads them. What must never come in:
HTTP, time, limits. Usage stands in the JSON, in the last event of a chat or completion
stream when `stream_options.include_usage` asks for it, and in `response.completed` of a
Responses stream.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelimit.testing.answers import words
from ratelimit.testing.charges import choices, most_output

if TYPE_CHECKING:
    from ratelimit.testing.ledger import Usage
    from ratelimit.testing.requests import Call

__all__ = ["Event", "failed_event", "model_list", "reply", "stream_events"]

Json = dict[str, Any]


class Event(NamedTuple):
    """What is sent at once of a stream: when `share` of the output has been made (0 to
    1); the last one carries the usage.
    """

    share: float
    data: bytes
    last: bool = False


def reply(call: Call, usage: Usage, *, identity: str, created: int) -> bytes:
    """The body of an answer that is not streamed."""
    match call.endpoint:
        case "chat.completions":
            body = _chat(call, usage, identity, created)
        case "completions":
            body = _completion(call, usage, identity, created)
        case "responses":
            body = _response(call, usage, identity, created, "completed")
        case "embeddings":
            body = _embeddings(call, usage)
        case "moderations":
            result = {
                "flagged": False,
                "categories": {},
                "category_scores": {},
                "category_applied_input_types": {},
            }
            body = {"id": f"modr-{identity}", "model": call.model, "results": [result]}
        case "images":
            body = {
                "created": created,
                "data": [
                    {"url": f"https://images.invalid/{identity}/{index}.png"}
                    for index in range(call.body.get("n") or 1)
                ],
            }
        case "audio.speech":
            return b"RIFF\x00\x00\x00\x00WAVE"
        case _:
            body = {"text": words(0, 12).strip()}
    return json.dumps(body).encode()


def stream_events(
    call: Call, usage: Usage, *, identity: str, created: int, pieces: int
) -> Iterator[Event]:
    """The events of a streamed answer; the text comes in as many as `pieces`."""
    if call.endpoint == "responses":
        return _response_events(call, usage, identity, created, pieces)
    return _chunk_events(call, usage, identity, created, pieces)


def failed_event(call: Call, *, identity: str, created: int, message: str) -> bytes:
    """The event with which a stream fails after its 200: `response.failed`, or an error
    object in a chat stream.
    """
    problem = {"code": "rate_limit_exceeded", "message": message}
    if call.endpoint == "responses":
        failed = _response(call, None, identity, created, "failed") | {"error": problem}
        return _event(
            {"type": "response.failed", "sequence_number": 9999, "response": failed}, named=True
        )
    return _event({"error": problem | {"type": "tokens", "param": None}})


def _split(total: int, parts: int) -> list[int]:
    """`total` tokens over `parts` choices, as even as can be."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def _finish(call: Call, length: int) -> str:
    return "length" if length == most_output(call.body) else "stop"


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat(call: Call, usage: Usage, identity: str, created: int) -> Json:
    answers = [
        {
            "index": index,
            "message": {"role": "assistant", "content": words(0, length), "refusal": None},
            "logprobs": None,
            "finish_reason": _finish(call, length),
        }
        for index, length in enumerate(
            _split(usage.completion_tokens, choices(call.endpoint, call.body))
        )
    ]
    head = {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": created,
        "model": call.model,
    }
    return head | {
        "choices": answers,
        "usage": _usage(usage),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def _completion(call: Call, usage: Usage, identity: str, created: int) -> Json:
    answers = [
        {
            "index": index,
            "text": words(0, length),
            "logprobs": None,
            "finish_reason": _finish(call, length),
        }
        for index, length in enumerate(
            _split(usage.completion_tokens, choices(call.endpoint, call.body))
        )
    ]
    head = {
        "id": f"cmpl-{identity}",
        "object": "text_completion",
        "created": created,
        "model": call.model,
    }
    return head | {"choices": answers, "usage": _usage(usage)}


def _embeddings(call: Call, usage: Usage) -> Json:
    given = call.body.get("input")
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    size = call.body.get("dimensions") or 8
    vector: list[float] | str = [0.5] * size
    if call.body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<f", 0.5) * size).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    billed = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    return {"object": "list", "data": data, "model": call.model, "usage": billed}


def _message(identity: str, text: str, status: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def _response(call: Call, usage: Usage | None, identity: str, created: int, status: str) -> Json:
    billed = usage and {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": call.body.get("instructions"),
        "max_output_tokens": call.body.get("max_output_tokens"),
        "model": call.model,
        "output": [_message(identity, words(0, usage.completion_tokens), "completed")]
        if usage
        else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "metadata": {},
        "usage": billed,
    }


def _event(data: Mapping[str, Any], *, named: bool = False) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _chunk_events(
    call: Call, usage: Usage, identity: str, created: int, pieces: int
) -> Iterator[Event]:
    chat = call.endpoint == "chat.completions"
    counted = (
        isinstance(options := call.body.get("stream_options"), dict)
        and options.get("include_usage") is True
    )
    lengths = _split(usage.completion_tokens, choices(call.endpoint, call.body))
    head: Json = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{identity}",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": created,
        "model": call.model,
    }

    def chunk(index: int, delta: Json, finish: str | None) -> bytes:
        content = {"delta": delta} if chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        return _event(head | {"choices": [choice]} | ({"usage": None} if counted else {}))

    yield Event(
        0.0,
        b"".join(
            chunk(index, {"role": "assistant", "content": ""}, None)
            for index in range(len(lengths))
        ),
    )
    for piece in range(pieces):
        texts = (
            (index, words(length * piece // pieces, length * (piece + 1) // pieces))
            for index, length in enumerate(lengths)
        )
        yield Event(
            (piece + 1) / pieces,
            b"".join(chunk(index, {"content": text}, None) for index, text in texts if text),
        )
    end = [chunk(index, {}, _finish(call, length)) for index, length in enumerate(lengths)]
    if counted:
        end.append(_event(head | {"choices": [], "usage": _usage(usage)}))
    yield Event(1.0, b"".join([*end, b"data: [DONE]\n\n"]), last=True)


def _response_events(
    call: Call, usage: Usage, identity: str, created: int, pieces: int
) -> Iterator[Event]:
    number = 0

    def event(kind: str, **fields: object) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": kind, "sequence_number": number - 1, **fields}, named=True)

    length, item = usage.completion_tokens, f"msg_{identity}"
    place: Json = {"item_id": item, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    started = _response(call, None, identity, created, "in_progress")
    empty = _message(identity, "", "in_progress") | {"content": []}
    opening = [
        event("response.created", response=started),
        event("response.in_progress", response=started),
        event("response.output_item.added", output_index=0, item=empty),
        event("response.content_part.added", **place, part=part),
    ]
    yield Event(0.0, b"".join(opening))
    for piece in range(pieces):
        text = words(length * piece // pieces, length * (piece + 1) // pieces)
        yield Event(
            (piece + 1) / pieces,
            event("response.output_text.delta", **place, delta=text, logprobs=[]),
        )
    text = words(0, length)
    closing = [
        event("response.output_text.done", **place, text=text, logprobs=[]),
        event("response.content_part.done", **place, part=part | {"text": text}),
        event(
            "response.output_item.done", output_index=0, item=_message(identity, text, "completed")
        ),
        event(
            "response.completed", response=_response(call, usage, identity, created, "completed")
        ),
    ]
    yield Event(1.0, b"".join(closing), last=True)


def model_list(names: list[str]) -> bytes:
    """The body of GET /models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in names]
    return json.dumps({"object": "list", "data": data}).encode()
