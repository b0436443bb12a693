"""Files of calls: one JSON object a line, in the forms people have them.

Owns reading and refusing, and the invented length of answers that nobody recorded. Must never come in: sending, counting, limits.

A line is a request body; a line of the Batch API (``{"custom_id", "method", "url", "body"}``); or a recorded call (``{"request", "endpoint",
"usage"}``), whose bill then goes with it. The file may be gzip.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ratelimit.commands import CommandError

LONGEST_LINE = 100_000_000  # bytes; a body with pictures in it is long, a disk image is no file of calls
USUAL_ANSWER = 120  # tokens, the median of the answers we invent
ANSWER_SPREAD = 0.6  # of its logarithm


@dataclass(frozen=True, slots=True)
class Call:
    """One request body, where it came from ("line 12"), and what it was billed in tokens as far as that is known."""

    body: Mapping[str, Any]
    endpoint: str | None = None
    origin: str = ""
    usage: Mapping[str, int] | None = None

    @property
    def is_chat(self) -> bool:
        """Whether the chat endpoint can take it."""
        return "chat/completions" in (self.endpoint or "").replace(".", "/") if self.endpoint else "messages" in self.body


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls of a file, reading no further than asked; raise CommandError in words that name the line."""
    number = 0
    try:
        with _open(path) as file:
            while raw := file.readline(LONGEST_LINE):
                number += 1
                text = _text(raw, f"line {number} of {path}")
                if text.strip():
                    yield _read_line(text, f"line {number} of {path}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CommandError(f"{path} is a broken gzip file after line {number}: {error}") from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None


def _open(path: Path) -> IO[bytes]:
    file = path.open("rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return gzip.open(path, "rb")  # type: ignore[return-value]  # it reads bytes like any file
    file.seek(0)
    return file


def _text(raw: bytes, where: str) -> str:
    if len(raw) == LONGEST_LINE:
        raise CommandError(f"{where} is longer than {LONGEST_LINE:,} bytes; is this a file with one request a line?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{where} is not UTF-8 text; a file of calls has one JSON object a line") from None


def _read_line(text: str, where: str) -> Call:
    try:
        line = json.loads(text)
    except ValueError as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise CommandError(f"{where} is not JSON: {told}") from None
    except RecursionError:
        raise CommandError(f"{where} is nested too deeply to be a request") from None
    if not isinstance(line, dict):
        raise CommandError(f"{where} is a JSON {_name(line)}; it should be an object with a request body")
    known = next((key for key in ("body", "request") if isinstance(line.get(key), dict)), None)
    if known is None:
        return _checked(Call(line, origin=where))
    endpoint = line.get("url") if known == "body" else line.get("endpoint")
    body = line[known]
    if "model" not in body and isinstance(line.get("model"), str):  # Azure's bodies leave it to the deployment
        body = {**body, "model": line["model"]}
    return _checked(Call(body, endpoint if isinstance(endpoint, str) else None, where, _bill(line.get("usage"))))


def _name(value: object) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _checked(call: Call) -> Call:
    body = call.body
    if not body.keys() & {"messages", "input", "prompt", "instructions"}:
        raise CommandError(f'{call.origin} is no request: it has neither "messages" nor "input" nor "prompt"')
    if call.is_chat and not (isinstance(body.get("messages"), list) and body["messages"]):
        raise CommandError(f'{call.origin}: "messages" should be a list with at least one message')
    if call.is_chat and not (isinstance(body.get("model"), str) and body["model"]):
        raise CommandError(f'{call.origin} names no "model"')
    return call


def _bill(usage: object) -> Mapping[str, int] | None:
    if not isinstance(usage, dict):
        return None
    bill = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if isinstance(usage.get(name), int) and usage[name] >= 0}
    return bill or None


def with_answers(calls: Sequence[Call], seed: int) -> list[Call]:
    """Give each call whose answer nobody knows a length: lognormal, within what its body allows, the same in every run of one seed."""
    return [call if call.usage and "completion_tokens" in call.usage else _invented(call, seed) for call in calls]


def _invented(call: Call, seed: int) -> Call:
    drawn = random.Random(f"{seed} {json.dumps(call.body, sort_keys=True)}").lognormvariate(math.log(USUAL_ANSWER), ANSWER_SPREAD)
    length = max(1, round(drawn))
    for name in ("max_completion_tokens", "max_tokens"):
        most = call.body.get(name)
        if isinstance(most, int) and most > 0:
            length = min(length, most)
    count = call.body.get("n")
    length *= count if isinstance(count, int) and count > 0 else 1
    return replace(call, usage={**(call.usage or {}), "completion_tokens": length})
