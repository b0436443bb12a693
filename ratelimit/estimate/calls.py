"""Tool calls and their results, as the models are told of them.

Owns the texts that calls and results become. Must never know an endpoint's constants.
Source: recorded calls; that arguments are printed anew without spaces, and parallel
results as one list, shows in `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ratelimit.estimate.untrusted import items, obj, text


class Call(NamedTuple):
    """One function call: its name, and its arguments as the JSON text a model wrote."""

    name: str
    arguments: str


def calls_of(message: Mapping[str, object]) -> list[Call]:
    """Return the calls of an assistant message: `tool_calls`, the older
    `function_call`, or none.
    """
    if text(message.get("role")) != "assistant":
        return []
    found = [obj(call) for call in items(message.get("tool_calls"))]
    functions = [obj(call.get("function")) or obj(call.get("custom")) for call in found]
    if not functions and message.get("function_call"):
        functions = [obj(message.get("function_call"))]
    return [
        Call(text(one.get("name")), text(one.get("arguments")) or text(one.get("input")))
        for one in functions
    ]


def compact(arguments: str) -> str:
    """Print JSON `arguments` without spaces; a text that is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(arguments), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


def tool_uses(calls: Sequence[Call]) -> str:
    """Print parallel calls as the one call of "multi_tool_use.parallel" that the gpt-4
    models made of them.
    """
    uses = (
        f'{{"recipient_name":"functions.{name}","parameters":{compact(arguments)}}}'
        for name, arguments in calls
    )
    return f'{{"tool_uses":[{",".join(uses)}]}}'


def result_list(results: Sequence[str]) -> str:
    """Print the results of parallel calls as the one JSON list they are given back as."""
    return json.dumps([_parsed(result) for result in results])


def _parsed(result: str) -> object:
    try:
        parsed: object = json.loads(result)
    except (ValueError, RecursionError):
        return result
    return parsed
