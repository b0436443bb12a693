"""Rules of the bill that were found after the formulas, with what supports each.

Owns the table of these rules, and the tokens of those that add some. Must never count:
the formulas apply them.

All were found in 2026-11. Support is the number of distinct recorded bodies that a rule
makes exact / wrong: on the recordings where it was found, and on two sets that it was
then tried on. A rule is sure (*) when it was found on one set and confirmed by another.
Those that add no tokens of their own change what is counted:

    +33/-0, +1/-0, +3/-0  *  texts of neighbouring parts are joined (`content.py`)
    +2/-0, 0, +5/-0       *  the `name` of a message with calls is billed (`chat.py`)
    +3/-0, 0, +3/-0       *  Responses: kept calls in a row add 0 (`responses.py`)
    +2/-0, 0, +1/-0       *  `$schema` of a format is not printed (`formats.py`)
    +7/-0                    Responses: arguments verbatim before gpt-5.4
    0, 0, +6/-0              Responses, gpt-4*: a kept call without status adds 0
    3 bodies                 Responses: no base token on patch models
    1 body, twice            early gpt-4: no comment above the objects of a list

Three are not applied, as the figure without them is the larger one:

    +1/-0, +4/-0             parallel results: escaped until 2026-03-03, raw since
                             2026-03-12 (`calls.py`)
    one prompt               gpt-5.4: blanks at the end of a system text are not billed
                             before functions
    one function, twice      gpt-4o: a description is not repeated beside each type of a
                             list of types, on 2026-08-02 (`typescript.py`)

What a bill holds and no body shows is learned from the bills (`learning.py`), or never:

    14 of 216 calls          Responses, gpt-5 with functions: 3 more, at OpenAI on
                             2025-10-17 and at Azure on 2026-03-12, on no other day
    8 of 14 calls            Chat, o4-mini: a call is 3 less, at Azure (`CALL_O4_MINI`)
    25 of 72 calls           Responses, gpt-4o: a kept call beside a format is 0, 2 or 5
                             tokens instead of 3
    27 calls                 Responses: divided by the parallel calls of the answer,
                             from 2025-10-03 to 2026-01-15, not since
"""

from __future__ import annotations

from typing import Final

SCHEMA_REASONING: Final = 4
"""Tokens of a response format on Chat's reasoning models, and of each past answer
under one. +11/-0, 0, +4/-0: sure."""

SCHEMA_AND_TOOLS_GPT5: Final = -1
"""Tokens of a response format beside functions, on Chat's gpt-5. +6/-0."""

REQUIRED_EARLY: Final = 2
"""Tokens of tool_choice "required" on Chat's gpt-4 before gpt-4-turbo.

+7/-0, 0, +1/-0: sure.
"""

EMPTY_SYSTEM: Final = 1
"""Tokens of functions after an empty system message, on Chat's gpt-4*. 0, 0, +9/-0."""

TOOLS_O4_MINI: Final = 3
"""Tokens of functions beside a system message, on Chat's o4-mini. +3/-0."""

TOOLS_NONE: Final = 1
"""Tokens of tool_choice "none" beside functions, on gpt-4*.

Responses +29/-0, Chat +9/-0, on gpt-4o-mini at Azure alone; it is on the safe side
elsewhere. The next answer cannot become a call then, so Chat marks it with the name of
a response format (4 of the 9).
"""

CALL_O4_MINI: Final = 19
"""Tokens of a call and its result on Chat's o4-mini, as on gpt-5.

+6/-0 at OpenAI. At Azure it is 16 (8 bodies), and as no body says where it goes, the
larger figure holds.
"""

GROK_TOOLS: Final = 227
"""Tokens of functions on Grok beside what they are on gpt-4o.

11 Chat calls of grok-3-mini, all with one function and alike. It stands for every Grok,
on Responses as well, until a bill of its own corrects it.
"""

GROK_CALL: Final = 19
"""The same of a call and its result. 12 Chat calls of grok-3-mini, all alike."""

RESPONSES_CALL_O4_MINI: Final = 17
"""Tokens of a call and its result on Responses' o4-mini, as on gpt-5; functions and a
format add their text alone. +9/-0."""
