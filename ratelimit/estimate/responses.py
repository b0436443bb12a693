"""What a Responses prompt costs.

Owns the input items: messages, calls and results, and what surrounds tools and formats.
Must never know a limiter or an answer's length. Source of every figure: recorded
Responses calls with their usage, April 2025 and later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ratelimit.estimate.calls import call_of, compact_arguments, parallel_call
from ratelimit.estimate.charge import hidden_tokens
from ratelimit.estimate.chat import ANSWER, ANSWER_REASONING, GPT5_ASSISTANT, PER_MESSAGE
from ratelimit.estimate.content import add_content, is_picture
from ratelimit.estimate.formats import format_text, responses_format
from ratelimit.estimate.guesses import PRO, sealed_tokens
from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.rules import (
    GROK_CALL,
    GROK_TOOLS,
    RESPONSES_CALL_O4_MINI,
    TOOLS_NONE,
)
from ratelimit.estimate.tools import namespace, responses_functions
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown_item
from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str

CALL: Final = 11
"""Tokens of a call and its result beside name, arguments and content."""

CALL_GPT5: Final = 17
CALL_GPT54: Final = 20

PARALLEL_GPT54: Final = 16
"""Tokens of several calls in a row on gpt-5.4, beside their text."""

RESULT_GPT54: Final = 7
"""Tokens of each of their results, beside the function's name."""

KEPT_CALL: Final = 3
"""Tokens of the id that the server gave a call."""

TOOLS: Final = -3
"""Tokens of the functions beside their text."""

TOOLS_GPT5: Final = 3

FORCED: Final = 6
"""Tokens of a function that the model has to call, beside its name."""

FORMAT: Final = 1
"""Tokens of a response format beside its text."""

BARE_PICTURES: Final = 1
"""Tokens of a message that holds pictures alone, beside theirs."""

TOOLS_LATER: Final = 85
"""Tokens of functions that an item of the input brings, beside their text."""

_CALLS: Final = frozenset({"function_call", "custom_tool_call"})
_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_CUSTOM: Final = frozenset({"custom_tool_call", "custom_tool_call_output"})
_SEALED: Final = frozenset({"reasoning", "compaction", "compaction_summary"})
"""Types of items that the server made and shows to nobody else."""

MOST_CALLS: Final = 8
"""Calls in one answer by which a bill may be divided."""


def count_responses(body: Mapping[str, object], totals: Totals) -> None:
    """Add the prompt of a Responses body to `totals`."""
    instructions = as_str(body.get("instructions"))
    if instructions:
        _add_message("system", instructions, totals)

    _add_surroundings(body, totals)
    totals.fixed = totals.tokens
    given = body.get("input")
    if isinstance(given, str):
        _add_message("user", given, totals)
    else:
        items = totals.items(given, "input", required=True)
        _add_items([_item_of(item, totals) for item in items], totals)

    if body.get("context_management") is not None:
        # 5 of 10 recorded bills are up to 4 tokens off.
        totals.lower_confidence("formula")

    if totals.traits.table_name.startswith(("gpt-5-mini", "gpt-5-nano")):
        # The base token of a picture is billed in Chat alone.
        totals.tokens -= totals.images

    short = totals.traits.reasoning or totals.traits.early
    totals.tokens += ANSWER_REASONING if short else ANSWER


