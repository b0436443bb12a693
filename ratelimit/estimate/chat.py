"""What a chat.completions prompt costs.

Owns the messages: their texts, names, tool calls and results. Must never know a
limiter, a charge, or an answer's length. Source of every figure: recorded
chat calls with their usage. An odd constant is the sum of markers that OpenAI does not
document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ratelimit.estimate.calls import (
    Call,
    calls_of,
    compact_arguments,
    parallel_call,
    parallel_results,
)
from ratelimit.estimate.content import add_content, text_of
from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.rules import CALL_O4_MINI, GROK_CALL
from ratelimit.estimate.surroundings import add_surroundings
from ratelimit.estimate.tokenizer import count
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown
from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str, texts_in, utf8_size

PER_MESSAGE: Final = 3
"""Tokens of the markers around a role and a content."""

ANSWER: Final = 3
"""Tokens that open the answer."""

ANSWER_REASONING: Final = 2
"""The same for reasoning models."""

GPT5_ASSISTANT: Final = 2
"""Tokens of an assistant message's channel on gpt-5."""

CALL: Final = 13
"""Tokens of a call and its result beside name, arguments and content."""

CALL_REASONING: Final = 16
"""The same on o1 and o3."""

CALL_GPT5: Final = 19
CALL_EARLY: Final = 10

PARALLEL: Final = 20
"""Tokens of several calls of one answer beside their texts."""

PARALLEL_GPT5: Final = 26

ROLES: Final = ("user", "assistant", "system", "tool", "developer", "function")
"""Roles that are one token in every encoding."""

SEARCH_PREVIEW: Final = "search-preview"
"""Models that bill the texts alone."""

O1_PREVIEW: Final = 12
"""Tokens that o1-preview adds to each message, and once more."""

_PLAIN: Final = 2
"""Fields of a message that holds a role and a content alone."""

_CALLED: Final = ("tool_calls", "function_call")
_BESIDE: Final = frozenset(
    {
        *("role", "content", "tool_call_id", "id", "type", "status"),
        *("annotations", "parsed", "cache_control"),
    }
)
"""Fields of a message that are counted elsewhere, or that no model is shown.

`annotations` and `parsed` come from the SDK's answers (95 and 12 recorded calls).
"""

_SURROUNDING: Final = frozenset({"tools", "functions", "response_format"})
"""Fields that the server writes around the messages."""


def count_chat(body: Mapping[str, object], totals: Totals) -> None:
    """Add the prompt of a chat body to `totals`."""
    messages = _messages_of(body.get("messages"), totals)
    totals.messages += len(messages)
    if not messages:
        return

    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if len(message) == _PLAIN and "content" in message and "role" in message:
            _add_message(message, totals)
            continue

        has_calls = "tool_calls" in message or "function_call" in message
        calls = calls_of(message, totals) if has_calls else []
        if calls:
            position = _add_turn(calls, messages, position - 1, totals)
        else:
            _add_message(message, totals)
            _add_further(message, totals)

    if not _SURROUNDING.isdisjoint(body):
        add_surroundings(body, messages, totals)

    totals.tokens += ANSWER_REASONING if totals.traits.reasoning else ANSWER
    if SEARCH_PREVIEW in totals.traits.name:
        totals.tokens -= (PER_MESSAGE + 1) * len(messages) + ANSWER
        totals.lower_confidence("formula")

    if totals.traits.table_name.startswith("o1-preview"):
        totals.tokens += O1_PREVIEW * (len(messages) + 1)
        totals.lower_confidence("formula")


def _messages_of(given: object, totals: Totals) -> Sequence[Mapping[str, Any]]:
    messages: Sequence[Any] = totals.items(given, "messages", required=True)
    if set(map(type, messages)) == {dict}:
        return messages

    # A text or one message is no list of messages to OpenAI, but frameworks take it.
    if isinstance(given, (str, Mapping)) and given:
        messages = [given]

    return [_message_of(message, totals) for message in messages]


def _message_of(value: object, totals: Totals) -> Mapping[str, Any]:
    """Return one message as a mapping; what is none is read by its texts."""
    message = as_mapping(value)
    if message or not value:
        return message

    totals.lower_confidence("guess")
    if isinstance(value, (list, tuple)):
        return {"content": texts_in(value)}

    return {"content": value if isinstance(value, str) else getattr(value, "content", value)}


def _add_message(message: Mapping[str, object], totals: Totals) -> None:
    # An agent sends all of its messages again at every step, so texts and roles, which
    # most messages consist of, are counted here without a call each (see
    # `conversation_chat_ratio` of benchmarks/estimating.py).
    traits = totals.traits
    role, content = message.get("role"), message.get("content")
    tokens = PER_MESSAGE + (1 if role in ROLES else totals.count(as_str(role)))
    if role == "assistant" and traits.gpt5:
        tokens += GPT5_ASSISTANT

    if type(content) is not str:
        add_content(content, totals)
    elif content:
        totals.text_bytes += len(content) if content.isascii() else utf8_size(content)
        tokens += count(content, traits.encoding)

    totals.tokens += tokens


def _add_further(message: Mapping[str, object], totals: Totals, *, calls: bool = False) -> None:
    """Add what a message holds beside its role and content.

    :param calls: whether its calls are counted elsewhere.
    """
    for field, value in message.items():
        if not value or field in _BESIDE or (calls and field in _CALLED):
            continue

        if field == "name":
            name = as_str(value)
            totals.tokens += totals.count(f":{name}") if name else 0
        elif field == "refusal" and isinstance(value, str):
            totals.add_text(value)
        elif isinstance(value, str) or as_mapping(value) or as_sequence(value):
            add_unknown({field: value}, totals)


def _add_turn(
    calls: Sequence[Call], messages: Sequence[Mapping[str, object]], at: int, totals: Totals
) -> int:
    """Add the message with `calls` that stands at `at`, and the results that follow it.

    Return where they end.
    """
    totals.kinds.add("results")
    totals.lower_confidence("formula")
    start = at
    results: list[str] = []
    at += 1
    while at < len(messages) and as_str(messages[at].get("role")) in {"tool", "function"}:
        content = messages[at].get("content")
        results.append(text_of(content))
        add_content(content, totals, billed=len(calls) == 1)
        at += 1

    before = totals.tokens
    add_content(messages[start].get("content"), totals)
    if totals.tokens > before:
        totals.tokens += PER_MESSAGE + totals.count("assistant")
        totals.tokens += GPT5_ASSISTANT if totals.traits.gpt5 else 0

    _add_further(messages[start], totals, calls=True)
    totals.tokens += GROK_CALL * len(calls) if totals.traits.grok else 0
    if len(calls) > 1:
        totals.tokens += PARALLEL_GPT5 if totals.traits.gpt5 else PARALLEL
        totals.tokens += totals.count(parallel_call(calls))
        totals.tokens += totals.count(parallel_results(results))
        return at

    early = totals.traits.early
    for name, arguments in calls:
        totals.tokens += _call_frame(totals.traits)
        totals.tokens += totals.count(name) + totals.count(f".{name}")
        totals.tokens += totals.count(arguments if early else compact_arguments(arguments))

    return at


def _call_frame(traits: ModelTraits) -> int:
    if traits.gpt5:
        return CALL_GPT5

    if traits.reasoning:
        return CALL_O4_MINI if traits.table_name.startswith("o4-mini") else CALL_REASONING

    return CALL_EARLY if traits.early else CALL
