"""What function tools add to a prompt.

Owns the text the tools become. Must never know a message or a limiter.
Source of every figure: recorded calls with tools and their usage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimit.estimate.plain import items, obj, text
from ratelimit.estimate.typescript import Printer, commented

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def namespace(functions: Iterable[Mapping[str, object]], *, early: bool = False) -> str:
    """Print function definitions (objects with name, description, parameters) as the models are shown them."""
    printed = "\n\n".join(_function(function, early=early) for function in functions)
    return f"# Tools\n\n## functions\n\nnamespace functions {{\n\n{printed}\n\n}} // namespace functions"


def _function(function: Mapping[str, object], *, early: bool) -> str:
    name = text(function.get("name"))
    parameters = Printer(obj(function.get("parameters")), early=early).parameters()
    signature = f"type {name} = (_: {parameters}) => any;" if parameters else f"type {name} = () => any;"
    return "\n".join([*commented(text(function.get("description")).strip()), signature])


def chat_functions(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the functions of a chat body: those of `tools`, or the older `functions`."""
    tools = [obj(tool) for tool in items(body.get("tools"))]
    functions = [obj(tool.get("function")) for tool in tools if tool.get("function")]
    return functions or [obj(function) for function in items(body.get("functions"))]


def responses_functions(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the functions of a Responses body, where a tool is the function."""
    tools = (obj(tool) for tool in items(body.get("tools")))
    return [obj(tool.get("function")) or tool for tool in tools if text(tool.get("type")) == "function"]
