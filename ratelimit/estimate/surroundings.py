"""What surrounds the messages of a chat.completions prompt.

Owns the functions, the response format and the tokens around them. Must never know a
message's calls or results. Source of every figure: recorded chat calls with their
usage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ratelimit.estimate.calls import calls_of
from ratelimit.estimate.content import text_of
from ratelimit.estimate.formats import chat_format, format_text
from ratelimit.estimate.rules import (
    EMPTY_SYSTEM,
    GROK_TOOLS,
    REQUIRED_EARLY,
    SCHEMA_AND_TOOLS_GPT5,
    SCHEMA_REASONING,
    TOOLS_NONE,
    TOOLS_O4_MINI,
)
from ratelimit.estimate.tools import chat_functions, namespace
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import as_mapping, as_str

HEADER: Final = 4
"""Tokens of a message made for tools or a format where there is no system message."""

GPT5_TOOLS: Final = 85
"""Tokens that gpt-5 is shown about channels as soon as there are functions."""

NAMED: Final = 6
"""Tokens of a `tool_choice` that names a function, beside the name."""

NAMED_EARLY: Final = 3


def add_surroundings(
    body: Mapping[str, object], messages: Sequence[Mapping[str, object]], totals: Totals
) -> None:
    """Add functions and the response format.

    The server appends both to a leading system message, or makes one.
    """
    functions = chat_functions(body, totals)
    answer = chat_format(body)
    if not functions and answer is None:
        return

    totals.lower_confidence("formula")
    leads = as_str(messages[0].get("role")) in {"system", "developer"}
    system = text_of(messages[0].get("content")) if leads else ""
    parts = [system] if system else []
    if functions:
        totals.kinds.add("tools")
        parts.append(namespace(functions, early=totals.traits.early))
        totals.tokens += _around_tools(body, functions, totals, leads=leads, system=system)

    if answer is not None:
        totals.kinds.add("schema")
        parts.append(format_text(answer))
        name = as_str(answer.get("name"))
        called = bool(functions) and not _forbids_calls(body)
        totals.tokens += _around_format(
            name, messages, totals, leads=leads, tools=bool(functions), called=called
        )

    totals.tokens += totals.count("\n\n".join(parts)) - totals.count(system)
    bare_format = totals.traits.reasoning and not functions
    if not leads and not totals.traits.gpt5 and not bare_format:
        totals.tokens += HEADER


def _around_tools(
    body: Mapping[str, object],
    functions: Sequence[Mapping[str, object]],
    totals: Totals,
    *,
    leads: bool,
    system: str,
) -> int:
    traits = totals.traits
    if traits.gpt5:
        # A first function without a description saves a token; OpenAI does not document
        # which marker it is.
        described = bool(as_str(functions[0].get("description")))
        return GPT5_TOOLS - (1 if leads else 0) - (0 if described else 1)

    if traits.reasoning:
        return TOOLS_O4_MINI if leads else 0

    choice = as_mapping(body.get("tool_choice")) or as_mapping(body.get("function_call"))
    name = as_str(as_mapping(choice.get("function") or choice).get("name"))
    tokens = EMPTY_SYSTEM - 1 if leads and not system else -1
    if name:
        tokens += totals.count(f"functions.{name}") + (NAMED_EARLY if traits.early else NAMED)
    elif traits.early and body.get("tool_choice") == "required":
        tokens += REQUIRED_EARLY

    tokens += TOOLS_NONE if _forbids_calls(body) else 0
    return tokens + (GROK_TOOLS if traits.grok else 0)


def _forbids_calls(body: Mapping[str, object]) -> bool:
    """Whether the answer may hold no call, though there are functions."""
    return "none" in {as_str(body.get("tool_choice")), as_str(body.get("function_call"))}


def _around_format(
    name: str,
    messages: Sequence[Mapping[str, object]],
    totals: Totals,
    *,
    leads: bool,
    tools: bool,
    called: bool,
) -> int:
    past = sum(
        as_str(message.get("role")) == "assistant" and not calls_of(message, totals)
        for message in messages
    )
    if totals.traits.reasoning:
        tokens = SCHEMA_REASONING * (past if tools else past + 1)
        if tools:
            return tokens + (SCHEMA_AND_TOOLS_GPT5 if totals.traits.gpt5 else 0)

        return tokens - (1 if leads else 0)

    if totals.images:
        return 0

    # Every answer, past ones included, is marked with the format's name; a call is not,
    # nor is the next answer where it may become one.
    marked = past if called else past + 1
    return marked * (totals.count(name) + 2)
