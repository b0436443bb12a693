"""The objects of pictures and of audio, whole and streamed.

Owns their shapes, as the openai client reads them. Must never draw or speak: every
picture is one pixel, every sound is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ratelimit.testing.answers import words
from ratelimit.testing.bodies import Answer, Event, Json, server_sent_event

__all__ = ["SOUND", "audio_events", "image_events", "images", "transcription"]

PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
"""A PNG of one pixel, in base64."""
SOUND: Final = b"RIFF\x24\x00\x00\x00WAVE"
"""The head of a WAV file."""
_SPOKEN: Final = 12
"""Words of every transcription."""


def images(answer: Answer) -> Json:
    """Return an `ImagesResponse`: by address for dall-e, in base64 for newer models."""
    count = answer.call.body.get("n") or 1
    form = answer.call.body.get("response_format")
    by_address = form == "url" or (form is None and "dall-e" in answer.call.model)
    made = [
        {"url": f"https://images.invalid/{answer.identity}/{index}.png"}
        if by_address
        else {"b64_json": PIXEL}
        for index in range(count)
    ]
    shown = {"usage": _image_usage(answer)} if answer.usage.total_tokens else {}
    return {"created": answer.created, "data": made} | shown


def image_events(answer: Answer) -> Iterator[Event]:
    """Return the events of a picture, generated or edited."""
    prefix = "image_edit" if answer.call.endpoint == "images.edits" else "image_generation"
    picture: Json = {
        "b64_json": PIXEL,
        "created_at": answer.created,
        "background": "opaque",
        "output_format": "png",
        "quality": "low",
        "size": "1024x1024",
    }
    partial = {"type": f"{prefix}.partial_image", "partial_image_index": 0, **picture}
    whole = {"type": f"{prefix}.completed", "usage": _image_usage(answer), **picture}
    yield Event(0.5, server_sent_event(partial, named=True))
    yield Event(1.0, server_sent_event(whole, named=True), last=True)


def transcription(answer: Answer) -> bytes | Json:
    """Return a transcription or translation, as text or JSON."""
    text = words(0, _SPOKEN).strip()
    form = answer.call.body.get("response_format", "json")
    if form in {"text", "srt", "vtt"}:
        return text.encode()

    if form == "verbose_json":
        return {"text": text, "language": "english", "duration": 3.0, "segments": []}

    if form == "diarized_json":
        return {"text": text, "task": "transcribe", "duration": 3.0, "segments": []}

    if answer.call.endpoint == "audio.translations":
        return {"text": text}

    return {"text": text, "usage": {"type": "duration", "seconds": 3.0}}


def audio_events(answer: Answer) -> Iterator[Event]:
    """Return the events of a transcription."""
    usage = {
        "type": "tokens",
        "input_tokens": answer.usage.prompt_tokens,
        "output_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }
    for word in range(_SPOKEN):
        delta = {"type": "transcript.text.delta", "delta": words(word, word + 1)}
        yield Event((word + 1) / _SPOKEN, server_sent_event(delta))

    done = {"type": "transcript.text.done", "text": words(0, _SPOKEN).strip(), "usage": usage}
    yield Event(1.0, server_sent_event(done) + b"data: [DONE]\n\n", last=True)


def _image_usage(answer: Answer) -> Json:
    usage = answer.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"text_tokens": usage.prompt_tokens, "image_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
