"""What bodies of other vendors' APIs ask for, in the fields of OpenAI's.

Owns the translation of those with fields that are not OpenAI's, for the estimate:
Gemini's contents, embeddings and interactions, and Mistral's conversations. Must never
change a body that is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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
    """Write Gemini's `contents` as chat messages."""
    contents = body.get("contents")
    instruction = body.get("systemInstruction") or body.get("system_instruction")
    turns = [instruction, *(contents if isinstance(contents, list) else [contents])]
    chat: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "user", "content": _text_of(turn)} for turn in turns if isinstance(turn, dict)
        ],
    }
    most = _most(body)
    return chat if most is None else chat | {"max_tokens": most}


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
    most = _most(body)
    return response if most is None else response | {"max_output_tokens": most}


def _most(body: Mapping[str, Any]) -> int | None:
    """Find the maximum of the answer, which stands inside the settings."""
    return next((most for most in _maxima(body) if isinstance(most, int)), None)


def _maxima(body: Mapping[str, Any]) -> Iterator[object]:
    for name in ("generationConfig", "generation_config", "completion_args"):
        settings = body.get(name)
        if isinstance(settings, dict):
            for most in ("maxOutputTokens", "max_output_tokens", "max_tokens"):
                yield settings.get(most)


def _text_of(turn: Mapping[str, Any]) -> str:
    parts = turn.get("parts")
    found = [
        part.get("text")
        for part in (parts if isinstance(parts, list) else [parts])
        if isinstance(part, dict)
    ]
    return "\n".join(text for text in found if isinstance(text, str))
