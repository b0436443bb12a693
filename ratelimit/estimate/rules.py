"""Rules of the bill that were found after the formulas, with what supports each.

Owns the dated table of these rules. Must never count: the formulas of `chat.py`,
`responses.py` and the others apply them.

Support is the number of distinct recorded bodies that a rule makes exact / wrong: on
the recordings where it was found, and on two sets that it was then tried on. A rule is
sure when it was found on one set and confirmed by another one.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """One rule: the tokens it adds, what it is about, and what supports it."""

    tokens: int
    about: str
    found: str
    """Year and month in which the rule was written down here."""

    support: str
    sure: bool


SCHEMA_REASONING: Final = Rule(
    tokens=4,
    about="Chat, reasoning models: a response format, and each past answer under one",
    found="2026-11",
    support="+11/-0, 0, +4/-0",
    sure=True,
)
SCHEMA_AND_TOOLS_GPT5: Final = Rule(
    tokens=-1,
    about="Chat, gpt-5: a response format beside functions",
    found="2026-11",
    support="+6/-0",
    sure=False,
)
REQUIRED_EARLY: Final = Rule(
    tokens=2,
    about='Chat, gpt-4 before gpt-4-turbo: tool_choice "required"',
    found="2026-11",
    support="+7/-0, 0, +1/-0",
    sure=True,
)
EMPTY_SYSTEM: Final = Rule(
    tokens=1,
    about="Chat, gpt-4*: functions after an empty system message",
    found="2026-11",
    support="0, 0, +9/-0",
    sure=False,
)
TOOLS_REASONING: Final = Rule(
    tokens=3,
    about="Chat, o4-mini: functions beside a system message",
    found="2026-11",
    support="+3/-0",
    sure=False,
)
CALL_REASONING: Final = Rule(
    tokens=17,
    about="Responses, o4-mini: a call and its result, as on gpt-5; tools and format add 0",
    found="2026-11",
    support="+9/-0",
    sure=False,
)
TABLE: Final = (
    SCHEMA_REASONING,
    SCHEMA_AND_TOOLS_GPT5,
    REQUIRED_EARLY,
    EMPTY_SYSTEM,
    TOOLS_REASONING,
    CALL_REASONING,
    Rule(
        tokens=0,
        about="Texts of neighbouring parts are joined",
        found="2026-11",
        support="+33/-0, +1/-0, +3/-0",
        sure=True,
    ),
    Rule(
        tokens=0,
        about="A call's `name` is billed like any",
        found="2026-11",
        support="+2/-0, 0, +5/-0",
        sure=True,
    ),
    Rule(
        tokens=0,
        about="Responses: kept calls in a row add 0",
        found="2026-11",
        support="+3/-0, 0, +3/-0",
        sure=True,
    ),
    Rule(
        tokens=0,
        about="`$schema` of a format is not printed",
        found="2026-11",
        support="+2/-0, 0, +1/-0",
        sure=True,
    ),
    Rule(
        tokens=0,
        about="Responses: arguments verbatim before gpt-5.4",
        found="2026-11",
        support="+7/-0",
        sure=False,
    ),
    Rule(
        tokens=0,
        about="Responses, gpt-4*: a kept call without status adds 0",
        found="2026-11",
        support="+6/-0",
        sure=False,
    ),
    Rule(
        tokens=0,
        about="Responses: no base token on patch models",
        found="2026-11",
        support="3 bodies",
        sure=False,
    ),
)
"""All rules that are applied; those that add no tokens change what is counted."""
