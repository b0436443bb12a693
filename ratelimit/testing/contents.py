"""What an answer says: words, calls of the tools that were offered, or JSON.

Owns the decision by the request alone. Must never hold state, shape a body or read a
limit.

A tool is called where the request asks for it: `tool_choice` is "required" or names it,
or the last message of the user has its name as a word. Once its result has been sent
back the answer is words, so every round trip of a framework ends; under "required"
each offered tool is called once after the other, and then the answer is words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ratelimit.testing.schemas import example

if TYPE_CHECKING:
    from ratelimit.testing.requests import Call

__all__ = ["Content", "ToolCall", "ToolUse", "content_of"]

ToolUse = Literal["asked", "always", "never"]
Body = Mapping[str, Any]

BYTES_PER_TOKEN: Final = 4
"""Of JSON, for the usage of an answer that is not words."""
PER_CALL: Final = 8
"""Tokens around the name and the arguments of one tool call."""


class ToolCall(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: str
    """JSON, or the free text of a custom tool."""
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """What every choice of one answer holds; words unless one of the fields is set."""

    text: str | None = None
    calls: tuple[ToolCall, ...] = ()

    @property
    def tokens(self) -> int | None:
        """How many tokens it is billed, None for words, which may be of any number."""
        if self.calls:
            size = sum(len(f"{call.name}{call.arguments}".encode()) for call in self.calls)
            return size // BYTES_PER_TOKEN + PER_CALL * len(self.calls)

        if self.text is not None:
            return len(self.text.encode()) // BYTES_PER_TOKEN + 1

        return None


class _Tool(NamedTuple):
    name: str
    parameters: object
    custom: bool

    def call(self) -> ToolCall:
        if self.custom:
            return ToolCall(self.name, "text", custom=True)

        value = example(self.parameters)
        arguments = value if isinstance(value, dict) else {}
        return ToolCall(self.name, json.dumps(arguments, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the conversation holds since the user's last message."""

    question: str
    """The text of that message."""
    called: frozenset[str]
    """Names of the tools that were called since."""
    answered: bool
    """Whether a tool's result was sent back since."""


def content_of(call: Call, use: ToolUse) -> Content:
    """Return what the answer to `call` holds.

    :param use: "asked" calls tools where the request asks for it, "always" wherever a
        tool is offered and `tool_choice` does not forbid it, "never" in no case.
    """
    if call.endpoint not in {"chat.completions", "responses"}:
        return Content()

    calls = () if use == "never" else _calls(call, use)
    if calls:
        return Content(calls=calls)

    return Content(text=_structured(call))


def _calls(call: Call, use: ToolUse) -> tuple[ToolCall, ...]:
    offered, mode = _choice(call.body, _tools(call.body))
    turn = _turn(call)
    if not offered or mode == "none":
        return ()

    pending = [tool for tool in offered if tool.name not in turn.called]
    if turn.answered and not turn.called:
        pending = []  # the calls stand in a response that only its id names

    if mode == "required" or use == "always":
        return tuple(tool.call() for tool in pending[:1])

    asked = [tool for tool in pending if _names(turn.question, tool.name)]
    several = call.body.get("parallel_tool_calls") is not False
    return tuple(tool.call() for tool in (asked if several else asked[:1]))


def _tools(body: Body) -> list[_Tool]:
    """Return the function and custom tools of either endpoint."""
    found = []
    for given in _sequence(body.get("tools")):
        kind = str(given.get("type")) if isinstance(given, Mapping) else ""
        if kind not in {"function", "custom"}:
            continue

        inner = given.get(kind)
        tool = inner if isinstance(inner, Mapping) else given
        name = tool.get("name")
        if isinstance(name, str) and name:
            found.append(_Tool(name, tool.get("parameters"), kind == "custom"))

    return found


def _choice(body: Body, tools: list[_Tool]) -> tuple[list[_Tool], str]:
    """Return the tools that `tool_choice` allows, and whether one must be called."""
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        return tools, choice

    if not isinstance(choice, Mapping):
        return tools, "auto"

    kind = str(choice.get("type"))
    if kind in {"function", "custom"}:
        inner = choice.get(kind)
        named = inner if isinstance(inner, Mapping) else choice
        return [tool for tool in tools if tool.name == named.get("name")], "required"

    if kind == "allowed_tools":
        inner = choice.get("allowed_tools")
        allowed = inner if isinstance(inner, Mapping) else choice
        names = {tool.name for tool in _tools({"tools": allowed.get("tools")})}
        return [tool for tool in tools if tool.name in names], str(allowed.get("mode", "auto"))

    return tools, "auto"


def _turn(call: Call) -> _Turn:
    items = call.body.get("messages" if call.endpoint == "chat.completions" else "input")
    question, called, answered = "", set[str](), False
    for item in (
        [{"role": "user", "content": items}] if isinstance(items, str) else _sequence(items)
    ):
        if not isinstance(item, Mapping):
            continue

        kind = str(item.get("type"))
        if item.get("role") == "user":
            question, called, answered = _text(item.get("content")), set(), False
        elif item.get("role") == "tool" or kind in {
            "function_call_output",
            "custom_tool_call_output",
        }:
            answered = True
        elif kind in {"function_call", "custom_tool_call"}:
            called.add(str(item.get("name")))
        else:
            for made in _sequence(item.get("tool_calls")):
                tool = (
                    made.get(str(made.get("type", "function")))
                    if isinstance(made, Mapping)
                    else None
                )
                called.add(str(tool.get("name")) if isinstance(tool, Mapping) else "")

    return _Turn(question, frozenset(called), answered)


def _structured(call: Call) -> str | None:
    """Return the JSON that the response format asks for, None for text."""
    if call.endpoint == "responses":
        text = call.body.get("text")
        form = text.get("format") if isinstance(text, Mapping) else None
    else:
        form = call.body.get("response_format")

    kind = str(form.get("type")) if isinstance(form, Mapping) else ""
    if not isinstance(form, Mapping) or kind not in {"json_object", "json_schema"}:
        return None

    if kind == "json_object":
        return json.dumps({"answer": "text"})

    inner = form.get("json_schema")
    schema = (inner if isinstance(inner, Mapping) else form).get("schema")
    return json.dumps(example(schema), ensure_ascii=False)


def _names(text: str, name: str) -> bool:
    """Return whether `text` has `name` as a word."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _text(content: object) -> str:
    """Return the text of a message's content, in either form."""
    if isinstance(content, str):
        return content

    parts = (part.get("text") for part in _sequence(content) if isinstance(part, Mapping))
    return "\n".join(part for part in parts if isinstance(part, str))


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
