"""Tool calls and their results, as the models are shown them.

Owns the texts that calls and results become. Must never know an endpoint's constants.
Source: recorded calls. That arguments are printed anew without spaces, and parallel
results as one list, shows in `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import json_text
from ratelimit.estimate.untrusted import as_mapping, as_str


class Call(NamedTuple):
    """One function call: its name, and its arguments as the JSON text a model wrote."""

    name: str
    arguments: str


def calls_of(message: Mapping[str, object], totals: Totals) -> list[Call]:
    """Return the calls of an assistant message.

    They stand in `tool_calls`, or in the older `function_call`.
    """
    if as_str(message.get("role")) != "assistant":
        return []

    calls: list[Call] = []
    for item in totals.items(message.get("tool_calls"), "tool_calls"):
        call = as_mapping(item)
        function = as_mapping(call.get("function")) or as_mapping(call.get("custom"))
        # A call of another kind is counted whole.
        calls.append(call_of(function, totals) if function else call_of({"input": item}, totals))

    if not calls and message.get("function_call"):
        calls = [call_of(as_mapping(message.get("function_call")), totals)]

    return calls


def call_of(function: Mapping[str, object], totals: Totals) -> Call:
    """Read one call; arguments that are no text are printed as JSON, and a guess."""
    given = function.get("arguments") or function.get("input")
    if given and not isinstance(given, str):
        totals.lower_confidence("guess")
        given = json_text(given, totals)

    return Call(as_str(function.get("name")), as_str(given))


def compact_arguments(arguments: str) -> str:
    """Print JSON `arguments` without spaces; a text that is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(arguments), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


def parallel_call(calls: Sequence[Call]) -> str:
    """Print parallel calls as the one call of "multi_tool_use.parallel".

    It is what the gpt-4 models make of them.
    """
    uses = (
        f'{{"recipient_name":"functions.{name}","parameters":{compact_arguments(arguments)}}}'
        for name, arguments in calls
    )
    return f'{{"tool_uses":[{",".join(uses)}]}}'


def parallel_results(results: Sequence[str]) -> str:
    """Print the results of parallel calls as the one JSON list that is sent back.

    What is not ASCII is escaped. Servers did so until 2026-03-03 and have not since
    2026-03-12, which makes 4 to 10 tokens less of such results (5 recorded bodies); the
    estimate stays on the safe side.
    """
    return json.dumps([_parsed(result) for result in results])


def _parsed(result: str) -> object:
    try:
        parsed: object = json.loads(result)
    except (ValueError, RecursionError):
        return result

    return parsed
