"""What function tools add to a prompt.

Owns the text that the tools become. Must never know a message or a limiter. Source of
every figure: recorded calls with tools and their usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from ratelimit.estimate.totals import Totals
from ratelimit.estimate.typescript import Printer, comment_lines
from ratelimit.estimate.untrusted import as_json, as_mapping, as_str

LONGEST_KEPT: Final = 100_000
"""Characters of definitions, up to which their print is kept."""


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
    """Return the functions of a chat body, of `tools` or of the older `functions`."""
    tools = [as_mapping(tool) for tool in totals.items(body.get("tools"), "tools")]
    functions = [as_mapping(tool.get("function")) for tool in tools if tool.get("function")]
    if functions:
        return functions

    return [as_mapping(function) for function in totals.items(body.get("functions"), "functions")]


def responses_functions(body: Mapping[str, object], totals: Totals) -> list[Mapping[str, object]]:
    """Return the functions of a Responses body, where a tool is the function."""
    functions: list[Mapping[str, object]] = []
    for item in totals.items(body.get("tools"), "tools"):
        tool = as_mapping(item)
        if as_str(tool.get("type")) == "function":
            functions.append(as_mapping(tool.get("function")) or tool)

    return functions
