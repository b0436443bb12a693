"""What function tools add to a prompt.

Owns the text the tools become. Must never know a message or a limiter.
Source of every figure: recorded calls with tools and their usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ratelimit.estimate.typescript import Printer, commented
from ratelimit.estimate.untrusted import dumped, items, obj, text

LONGEST_KEPT = 100_000  # characters of definitions whose print is kept


def namespace(functions: Iterable[Mapping[str, object]], *, early: bool = False) -> str:
    """Print function definitions (objects with name, description, parameters) as the
    models are shown them.
    """
    definitions = json.dumps(
        [dict(function) for function in functions], default=dumped, skipkeys=True
    )
    return (_namespace if len(definitions) <= LONGEST_KEPT else _namespace.__wrapped__)(
        definitions, early=early
    )


@lru_cache(maxsize=64)
def _namespace(definitions: str, *, early: bool) -> str:
    """Print the definitions in a JSON text, which is a key that cannot change: agents
    send the same tools at every step.
    """
    printed = "\n\n".join(
        _function(obj(function), early=early) for function in json.loads(definitions)
    )
    return f"# Tools\n\n## functions\n\nnamespace functions {{\n\n{printed}\n\n}} // namespace functions"


def _function(function: Mapping[str, object], *, early: bool) -> str:
    name = text(function.get("name"))
    parameters = Printer(obj(function.get("parameters")), early=early).parameters()
    signature = (
        f"type {name} = (_: {parameters}) => any;" if parameters else f"type {name} = () => any;"
    )
    return "\n".join([*commented(text(function.get("description")).strip()), signature])


def chat_functions(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the functions of a chat body: those of `tools`, or the older `functions`."""
    if "tools" not in body and "functions" not in body:
        return []
    tools = [obj(tool) for tool in items(body.get("tools"))]
    functions = [obj(tool.get("function")) for tool in tools if tool.get("function")]
    return functions or [obj(function) for function in items(body.get("functions"))]


def responses_functions(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the functions of a Responses body, where a tool is the function."""
    tools = (obj(tool) for tool in items(body.get("tools")))
    return [
        obj(tool.get("function")) or tool for tool in tools if text(tool.get("type")) == "function"
    ]
