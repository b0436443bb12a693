"""The bodies and counts that the tests of prompts share."""

from __future__ import annotations

from typing import Any

from ratelimit.estimate import Estimator
from ratelimit.estimate.tokenizer import count

O200K = "o200k_base"
SYSTEM = {"role": "system", "content": "You are terse"}
USER = {"role": "user", "content": "What is the weather in Ulm today?"}
NOW = {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "noon"}
SCHEMA = {
    "name": "answer",
    "schema": {"type": "object", "properties": {"text": {"type": "string"}}},
}


def chat(*messages: dict[str, Any], model: str = "gpt-4o", **body: Any) -> int:
    """The prompt tokens of a chat body."""
    return Estimator().estimate({"model": model, "messages": list(messages), **body}).prompt_tokens


def responses(given: Any, *, model: str = "gpt-4o", **body: Any) -> int:
    """The prompt tokens of a Responses body."""
    return (
        Estimator()
        .estimate({"model": model, "input": given, **body}, endpoint="responses")
        .prompt_tokens
    )


def tok(text: str, encoding: str = O200K) -> int:
    """The tokens of a text."""
    return count(text, encoding)
