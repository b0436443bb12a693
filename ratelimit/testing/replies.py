"""What a served call is answered, by its endpoint.

Owns the choice of the body, and the smaller objects: embeddings, moderations, the list
of models. Must never touch HTTP, time or limits.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.testing import chat, media, responses
from ratelimit.testing.bodies import Answer, Event, Json, server_sent_event

if TYPE_CHECKING:
    from ratelimit.testing.requests import Call

__all__ = [
    "MODELS",
    "Body",
    "as_json",
    "failed_event",
    "is_streamed",
    "model",
    "model_list",
    "reply",
    "stream_events",
]

MODELS: Final = (
    "gpt-5.5",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5-nano",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4",
    "gpt-3.5-turbo",
    "o3",
    "o4-mini",
    "davinci-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
    "gpt-image-1",
    "dall-e-2",
    "dall-e-3",
    "tts-1",
    "whisper-1",
)
"""What the list of models shows, beside those that were configured or called. Every
other name is served as well.
"""
_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_STREAMS: Final = frozenset(
    {
        "chat.completions",
        "completions",
        "responses",
        "images",
        "images.edits",
        "audio.transcriptions",
    }
)


class Body(NamedTuple):
    """The body of an answer and its type."""

    data: bytes
    kind: bytes = b"application/json"


def is_streamed(call: Call) -> bool:
    """Return whether the answer is sent as events."""
    return call.stream and call.endpoint in _STREAMS


def reply(answer: Answer) -> Body:
    """Return the body of an answer that is not streamed."""
    match answer.call.endpoint:
        case "chat.completions":
            body = chat.chat_completion(answer)
        case "completions":
            body = chat.text_completion(answer)
        case "responses":
            body = responses.response(answer)
        case "responses.compact":
            body = responses.compaction(answer)
        case "responses.input_tokens":
            body = responses.input_tokens(answer)
        case "embeddings":
            body = _embeddings(answer)
        case "moderations":
            body = _moderation(answer)
        case "audio.speech":
            return Body(media.SOUND, b"audio/wav")
        case "audio.transcriptions" | "audio.translations":
            spoken = media.transcription(answer)
            if isinstance(spoken, bytes):
                return Body(spoken, b"text/plain; charset=utf-8")

            body = spoken
        case _:
            body = media.images(answer)

    return Body(as_json(body))


def as_json(content: Json) -> bytes:
    """Return an object as the bytes of a body."""
    return json.dumps(content).encode()


def stream_events(answer: Answer, pieces: int) -> Iterator[Event]:
    """Return the events of a streamed answer, its text in as many as `pieces`."""
    match answer.call.endpoint:
        case "responses":
            return responses.response_events(answer, pieces)
        case "images" | "images.edits":
            return media.image_events(answer)
        case "audio.transcriptions":
            return media.audio_events(answer)
        case _:
            return chat.chunks(answer, pieces)


def failed_event(answer: Answer, message: str) -> bytes:
    """Return the event with which a stream fails after its 200.

    That is `response.failed` in Responses, and an error object in every other stream.
    """
    problem = {"code": "rate_limit_exceeded", "message": message}
    if answer.call.endpoint == "responses":
        return responses.failed(answer, problem)

    return server_sent_event({"error": problem | {"type": "tokens", "param": None}})


def model(name: str) -> Json:
    """Return one model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "fake"}


def model_list(names: Sequence[str]) -> Json:
    """Return the list of models."""
    return {"object": "list", "data": [model(name) for name in names]}


def _embeddings(answer: Answer) -> Json:
    body = answer.call.body
    given = body.get("input")
    several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    count = len(given) if several and isinstance(given, list) else 1
    size = body.get("dimensions") or 8
    vector: list[float] | str = [0.5] * size
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<f", 0.5) * size).decode()

    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    prompt = answer.usage.prompt_tokens
    billed = {"prompt_tokens": prompt, "total_tokens": answer.usage.total_tokens}
    return {"object": "list", "data": data, "model": answer.call.model, "usage": billed}


def _moderation(answer: Answer) -> Json:
    given = answer.call.body.get("input")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    texts = isinstance(given, list) and all(isinstance(each, str) for each in given)
    count = len(given) if texts and isinstance(given, list) else 1
    return {
        "id": f"modr-{answer.identity}",
        "model": answer.call.model,
        "results": [result] * count,
    }
