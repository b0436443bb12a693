"""What a call is billed and what it is answered: prompt tokens, output length, text,
and the time all that takes.

Owns: every invented figure of the fake server, all from one seed. What must never come
in: limits, buckets, HTTP.

The output length of a call depends on the seed and its body only, so that every client
in a race gets the same work, however it orders or retries it; so does the text, in
which one word is one token of o200k_base and cl100k_base alike. A workload that knows
better (recorded calls) sends the header `x-fake-usage: {"prompt_tokens": 12,
"completion_tokens": 345}`; either number may be left out.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

from ratelimit.errors import InvalidArgument
from ratelimit.testing.charges import choices, most_output

__all__ = ["Answers", "Latency", "PromptCounter", "count_prompt", "words"]

PromptCounter = Callable[[str, Mapping[str, Any]], int]

_NORMAL = NormalDist()
_COMMON = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you "
    "were her all she there would their we him been has when who will more no if out so said what up its about into than them"
)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes: `base` seconds until the first token, `per_token`
    seconds for each, both scaled by one lognormal draw.

    `spread` is the standard deviation of the logarithm; 0 makes every answer take
    exactly its time. `jitter`: bounds in seconds of the network's share, drawn anew for
    the way there and the way back.
    """

    base: float = 0.3
    per_token: float = 1 / 80
    spread: float = 0.3
    jitter: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        figures = (self.base, self.per_token, self.spread, *self.jitter)
        if not all(0 <= figure < math.inf for figure in figures) or self.jitter[0] > self.jitter[1]:
            raise InvalidArgument(
                f"{self}: seconds are finite and not negative, and jitter is (least, most)"
            )

    def draw(self, generator: random.Random) -> float:
        """This call's factor on base and per_token."""
        return generator.lognormvariate(0.0, self.spread) if self.spread else 1.0

    def network(self, generator: random.Random) -> float:
        """Seconds one way."""
        return generator.uniform(*self.jitter) if self.jitter[1] else 0.0


class Answers:
    """How long each call's prompt and output are."""

    def __init__(
        self, *, output: float, spread: float, counter: PromptCounter | None, seed: int
    ) -> None:
        if not (output >= 1 and math.isfinite(output) and 0 <= spread < math.inf):
            raise InvalidArgument(
                f"output={output}, spread={spread}: a median of at least one token and a finite spread"
            )
        self._median, self._spread, self._counter, self._seed = (
            output,
            spread,
            counter or count_prompt,
            seed,
        )

    def prompt(self, endpoint: str, body: Mapping[str, Any], known: Mapping[str, Any]) -> int:
        """Billed prompt tokens: as the workload knows them, else counted."""
        return (
            int(known["prompt_tokens"])
            if "prompt_tokens" in known
            else self._counter(endpoint, body)
        )

    def output(
        self, endpoint: str, body: Mapping[str, Any], raw: bytes, known: Mapping[str, Any]
    ) -> int:
        """Output tokens over all choices: as known, else lognormal around the median,
        bounded by what the body allows.
        """
        if endpoint not in {"chat.completions", "responses", "completions"}:
            return 0
        if "completion_tokens" in known:
            return int(known["completion_tokens"])
        length = self._median
        if self._spread:
            rank = (zlib.crc32(raw, self._seed & 0xFFFFFFFF) + 0.5) / 2**32
            length = math.exp(math.log(self._median) + self._spread * _NORMAL.inv_cdf(rank))
        most = most_output(body)
        one = max(1, round(length if most is None else min(length, most)))
        return one * choices(endpoint, body)

    def prepare(self) -> None:
        """Load the vocabulary of today's models now, so that the first call is not the
        slow one; a counter that was given loads its own.
        """
        if self._counter is count_prompt:
            count_prompt(
                "chat.completions",
                {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]},
            )


def count_prompt(endpoint: str, body: Mapping[str, Any]) -> int:
    """Prompt tokens of plain content, by tiktoken: 3 a message and 3 at the end, as
    chat bills it.

    Tools, schemas and pictures are not counted; a workload with those passes its own
    counter or sends `x-fake-usage`.
    """
    # Only servers that bill load a vocabulary.
    from ratelimit.estimate.encodings import encoding_for  # noqa: PLC0415  # see above
    from ratelimit.estimate.tokenizer import count, load  # noqa: PLC0415  # see above

    encoding = encoding_for(str(body.get("model", "")))
    load(encoding)
    if endpoint in {"embeddings", "completions"}:
        given = body.get("input" if endpoint == "embeddings" else "prompt")
        several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        return sum(
            _tokens(text, encoding, count)
            for text in (given if several and isinstance(given, list) else [given])
        )
    if endpoint not in {"chat.completions", "responses"}:
        return 0
    items = body.get("messages" if endpoint == "chat.completions" else "input")
    messages: list[Any] = items if isinstance(items, list) else [{"role": "user", "content": items}]
    if body.get("instructions"):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    total = 3
    for message in messages:
        if isinstance(message, Mapping):
            total += 3 + count(str(message.get("role", "")), encoding)
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            total += sum(
                _tokens(part.get("text"), encoding, count)
                for part in parts
                if isinstance(part, Mapping)
            )
    return total


def _tokens(text: object, encoding: str, count: Callable[[str, str], int]) -> int:
    if isinstance(text, str):
        return count(text, encoding)
    return len(text) if isinstance(text, list) else 0


@cache
def _long_text() -> tuple[str, list[int]]:
    """4,096 words and where each of them ends."""
    chosen = random.Random(0).choices(_COMMON.split(), k=4096)
    text = " " + " ".join(chosen)
    ends, end = [0], 0
    for word in chosen:
        end += len(word) + 1
        ends.append(end)
    return text, ends


def words(start: int, stop: int) -> str:
    """The answer's words from number `start` to `stop`, each with the space before it:
    one token each.
    """
    text, ends = _long_text()
    pieces = []
    while start < stop:
        turn, first = divmod(start, 4096)
        last = min(4096, stop - turn * 4096)
        pieces.append(text[ends[first] : ends[last]])
        start = turn * 4096 + last
    return "".join(pieces)