def is_divided(prompt: int, billed: int) -> bool:
    """Whether `billed` is `prompt` divided by a number of parallel calls, rounded down.

    Responses shows such `input_tokens` for an answer with parallel calls, and no body
    shows how many its answer will hold. Source: 11 recorded answers of gpt-4*, each
    exactly a half of the estimate, or (80 tokens of output instead of 40) a quarter.
    """
    if billed >= prompt:
        return False

    return any(prompt // calls == billed for calls in range(2, MOST_CALLS + 1))


def _item_of(value: object, totals: Totals) -> Mapping[str, object]:
    """Return one input item as a mapping; what is none is read by its texts."""
    item = as_mapping(value)
    if item or not value:
        return item

    totals.lower_confidence("guess")
    return {"role": "user", "content": value}


def _add_items(given: Sequence[Mapping[str, object]], totals: Totals) -> None:
    last_question = max(
        (place for place, item in enumerate(given) if as_str(item.get("role")) == "user"),
        default=-1,
    )
    row: list[Mapping[str, object]] = []
    for place, item in enumerate(given):
        kind = as_str(item.get("type"))
        if kind in _CALLS:
            if kind in _CUSTOM:
                totals.lower_confidence("guess")

            row.append(item)
            continue

        _add_calls(row, totals)
        row = []
        # The model is shown its own reasoning until the user's next message.
        if kind != "reasoning" or place > last_question:
            _add_item(kind, item, totals)

    _add_calls(row, totals)


def _add_message(role: str, content: object, totals: Totals) -> None:
    totals.messages += 1
    totals.tokens += PER_MESSAGE + totals.count(role)
    if totals.traits.gpt5 and role == "assistant":
        totals.tokens += GPT5_ASSISTANT

    add_content(content, totals)
    parts = as_sequence(content)
    if parts and all(is_picture(as_mapping(part)) for part in parts):
        totals.tokens += BARE_PICTURES


def _add_item(kind: str, item: Mapping[str, object], totals: Totals) -> None:
    if kind in _CUSTOM or (kind == "" and "role" not in item):
        totals.lower_confidence("guess")

    if kind in _RESULTS:
        totals.kinds.add("results")
        add_content(item.get("output"), totals)
    elif kind in {"", "message"} and ("role" in item or "content" in item):
        _add_message(as_str(item.get("role")), item.get("content"), totals)
    elif kind in _SEALED:
        totals.kinds.add("items")
        totals.lower_confidence("guess")
        totals.tokens += sealed_tokens(item)
        add_content(item.get("content"), totals)
        if not item.get("id") and not item.get("encrypted_content"):
            # The server has no copy of it: what there is of it is shown.
            add_content(item.get("summary"), totals)
    elif kind == "web_search_call" and not totals.traits.reasoning:
        # A search of the past costs nothing (3 recorded calls of gpt-4.1).
        totals.kinds.add("items")
        totals.lower_confidence("guess")
    elif kind == "additional_tools":
        totals.lower_confidence("guess")
        functions = responses_functions(item, totals)
        totals.tokens += TOOLS_LATER + totals.count(namespace(functions))
    elif item:
        output = item.get("output")
        if output and not isinstance(output, str):
            add_content(output, totals)
            item = {**item, "output": None}

        if kind == "tool_search_output" and item.get("execution") == "server":
            # The server finds tools of the request, which are counted there.
            item = {**item, "tools": None}

        add_unknown_item(item, totals)


def _add_calls(row: Sequence[Mapping[str, object]], totals: Totals) -> None:
    """Add calls that stand in a row; their results come as items of their own."""
    if not row:
        return

    totals.kinds.add("results")
    totals.lower_confidence("formula")
    traits = totals.traits
    calls = [call_of(item, totals) for item in row]
    totals.tokens += GROK_CALL * len(calls) if traits.grok else 0
    for item in row:
        totals.tokens += KEPT_CALL if len(row) == 1 and _is_kept(item, traits) else 0
        spaced = as_str(item.get("namespace"))
        totals.tokens += 2 + totals.count(f".{spaced}") if spaced else 0

    if traits.gpt54 and len(calls) > 1:
        totals.tokens += PARALLEL_GPT54 + totals.count(parallel_call(calls))
        totals.tokens += sum(RESULT_GPT54 + totals.count(f".{name}") for name, _ in calls)
        return

    for name, arguments in calls:
        totals.tokens += _call_frame(traits) + 2 * totals.count(f".{name}")
        totals.tokens += totals.count(compact_arguments(arguments) if traits.gpt54 else arguments)


def _is_kept(item: Mapping[str, object], traits: ModelTraits) -> bool:
    """Whether the id that the server gave a call is billed with it.

    Without a status it is billed on reasoning models only.
    """
    return bool(item.get("id")) and (traits.reasoning or bool(item.get("status")))


def _call_frame(traits: ModelTraits) -> int:
    if traits.gpt54:
        return CALL_GPT54

    if traits.gpt5:
        return CALL_GPT5

    return RESPONSES_CALL_O4_MINI if traits.reasoning else CALL


def _add_surroundings(body: Mapping[str, object], totals: Totals) -> None:
    """Add tools, the answer's format and what the server writes beside them."""
    traits = totals.traits
    mode = as_mapping(body.get("reasoning")).get("mode")
    if mode == "pro" and not traits.name.endswith("-pro"):
        totals.tokens += PRO
        totals.lower_confidence("guess")

    functions = responses_functions(body, totals)
    totals.hidden = hidden_tokens(traits, functions=bool(functions))
    if functions:
        totals.kinds.add("tools")
        totals.lower_confidence("formula")
        totals.tokens += totals.count(namespace(functions))
        totals.tokens += _around_tools(body, functions, totals)
        totals.tokens += GROK_TOOLS if traits.grok else 0

    answer = responses_format(body)
    if answer is not None:
        totals.kinds.add("schema")
        totals.lower_confidence("formula")
        totals.tokens += totals.count(format_text(answer)) + (0 if traits.reasoning else FORMAT)


def _around_tools(
    body: Mapping[str, object], functions: Sequence[Mapping[str, object]], totals: Totals
) -> int:
    if totals.traits.gpt5:
        # A first function without a description saves a token, as in Chat.
        described = bool(as_str(functions[0].get("description")))
        return TOOLS_GPT5 if described else TOOLS_GPT5 - 1

    if totals.traits.reasoning:
        return 0

    choice = body.get("tool_choice")
    if choice == "none":
        return TOOLS + TOOLS_NONE

    name = as_str(as_mapping(choice).get("name"))
    if choice == "required" and len(functions) == 1:
        name = as_str(functions[0].get("name"))

    return TOOLS + (totals.count(f"functions.{name}") + FORCED if name else 0)
