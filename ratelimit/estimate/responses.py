"""What a Responses prompt costs.

Owns the input items: messages, calls and results, what the server keeps for the caller,
and what surrounds tools and formats. Must never know a limiter, a charge, or an
answer's length. Source of every figure: recorded Responses calls with their usage,
April 2025 and later.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.calls import Call, compact, tool_uses
from ratelimit.estimate.charge import hidden
from ratelimit.estimate.content import add_content, is_picture
from ratelimit.estimate.formats import format_text, responses_format
from ratelimit.estimate.guesses import PRO, built_in, opaque
from ratelimit.estimate.tools import namespace, responses_functions
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import items, obj, text

PER_MESSAGE, ANSWER, ANSWER_SHORT, GPT5_ASSISTANT = 3, 3, 2, 2  # as in chat
CALL, CALL_GPT5, CALL_GPT54 = 11, 17, 20  # a call and its result beside name, arguments and content
# several calls in a row told as one, and each of their results
PARALLEL_GPT54, RESULT_GPT54 = 16, 7
KEPT_CALL = 3  # a call that carries the id the server gave it
TOOLS, TOOLS_O, TOOLS_GPT5 = -3, 3, 3  # beside their text
FORCED = 6  # a function the model has to call, beside its name
FORMAT = 1
BARE_PICTURES = 1  # a message of pictures alone
TOOLS_LATER = 85  # tools brought by an item of the input
MOST_CALLS = 8  # in one answer, for which a bill is looked at


def count_responses(body: Mapping[str, object], tally: Totals) -> None:
    """Add the prompt of a Responses body to `tally`."""
    instructions = text(body.get("instructions"))
    if instructions:
        _message("system", instructions, tally)
    _surroundings(body, tally)
    tally.fixed = tally.tokens
    given = body.get("input")
    if isinstance(given, str):
        _message("user", given, tally)
    _items([obj(item) for item in items(given)], tally)
    tally.tokens += ANSWER_SHORT if tally.family.reasoning or tally.family.early else ANSWER


def divided(prompt: int, billed: int) -> bool:
    """Tell whether `billed` is `prompt` divided by the calls of a parallel answer,
    rounded down: what Responses then shows as `input_tokens`.

    No body shows how many calls its answer will hold. Source: 11 recorded answers of
    gpt-4*, each exactly a half of the estimate, or (80 tokens of output instead of 40)
    a quarter.
    """
    return billed < prompt and any(prompt // calls == billed for calls in range(2, MOST_CALLS + 1))


def _items(given: list[Mapping[str, object]], tally: Totals) -> None:
    asked = max(
        (place for place, item in enumerate(given) if text(item.get("role")) == "user"), default=-1
    )
    row: list[Mapping[str, object]] = []  # the calls since the last item that was none
    for place, item in enumerate(given):
        kind = text(item.get("type"))
        if kind == "function_call":
            row.append(item)
            continue
        _calls(row, tally)
        row = []
        # The model is shown its own reasoning until the user speaks again, then never
        # more.
        if kind != "reasoning" or place > asked:
            _item(kind, item, tally)
    _calls(row, tally)


def _message(role: str, content: object, tally: Totals) -> None:
    tally.messages += 1
    tally.tokens += PER_MESSAGE + tally.tok(role)
    if tally.family.gpt5 and role == "assistant":
        tally.tokens += GPT5_ASSISTANT
    add_content(content, tally)
    parts = items(content)
    if parts and all(is_picture(obj(part)) for part in parts):
        tally.tokens += BARE_PICTURES


def _item(kind: str, item: Mapping[str, object], tally: Totals) -> None:
    if kind == "function_call_output":
        tally.kinds.add("results")
        add_content(item.get("output"), tally)
    elif kind in {"", "message"} and "role" in item:
        _message(text(item.get("role")), item.get("content"), tally)
    elif kind == "additional_tools":
        tally.doubt("guess")
        tally.tokens += TOOLS_LATER + tally.tok(namespace(responses_functions(item)))
    elif item:
        tally.kinds.add("items")
        tally.doubt("guess")
        tally.tokens += opaque(item)


def _calls(row: list[Mapping[str, object]], tally: Totals) -> None:
    """Add calls that stand in a row; their results come as items of their own."""
    if not row:
        return
    tally.kinds.add("results")
    tally.doubt("formula")
    traits = tally.family
    calls = [Call(text(item.get("name")), text(item.get("arguments"))) for item in row]
    for item in row:
        spaced = text(item.get("namespace"))
        tally.tokens += (KEPT_CALL if item.get("id") else 0) + (
            2 + tally.tok(f".{spaced}") if spaced else 0
        )
    if traits.gpt54 and len(calls) > 1:
        tally.tokens += PARALLEL_GPT54 + tally.tok(tool_uses(calls))
        tally.tokens += sum(RESULT_GPT54 + tally.tok(f".{name}") for name, _ in calls)
        return
    for name, arguments in calls:
        tally.tokens += CALL_GPT54 if traits.gpt54 else CALL_GPT5 if traits.gpt5 else CALL
        tally.tokens += 2 * tally.tok(f".{name}") + tally.tok(compact(arguments))


def _surroundings(body: Mapping[str, object], tally: Totals) -> None:
    """Add tools, the answer's format and what the server is known to write beside them."""
    traits = tally.family
    if obj(body.get("reasoning")).get("mode") == "pro" and not traits.name.endswith("-pro"):
        tally.tokens += PRO
        tally.doubt("guess")
    for tool in items(body.get("tools")):
        extra = built_in(text(obj(tool).get("type")), traits)
        if extra:
            tally.kinds.add("built-in")
            tally.doubt("guess")
            tally.tokens += extra
    functions = responses_functions(body)
    tally.hidden = hidden(traits, functions=bool(functions))
    if functions:
        tally.kinds.add("tools")
        tally.doubt("formula")
        tally.tokens += tally.tok(namespace(functions)) + _around_tools(body, functions, tally)
    answer = responses_format(body)
    if answer is not None:
        tally.kinds.add("schema")
        tally.doubt("formula")
        tally.tokens += tally.tok(format_text(answer)) + (0 if traits.gpt5 else FORMAT)


def _around_tools(
    body: Mapping[str, object], functions: list[Mapping[str, object]], tally: Totals
) -> int:
    if tally.family.gpt5:
        # as in chat, nobody knows why
        return TOOLS_GPT5 - (not text(functions[0].get("description")))
    choice = body.get("tool_choice")
    name = text(obj(choice).get("name"))
    if choice == "required" and len(functions) == 1:
        name = text(functions[0].get("name"))
    forced = tally.tok(f"functions.{name}") + FORCED if name and not tally.family.reasoning else 0
    return (TOOLS_O if tally.family.reasoning else TOOLS) + forced
