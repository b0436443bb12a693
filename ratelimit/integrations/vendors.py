"""What bodies of other vendors' APIs ask for, in the fields of OpenAI's.

Owns the translation of those with fields that are not OpenAI's, for the estimate:
Gemini's contents, embeddings and interactions, and Mistral's conversations. Must never
change a body that is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_MAXIMA: Final = ("maxOutputTokens", "max_output_tokens", "max_tokens")
"""Names of an answer's maximum, Gemini's and Mistral's."""

_SCHEMAS: Final = (
    *("responseSchema", "response_schema"),
    *("responseJsonSchema", "response_json_schema"),
)
"""Gemini's names of an answer's schema."""


def translated(body: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """Write a body as one of OpenAI's; None where it holds nothing that is known.

    :param model: as the body or the path names it; "" where an agent or a stored
        conversation has it.
    """
    if "contents" in body:
        return _from_contents(body, model)
    if "messages" in body:
        return {**body, "model": model}
    if isinstance(body.get("content"), dict):
        return _embedding([body], model)
    if isinstance(body.get("requests"), list):
        return _embedding(body["requests"], model)
    for turns in (body.get("input"), body.get("inputs")):
        if isinstance(turns, (str, list)):
            return _from_turns(body, turns, model)
    return None


def _from_contents(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Write Gemini's `contents` as chat messages, with its tools and its schema.

    What has no field of OpenAI's is handed over as it is, to be counted by its text.
    """
    contents = body.get("contents")
    instruction = body.get("systemInstruction") or body.get("system_instruction")
    turns = [instruction, *(contents if isinstance(contents, list) else [contents])]
    chat: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "user", "content": _content_of(turn)}
            for turn in turns
            if isinstance(turn, dict)
        ],
    }
    most = next((value for value in _settings(body, _MAXIMA) if isinstance(value, int)), None)
    if most is not None:
        chat["max_tokens"] = most
    schema = next((value for value in _settings(body, _SCHEMAS) if isinstance(value, dict)), None)
    if schema is not None:
        named = {"name": "answer", "schema": schema}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    if body.get("tools"):
        chat["tools"] = body["tools"]
    return chat


def _embedding(requests: list[Any], model: str) -> dict[str, Any]:
    """Write Gemini's requests for embeddings, of one content each."""
    contents = [request.get("content") for request in requests if isinstance(request, dict)]
    texts = [_text_of(content) for content in contents if isinstance(content, dict)]
    return {"model": model, "input": texts, "encoding_format": "float"}


def _from_turns(body: Mapping[str, Any], turns: str | list[Any], model: str) -> dict[str, Any]:
    """Write Gemini's interaction or Mistral's conversation as a Response."""
    instructions = body.get("instructions") or body.get("system_instruction")
    response: dict[str, Any] = {"model": model, "input": turns, "tools": body.get("tools")}
    if isinstance(instructions, str):
        response["instructions"] = instructions
    most = next((value for value in _settings(body, _MAXIMA) if isinstance(value, int)), None)
    return response if most is None else response | {"max_output_tokens": most}


def _settings(body: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[object]:
    """Yield the settings of these names, which stand inside an object of the body."""
    for holder in ("generationConfig", "generation_config", "completion_args"):
        settings = body.get(holder)
        if isinstance(settings, dict):
            yield from (settings[name] for name in names if name in settings)


def _content_of(turn: Mapping[str, Any]) -> str | list[Any]:
    """Write a turn's parts as a message's content: a text, where all are texts."""
    parts = _parts_of(turn)
    if all(isinstance(part.get("text"), str) for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [_part(part) for part in parts]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write data in a part by its kind, as the estimate would count its bytes."""
    blob = part.get("inlineData") or part.get("inline_data")
    if not isinstance(blob, dict):
        return part
    kind = str(blob.get("mimeType") or blob.get("mime_type"))
    data = str(blob.get("data"))
    if kind.startswith("audio/"):
        return {"type": "input_audio", "input_audio": {"data": data, "format": kind[6:]}}
    url = f"data:{kind};base64,{data}"
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"file_data": url}}


def _text_of(turn: Mapping[str, Any]) -> str:
    texts = [part.get("text") for part in _parts_of(turn)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _parts_of(turn: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = turn.get("parts")
    return [
        part for part in (parts if isinstance(parts, list) else [parts]) if isinstance(part, dict)
    ]
