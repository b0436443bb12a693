"""Calls out of a file, for those who want to know what they were billed, or have to
invent it.

Owns the bill that a recorded call brings along, and the invented length of answers that
nobody recorded. Must never come in: the forms of requests and of files (`batch/` has
them), sending, counting, limits.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import body_in, read_request

USUAL_ANSWER = 120  # tokens, the median of the answers we invent
ANSWER_SPREAD = 0.6  # of its logarithm


@dataclass(frozen=True, slots=True)
class Call:
    """One request body, where it came from ("line 12"), and what it was billed in
    tokens as far as that is known.
    """

    body: Mapping[str, Any]
    endpoint: str | None = None
    origin: str = ""
    usage: Mapping[str, int] | None = None

    @property
    def is_chat(self) -> bool:
        """Whether the chat endpoint can take it."""
        return (self.endpoint or "").replace(".", "/").endswith("chat/completions")


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls of a file, reading no further than asked; raise InvalidArgument
    in words that name the line.
    """
    for number, raw in read_lines(path):
        where = f"line {number} of {path}"
        line = parse_line(raw, where)
        request = read_request(line, number, where=where)
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
    """Give each call whose answer nobody knows a length: lognormal, within what its
    body allows, the same in every run of one seed.
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
