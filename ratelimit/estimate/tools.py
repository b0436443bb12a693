"""What function tools add to a prompt.

Owns the text that the tools become. Must never know a message or a limiter. Source of
every figure: recorded calls with tools and their usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from ratelimit.estimate.guesses import built_in_tokens
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.typescript import Printer, comment_lines
from ratelimit.estimate.unknown import add_unknown, json_text
from ratelimit.estimate.untrusted import as_json, as_mapping, as_str

LONGEST_KEPT: Final = 100_000
"""Characters of definitions, up to which their print is kept."""

CUSTOM: Final = 16
"""Tokens of a custom tool beside what a function of its name and description has.

Source: 3 recorded Responses calls of gpt-5.
"""

GRAMMAR: Final = 34
"""Tokens that a grammar adds to a custom tool beside its text.

Source: 2 recorded calls: 30 and 34.
"""


def namespace(functions: Iterable[Mapping[str, object]], *, early: bool = False) -> str:
    """Print function definitions as the models are shown them.

    :param functions: objects with name, description and parameters.
    """
    definitions = json.dumps(
        [dict(function) for function in functions], default=as_json, skipkeys=True
    )
    print_ = _namespace if len(definitions) <= LONGEST_KEPT else _namespace.__wrapped__
    return print_(definitions, early=early)


@lru_cache(maxsize=64)
def _namespace(definitions: str, *, early: bool) -> str:
    """Print the definitions in a JSON text.

    Agents send the same tools at every step, and a text is a key that cannot change.
    """
    printed = "\n\n".join(
        _function(as_mapping(function), early=early) for function in json.loads(definitions)
    )
    return (
        "# Tools\n\n## functions\n\nnamespace functions {\n\n"
        f"{printed}\n\n}} // namespace functions"
    )


def _function(function: Mapping[str, object], *, early: bool) -> str:
    name = as_str(function.get("name"))
    parameters = Printer(as_mapping(function.get("parameters")), early=early).parameters()
    argument = f"_: {parameters}" if parameters else ""
    comment = comment_lines(as_str(function.get("description")).strip())
    return "\n".join([*comment, f"type {name} = ({argument}) => any;"])


def chat_functions(body: Mapping[str, object], totals: Totals) -> list[Mapping[str, object]]:
    """Return the functions of a chat body, of `tools` or of the older `functions`.

    What else a tool may be is added to `totals`.
    """
    functions: list[Mapping[str, object]] = []
    for item in totals.items(body.get("tools"), "tools"):
        tool = as_mapping(item)
        function = as_mapping(tool.get("function"))
        custom = as_mapping(tool.get("custom"))
        if function:
            functions.append(function)
        elif custom:
            functions.append(_custom(custom, totals))
        else:
            add_unknown(tool or item, totals)

    if functions:
        return functions

    return [as_mapping(function) for function in totals.items(body.get("functions"), "functions")]


def responses_functions(body: Mapping[str, object], totals: Totals) -> list[Mapping[str, object]]:
    """Return the functions of a Responses body, where a tool is the function.

    What else a tool may be is added to `totals`.
    """
    functions: list[Mapping[str, object]] = []
    for item in totals.items(body.get("tools"), "tools"):
        tool = as_mapping(item)
        match tool.get("type"):
            case "function":
                functions.append(as_mapping(tool.get("function")) or tool)
            case "custom":
                functions.append(_custom(as_mapping(tool.get("custom")) or tool, totals))
            case _:
                _add_built_in(tool or item, totals)

    return functions


def _custom(tool: Mapping[str, object], totals: Totals) -> Mapping[str, object]:
    """Return a custom tool as the function that it is shown as, and add its grammar."""
    totals.kinds.add("custom")
    totals.lower_confidence("guess")
    totals.tokens += CUSTOM
    form = as_mapping(tool.get("format"))
    grammar = as_mapping(form.get("grammar")) or form
    if grammar.get("definition"):
        totals.tokens += GRAMMAR + totals.count(json_text(grammar["definition"], totals))

    return {"name": tool.get("name"), "description": tool.get("description")}


def _add_built_in(tool: object, totals: Totals) -> None:
    """Add a tool of the server's: what its instructions cost, at least its own text."""
    known = built_in_tokens(as_str(as_mapping(tool).get("type")), totals.traits)
    if known:
        totals.kinds.add("built-in")
        totals.lower_confidence("guess")
        totals.tokens += max(known, totals.count(json_text(tool, totals)))
    else:
        add_unknown(tool, totals)
