"""Calls out of a file, with what they were billed, or a length made up for it.

Owns the bill that a recorded call brings along, and the invented length of answers that
were not recorded. Must never know the forms of requests and files (`batch/` has them),
send, count, or know limits.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import body_in, read_request

USUAL_ANSWER: Final = 120
"""Tokens: the median of invented answers."""

ANSWER_SPREAD: Final = 0.6
"""The standard deviation of their logarithm."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request body, and what is known about it."""

    body: Mapping[str, Any] = field(repr=False)
    endpoint: str | None = None
    """As `read_endpoint` gives it."""
    origin: str = ""
    """Where it came from: "line 12 of FILE"."""
    usage: Mapping[str, int] | None = None
    """What it was billed in tokens, as far as that is known."""

    @property
    def is_chat(self) -> bool:
        """Whether the chat endpoint can take it."""
        return self.endpoint == "chat.completions"


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls of a file, reading no further than asked.

    Raises `InvalidArgument` in words that name the line.
    """
    for number, raw in read_lines(path):
        where = f"line {number} of {path}"
        line = parse_line(raw, where)
        request = read_request(line, number, where=where, option="", counted=True)
        body = body_in(line)
        if "model" in request.body and "model" not in body:
            body = {**body, "model": request.model}
        yield Call(body, request.endpoint, where, _bill(line.get("usage")))


def _bill(usage: object) -> Mapping[str, int] | None:
    if not isinstance(usage, dict):
        return None

    bill = {
        name: usage[name]
        for name in ("prompt_tokens", "completion_tokens")
        if isinstance(usage.get(name), int) and usage[name] >= 0
    }
    return bill or None


def with_answers(calls: Sequence[Call], seed: int) -> list[Call]:
    """Give a length to each answer that was not recorded.

    The lengths are lognormal, within what the body allows, and the same in every run of
    one seed.
    """
    return [
        call if call.usage and "completion_tokens" in call.usage else _invented(call, seed)
        for call in calls
    ]


def _invented(call: Call, seed: int) -> Call:
    drawn = random.Random(f"{seed} {json.dumps(call.body, sort_keys=True)}").lognormvariate(
        math.log(USUAL_ANSWER), ANSWER_SPREAD
    )
    length = max(1, round(drawn))
    for name in ("max_completion_tokens", "max_tokens"):
        most = call.body.get(name)
        if isinstance(most, int) and most > 0:
            length = min(length, most)

    count = call.body.get("n")
    length *= count if isinstance(count, int) and count > 0 else 1
    return replace(call, usage={**(call.usage or {}), "completion_tokens": length})
