"""Bytes in a body stand for the text that is made of them before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit.estimate import Estimator

WORDS = "word " * 500
USER: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def fields(text: Any) -> dict[str, Any]:
    """Make a schema of one field with this description."""
    return {"type": "object", "properties": {"a": {"type": "string", "description": text}}}


BODIES: dict[str, Any] = {
    "content": lambda text: {"messages": [{"role": "user", "content": text}]},
    "part": lambda text: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]
    },
    "bare part": lambda text: {"messages": [{"role": "user", "content": [text]}]},
    "name": lambda text: {"messages": [{"role": "user", "name": text, "content": "hi"}]},
    "input": lambda text: {"input": text},
    "item": lambda text: {"input": [{"role": "user", "content": text}]},
    "instructions": lambda text: {"input": "hi", "instructions": text},
    "prompt": lambda text: {"prompt": text},
    "prompts": lambda text: {"prompt": [text, text]},
    "arguments": lambda text: {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": text}}],
            }
        ]
    },
    "tool": lambda text: {
        **USER,
        "tools": [{"type": "function", "function": {"name": "f", "description": text}}],
    },
    "function": lambda text: {**USER, "functions": [{"name": "f", "description": text}]},
    "tool of Responses": lambda text: {
        "input": "hi",
        "tools": [{"type": "function", "name": "f", "description": text}],
    },
    "custom tool": lambda text: {
        "input": "hi",
        "tools": [{"type": "custom", "name": "f", "description": text}],
    },
    "tool of another vendor": lambda text: {**USER, "tools": [{"name": "f", "input": text}]},
    "parameter": lambda text: {
        **USER,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": fields(text)}}],
    },
    "format": lambda text: {
        **USER,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "f", "schema": fields(text)},
        },
    },
}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", BODIES)
def test_bytes_cost_what_their_text_costs(name: str, kind: type) -> None:
    """They are held for before they are decoded: 500 words are never free."""
    make, estimator = BODIES[name], Estimator()
    text = estimator.estimate({"model": "gpt-4o", **make(WORDS)})
    found = estimator.estimate({"model": "gpt-4o", **make(kind(WORDS.encode()))})

    assert found.prompt_tokens == pytest.approx(text.prompt_tokens, abs=20)


def test_the_content_of_a_message_in_bytes_is_a_guess() -> None:
    """How they are decoded is the caller's."""
    body = BODIES["content"](WORDS.encode())

    assert Estimator().estimate({"model": "gpt-4o", **body}).confidence == "guess"


def test_bytes_that_are_no_text_are_counted_all_the_same() -> None:
    """A picture that is given so is not sent so, and raises nothing here."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": b"\xff\x00" * 100}]}

    assert Estimator().estimate(body).prompt_tokens > 50
