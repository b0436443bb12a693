"""Recorded calls: what they are, when they were made, what they were billed.

Owns the reading of recordings and the names of their kinds. Must never estimate.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ratelimit.estimate.models import traits_of
from ratelimit.families import base_model

HIDDEN_BILLED: Final = dt.date(2025, 3, 1), dt.date(2025, 4, 6)
"""First and last day on which Responses billed the prompt that the server adds."""

_CREATED: Final = re.compile(r"resp_(?:[0-9a-f]{16}0[01])?(6[0-9a-f]{7})")
"""The second in which a response was created, in either form of its id."""

SELF_CONTAINED: Final = {None, "message", "function_call", "function_call_output", "reasoning"}
"""Types of input items that show all they cost."""

SETTLED_41_SINCE: Final = dt.date(2025, 12, 2)
"""The day since which the headers of gpt-4.1's Responses show the settled level.

The level of admission was shown until 2025-12-01 (6 of 6 calls that day), the settled
one since 2026-01-14 (10 of 10).
"""

_UNKNOWN: Final = {
    "azure": False,
    "date": None,
    "stream": False,
    "response_id": None,
    "ratelimit": None,
}
"""What a call has that was recorded without these."""

ESTIMATED: Final = frozenset({"chat.completions", "responses", "embeddings", "completions"})
"""Endpoints with a bill that an estimate can be compared with."""


def calls(*paths: Path) -> Iterator[dict[str, Any]]:
    """Read the recorded calls that have a bill, one JSON object a line."""
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                call = json.loads(line)
                if call["endpoint"] in ESTIMATED and billed(call) is not None:
                    yield _UNKNOWN | call | {"model": call.get("model") or ""}


def day(call: dict[str, Any]) -> dt.date:
    """Return the day on which a call was recorded.

    The call's date shows it, or the second that a response's id holds; without both the
    call is of today's kind.
    """
    try:
        return email.utils.parsedate_to_datetime(call.get("date") or "").date()
    except (TypeError, ValueError):
        second = _CREATED.match(call.get("response_id") or "")

    if second is None:
        return dt.date.max

    return dt.datetime.fromtimestamp(int(second[1], 16), dt.UTC).date()


def beside_another_body(recorded: list[dict[str, Any]]) -> set[str]:
    """Return the ids of answers that were recorded with several bodies.

    They answered one of them at most.
    """
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    for call in recorded:
        if call["response_id"]:
            bodies[call["response_id"]].add(json.dumps(call["request"], sort_keys=True))
    return {name for name, different in bodies.items() if len(different) > 1}


def billed(call: dict[str, Any]) -> int | None:
    """Return the prompt tokens of `usage`, None when there are none.

    No prompt is billed 0: such a usage is of an answer that was cut off or filtered.
    """
    usage = call.get("usage")
    if not isinstance(usage, dict):
        return None

    tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def bucket(call: dict[str, Any]) -> str:
    """Name the kind of call, by what its body holds and whether its model reasons."""
    has, endpoint = call["has"], call["endpoint"]
    if endpoint in {"embeddings", "completions"}:
        return str(endpoint)
    short = "chat" if endpoint == "chat.completions" else "responses"
    apart = _apart(call)
    if apart:
        return f"{short} {apart}"
    reasoning = " (reasoning)" if traits_of(call["model"]).reasoning else ""
    tools = has["n_tools"] or "functions" in call["request"]
    if has["images"]:
        return f"{short} images" + ("" if inline(call["request"]) else " (remote)")
    if has["tool_msgs"]:
        return f"{short} tool results{reasoning}"
    if has["response_format"] == "json_schema":
        return f"{short} json_schema" + (" + tools" if tools else "")
    return f"{short} {'tools' if tools else 'plain'}{reasoning}"


def _apart(call: dict[str, Any]) -> str:
    """Name what makes a bill depend on more than the body, "" when nothing does."""
    has, request = call["has"], call["request"]
    given = request.get("input")
    kinds = (
        {item.get("type") for item in given if isinstance(item, dict)}
        if isinstance(given, list)
        else set()
    )
    reasons = {
        "kept by the server": has["prompt_template"]
        or has["conversation"]
        or has["previous_response_id"]
        or has["item_reference"],
        "files and audio": has["files"] or has["audio"],
        "of March 2025 (hidden prompt billed)": call["endpoint"] == "responses"
        and HIDDEN_BILLED[0] <= day(call) <= HIDDEN_BILLED[1],
        "reasoning sent back": has["reasoning_items"],
        "built-in tools": set(has["tools"]) - {"function"},
        "sealed items": kinds - SELF_CONTAINED or "context_management" in request,
    }
    return next((name for name, holds in reasons.items() if holds), "")


def estimable(name: str) -> bool:
    """Whether the body alone decides the bill.

    It does not with state on the server, or content that only the server sees.
    """
    return not re.search(r"kept|files|March|sent back|built-in|sealed|remote|another body", name)


def inline(request: dict[str, Any]) -> bool:
    """Whether every picture of the body comes with its data, which shows its size."""
    return not re.search(
        r'"(?:url|image_url)": ?"(?!data:)|"file_id"',
        json.dumps(request.get("messages", request.get("input"))),
    )


def charged(call: dict[str, Any]) -> int | None:
    """Return what the server took at admission by its own headers, limit - remaining.

    None where they do not show it: above 50M tokens per minute (the refill is
    faster than the reading), on Azure (which limits by other rules), and on Responses
    with a charge that was replaced by the bill before the headers were written.
    """
    limits = call["ratelimit"] or {}
    try:
        limit, remaining = (
            int(limits["x-ratelimit-limit-tokens"]),
            int(limits["x-ratelimit-remaining-tokens"]),
        )
    except (KeyError, ValueError):
        return None
    settled = call["endpoint"] == "responses" and (remaining == limit or _shows_settled(call))
    return None if settled or call["azure"] or not 0 < limit <= 50_000_000 else limit - remaining


def _shows_settled(call: dict[str, Any]) -> bool:
    """Whether the headers of a Responses call show the level after its bill.

    They do on reasoning models but o4-mini, and on gpt-4.1 since a day; headers of a
    stream are written before it begins.
    """
    traits = traits_of(call["model"])
    if call["stream"]:
        return False

    if base_model(traits.table_name) == "gpt-4.1":
        return day(call) >= SETTLED_41_SINCE

    return traits.reasoning and not traits.table_name.startswith("o4-mini")
