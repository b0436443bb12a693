"""Rules of the bill that were found after the formulas: each test states one as a
difference of two bodies.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.prompts import CALL, NOW, RESULT, SCHEMA, SYSTEM, USER, chat, tok

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
