"""What a chat.completions prompt costs.

Owns the messages: their texts, names, tool calls and results, and what surrounds the
tools and the response format. Must never know a limiter, a charge, or an answer's
length. Source of every figure: recorded chat calls with their usage; an odd constant is
the sum of markers nobody documented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ratelimit.estimate.calls import Call, calls_of, compact, result_list, tool_uses
from ratelimit.estimate.content import add_content, text_of
from ratelimit.estimate.formats import chat_format, format_text
from ratelimit.estimate.tokenizer import count
from ratelimit.estimate.tools import chat_functions, namespace
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import items, obj, text, utf8

PER_MESSAGE = 3  # the markers around a role and a content
ANSWER, ANSWER_REASONING = 3, 2  # the opened answer
HEADER = 4  # a message that holds tools or a format where no system message could take them in
GPT5_ASSISTANT = 2  # its channel
GPT5_TOOLS = 85  # what gpt-5 is told about channels as soon as there are functions
# a call and its result beside name, arguments and content
CALL, CALL_O, CALL_GPT5, CALL_EARLY = 13, 16, 19, 10
# several calls of one answer, told as one call of "multi_tool_use.parallel"
PARALLEL, PARALLEL_GPT5 = 20, 26
NAMED, NAMED_EARLY = 6, 3  # tool_choice naming a function, beside that name
# one token each, in every encoding
ROLES = ("user", "assistant", "system", "tool", "developer", "function")
# what the server writes around the messages
SURROUNDING = frozenset({"tools", "functions", "response_format"})
_DICTS = frozenset({dict})
SEARCH_PREVIEW = "search-preview"  # models that bill the texts alone
O1_PREVIEW = 12  # what o1-preview adds to each message, and once more


def count_chat(body: Mapping[str, object], tally: Totals) -> None:
    """Add the prompt of a chat body to `tally`."""
    messages: Sequence[Any] = items(body.get("messages"))
    if not _DICTS.issuperset(map(type, messages)):
        messages = [obj(message) for message in messages]
    tally.messages += len(messages)
    if not messages:
        return
    position = 0
    while position < len(messages):
        message = messages[position]
        if ("tool_calls" in message or "function_call" in message) and (calls := calls_of(message)):
            position = _turn(calls, messages, position, tally)
        else:
            _message(message, tally)
            position += 1
    if not SURROUNDING.isdisjoint(body):
        _preamble(body, messages, tally)
    tally.tokens += ANSWER_REASONING if tally.family.reasoning else ANSWER
    if SEARCH_PREVIEW in tally.family.name:
        tally.tokens -= (PER_MESSAGE + 1) * len(messages) + ANSWER
        tally.doubt("formula")
    if tally.family.name.startswith("o1-preview"):
        tally.tokens += O1_PREVIEW * (len(messages) + 1)
        tally.doubt("formula")


def _message(message: Mapping[str, object], tally: Totals) -> None:
    # The one place that is written for speed: an agent sends all of its messages again
    # at every step.
    family = tally.family
    role, content = message.get("role"), message.get("content")
    tokens = PER_MESSAGE + (1 if role in ROLES else tally.tok(text(role)))
    if role == "assistant" and family.gpt5:
        tokens += GPT5_ASSISTANT
    if "name" in message and (name := text(message["name"])):
        tokens += tally.tok(f":{name}")
    if content.__class__ is not str:
        add_content(content, tally)
    elif content:  # as `Totals.content` does it
        tally.text_bytes += len(content) if content.isascii() else utf8(content)
        tokens += count(content, family.encoding)
    tally.tokens += tokens


def _turn(
    calls: Sequence[Call], messages: Sequence[Mapping[str, object]], at: int, tally: Totals
) -> int:
    """Add the message with `calls` that stands at `at`, and the results that follow it;
    return where they end.
    """
    tally.kinds.add("results")
    tally.doubt("formula")
    said = text_of(messages[at].get("content"))
    results: list[str] = []
    at += 1
    while at < len(messages) and text(messages[at].get("role")) in {"tool", "function"}:
        content = messages[at].get("content")
        results.append(text_of(content))
        add_content(content, tally, billed=len(calls) == 1)
        at += 1
    if said:
        tally.tokens += PER_MESSAGE + tally.tok("assistant") + GPT5_ASSISTANT * tally.family.gpt5
        tally.content(said)
    if len(calls) > 1:
        tally.tokens += (
            (PARALLEL_GPT5 if tally.family.gpt5 else PARALLEL)
            + tally.tok(tool_uses(calls))
            + tally.tok(result_list(results))
        )
        return at
    for name, arguments in calls:
        traits = tally.family
        tally.tokens += (
            CALL_GPT5
            if traits.gpt5
            else CALL_O
            if traits.reasoning
            else CALL_EARLY
            if traits.early
            else CALL
        )
        tally.tokens += tally.tok(name) + tally.tok(f".{name}")
        tally.tokens += tally.tok(arguments if traits.early else compact(arguments))
    return at


def _preamble(
    body: Mapping[str, object], messages: Sequence[Mapping[str, object]], tally: Totals
) -> None:
    """Add functions and the response format: the server appends both to a leading
    system message, or makes one.
    """
    functions = chat_functions(body)
    answer = chat_format(body)
    if not functions and answer is None:
        return
    tally.doubt("formula")
    leads = text(messages[0].get("role")) in {"system", "developer"}
    system = text_of(messages[0].get("content")) if leads else ""
    parts = [system] if system else []
    if functions:
        tally.kinds.add("tools")
        parts.append(namespace(functions, early=tally.family.early))
        tally.tokens += _around_tools(body, functions, tally, leads=leads)
    if answer is not None:
        tally.kinds.add("schema")
        parts.append(format_text(answer))
        tally.tokens += _around_format(
            text(answer.get("name")), messages, tally, leads=leads, tools=bool(functions)
        )
    tally.tokens += tally.tok("\n\n".join(parts)) - tally.tok(system)
    if not leads and not tally.family.gpt5:
        tally.tokens += HEADER


def _around_tools(
    body: Mapping[str, object],
    functions: Sequence[Mapping[str, object]],
    tally: Totals,
    *,
    leads: bool,
) -> int:
    traits = tally.family
    if traits.gpt5:
        # A function without a description saves a token here; which marker it is nobody
        # knows.
        return GPT5_TOOLS - leads - (not text(functions[0].get("description")))
    if traits.reasoning:
        return 2 if leads else 0
    choice = obj(body.get("tool_choice")) or obj(body.get("function_call"))
    name = text(obj(choice.get("function") or choice).get("name"))
    named = tally.tok(f"functions.{name}") + (NAMED_EARLY if traits.early else NAMED) if name else 0
    return named - 1


def _around_format(
    name: str, messages: Sequence[Mapping[str, object]], tally: Totals, *, leads: bool, tools: bool
) -> int:
    if tally.family.gpt5:
        return 0 if tools else tally.tok(name) + 2 - leads
    if tally.images:
        return 0
    # Every answer, past ones included, is marked with the format's name; a call is
    # none, nor what may become one.
    answers = sum(
        text(message.get("role")) == "assistant" and not calls_of(message) for message in messages
    )
    return (answers + (not tools)) * (tally.tok(name) + 2)
