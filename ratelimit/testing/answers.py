"""What a call is billed and how long it takes: output length, text and latency.

Owns every invented figure of the fake server, all from one seed. Must never touch
limits, buckets or HTTP.

The output length of a call depends on the seed and its body only, so that every client
in a race gets the same work, however it orders or retries it; so does the text, in
which one word is one token of o200k_base and cl100k_base alike. A workload of
recorded calls sends the header `x-fake-usage: {"prompt_tokens": 12,
"completion_tokens": 345, "cached_tokens": 0, "reasoning_tokens": 64}`; any of the
numbers may be left out.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from ratelimit.errors import InvalidArgument
from ratelimit.testing.charges import choices, most_output
from ratelimit.testing.contents import Content, ToolUse, content_of
from ratelimit.testing.ledger import Usage
from ratelimit.testing.prompts import PromptCounter, count_prompt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ratelimit.testing.requests import Call

__all__ = ["Answers", "Latency", "words"]

REASONING_STEP: Final = 64
"""Reasoning tokens are reported in multiples of this."""
_REASONING: Final = {"none": 0.0, "minimal": 0.0, "low": 0.25, "high": 0.75, "xhigh": 0.75}
"""Share of the output that is reasoning, by effort; half where none is named."""
_REASONING_MODELS: Final = ("o1", "o3", "o4", "gpt-5")

_NORMAL: Final = NormalDist()
_COMMON: Final = (
    "the of and to in is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were her all she there would their we him been has when who "
    "will more no if out so said what up its about into than them"
)
_VOCABULARY: Final = 4096
"""Words after which the answer's text repeats."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes; base and per_token are scaled by one lognormal draw."""

    base: float = 0.3
    """Seconds until the first token."""
    per_token: float = 1 / 80
    """Seconds for each token."""
    spread: float = 0.3
    """Standard deviation of the draw's logarithm; 0 makes every factor 1."""
    jitter: tuple[float, float] = (0.0, 0.0)
    """Least and most seconds on the network, drawn anew for each way."""

    def __post_init__(self) -> None:
        figures = (self.base, self.per_token, self.spread, *self.jitter)
        if not all(0 <= figure < math.inf for figure in figures) or self.jitter[0] > self.jitter[1]:
            raise InvalidArgument(
                f"{self}: seconds are finite and not negative, and jitter is (least, most)"
            )

    def draw(self, generator: random.Random) -> float:
        """Return one call's factor on base and per_token."""
        return generator.lognormvariate(0.0, self.spread) if self.spread else 1.0

    def network(self, generator: random.Random) -> float:
        """Return the seconds of one way."""
        return generator.uniform(*self.jitter) if self.jitter[1] else 0.0


class Answers:
    """How long each call's prompt and output are.

    :param output: median tokens of an answer.
    :param spread: standard deviation of the length's logarithm.
    :param counter: counts prompts; None for tiktoken's count.
    :param tool_use: when offered tools are called, see `contents`.
    """

    def __init__(
        self,
        *,
        output: float,
        spread: float,
        counter: PromptCounter | None,
        seed: int,
        tool_use: ToolUse = "asked",
    ) -> None:
        if not (output >= 1 and math.isfinite(output) and 0 <= spread < math.inf):
            raise InvalidArgument(
                f"output={output}, spread={spread}: a median of at least one token and a finite "
                "spread"
            )

        self._median, self._spread, self._seed = output, spread, seed
        self._counter = counter or count_prompt
        self._tool_use = tool_use

    def content(self, call: Call) -> Content:
        """Return what the answer says."""
        return content_of(call, self._tool_use)

    def prompt(self, call: Call) -> int:
        """Return the billed prompt tokens: the workload's figure, else a count."""
        if "prompt_tokens" in call.known:
            return int(call.known["prompt_tokens"])

        return self._counter(call.endpoint, call.body)

    def usage(self, call: Call, content: Content, prompt: int) -> Usage:
        """Return the bill, without what the cache holds.

        The output is as long as the workload says, else as long as the content, else
        lognormal around the median; over all choices, and bounded by what the body
        allows.
        """
        output = self._output(call, content)
        reasoning = call.known.get("reasoning_tokens")
        if reasoning is None:
            reasoning = _reasoning(call.body, output) if content.tokens is None else 0

        return Usage(prompt, output, reasoning_tokens=min(int(reasoning), output))

    def _output(self, call: Call, content: Content) -> int:
        if call.endpoint not in {"chat.completions", "responses", "completions"}:
            return 0

        if "completion_tokens" in call.known:
            return int(call.known["completion_tokens"])

        length: float = self._length(call.raw) if content.tokens is None else content.tokens
        most = most_output(call.body)
        one = max(1, round(length if most is None else min(length, most)))
        return one * choices(call.endpoint, call.body)

    def _length(self, raw: bytes) -> float:
        """Return the tokens that the seed draws for a body."""
        if not self._spread:
            return self._median

        rank = (zlib.crc32(raw, self._seed & 0xFFFFFFFF) + 0.5) / 2**32
        return math.exp(math.log(self._median) + self._spread * _NORMAL.inv_cdf(rank))

    def prepare(self) -> None:
        """Load the vocabulary of today's models, so that the first call is not slow.

        A counter that was given loads its own.
        """
        if self._counter is count_prompt:
            hello = {"role": "user", "content": "hi"}
            count_prompt("chat.completions", {"model": "gpt-4o", "messages": [hello]})


def _reasoning(body: Mapping[str, Any], output: int) -> int:
    """Return how many of the output tokens a reasoning model spends unseen."""
    if not str(body.get("model", "")).startswith(_REASONING_MODELS):
        return 0

    given = body.get("reasoning")
    effort = given.get("effort") if isinstance(given, dict) else body.get("reasoning_effort")
    return int(output * _REASONING.get(str(effort), 0.5)) // REASONING_STEP * REASONING_STEP


@cache
def _long_text() -> tuple[str, list[int]]:
    """Return a text of `_VOCABULARY` words, and where each of them ends."""
    chosen = random.Random(0).choices(_COMMON.split(), k=_VOCABULARY)
    text = " " + " ".join(chosen)
    ends, end = [0], 0
    for word in chosen:
        end += len(word) + 1
        ends.append(end)

    return text, ends


def words(start: int, stop: int) -> str:
    """Return the answer's words from number `start` to `stop`, one token each.

    Each has the space before it.
    """
    text, ends = _long_text()
    pieces = []
    while start < stop:
        turn, first = divmod(start, _VOCABULARY)
        last = min(_VOCABULARY, stop - turn * _VOCABULARY)
        pieces.append(text[ends[first] : ends[last]])
        start = turn * _VOCABULARY + last

    return "".join(pieces)
