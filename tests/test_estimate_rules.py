"""Rules of the bill that were found after the formulas: each test states one as a
difference of two bodies.
"""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit.estimate import Estimator
from tests.prompts import CALL, NOW, RESULT, SCHEMA, SYSTEM, USER, chat, responses, tok

TOOLS: list[dict[str, Any]] = [{"type": "function", "function": NOW}]
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": SCHEMA}
NONE: tuple[dict[str, Any], ...] = (
    {"tools": TOOLS, "tool_choice": "none"},
    {"functions": [NOW], "function_call": "none"},
)


@pytest.mark.parametrize("none", NONE)
@pytest.mark.parametrize("before", [(USER,), (SYSTEM, USER, CALL, RESULT)])
def test_functions_that_may_not_be_called_cost_one_more(
    none: dict[str, Any], before: tuple[dict[str, Any], ...]
) -> None:
    """The choice "none" adds a token on gpt-4o, and none on models that reason."""
    assert chat(*before, **none) - chat(*before, tools=TOOLS) == 1
    assert chat(*before, model="gpt-5", **none) == chat(*before, model="gpt-5", tools=TOOLS)


@pytest.mark.parametrize("none", NONE)
def test_an_answer_that_may_hold_no_call_is_marked_with_its_format(none: dict[str, Any]) -> None:
    """Beside functions the next answer is marked only if it cannot become a call."""
    free = chat(USER, tools=TOOLS, response_format=FORMAT)

    assert chat(USER, response_format=FORMAT, **none) - free == 1 + tok("answer") + 2


def test_o4_mini_is_shown_a_call_as_gpt5_is() -> None:
    """OpenAI bills three tokens more than Azure for the same body, which does not say
    where it goes: no estimate may stay below the bill.
    """

    def called(model: str) -> int:
        return chat(USER, CALL, RESULT, model=model) - chat(USER, model=model)

    assert called("o4-mini") == called("azure/o4-mini") == called("gpt-5")
    assert called("o3-mini") == called("gpt-5") - 3


def test_grok_writes_a_text_of_its_own_around_functions_and_calls() -> None:
    """A constant for the functions and one for each call stand beside what other models
    are billed; a bill corrects them, and texts cost what they do elsewhere.
    """

    def more(*messages: dict[str, Any], **body: Any) -> int:
        return chat(*messages, model="xai/grok-3-mini", **body) - chat(*messages, **body)

    assert more(USER) == 0
    assert chat(USER, model="xai:grok-4", tools=TOOLS) == chat(USER, model="grok", tools=TOOLS)
    assert more(USER, tools=TOOLS) == 227
    assert more(USER, CALL, RESULT, tools=TOOLS) == 246
    assert more(USER, CALL, RESULT, USER, CALL, RESULT, functions=[NOW]) == 265
    assert Estimator().estimate({"model": "grok-4", "messages": [USER]}).confidence == "guess"


def test_grok_is_no_cheaper_on_responses() -> None:
    """No such call is recorded: what Chat is billed for functions and calls holds."""
    tools = [{"type": "function", **NOW}]
    called = {"type": "function_call", "name": "now", "arguments": "{}", "call_id": "1"}

    def more(given: Any, **body: Any) -> int:
        return responses(given, model="grok-4", **body) - responses(given, **body)

    assert more("Hi") == 0
    assert more("Hi", tools=tools) == 227
    assert more([called], tools=tools) == 246


def test_grok_thinks_before_it_answers() -> None:
    """What is held for an answer without a bound has room for hidden tokens."""
    made = [
        Estimator().estimate({"model": model, "messages": [USER]}).output_tokens
        for model in ("grok-3-mini", "x-ai/grok-4", "groq/compound")
    ]

    assert made == [1_024, 1_024, 256]
