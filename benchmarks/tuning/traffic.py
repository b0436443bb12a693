"""Whose calls are to be tuned for, and how a seed arranges them.

Owns what is known of each call (its body, its bill, when it comes, how urgent it is)
and what chance decides (the order, answers that nobody recorded, how long answers and
the network take). Must never contain where calls come from (`sources.py`),
limits, servers, clocks, settings of the limiter.

A seed decides everything random beforehand and call by call, so two settings that are
compared on one seed meet the same luck.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ratelimit.estimate import Estimate
from ratelimit.testing import Latency

BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal length in tokens: median, and standard deviation of the logarithm."""

    median: float
    sigma: float

    @classmethod
    def around(cls, mean: float, deviation: float) -> Spread:
        """The one of this mean and standard deviation."""
        sigma = math.sqrt(math.log1p((deviation / mean) ** 2))
        return cls(mean / math.exp(sigma**2 / 2), sigma)

    def draw(self, generator: random.Random) -> int:
        """One length, at least 1."""
        return max(1, round(generator.lognormvariate(math.log(self.median), self.sigma)))


USUAL: Final = Spread(120, 0.6)
"""The answers of calls whose answers nobody recorded, as `ratelimit demo` invents them.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One call of the traffic."""

    body: Mapping[str, Any]
    endpoint: str
    model: str
    counted: Estimate
    """The limiter's estimate of the body, made once."""
    prompt: int
    """Billed prompt tokens."""
    answer: int | None = None
    """Billed output tokens; None: not known."""
    most: int | None = None
    """Tokens that the body allows for one answer."""
    moment: float | None = None
    """Recorded arrival, in seconds; None: not known."""
    priority: str = "normal"
    origin: str = ""
    """Line and file, for messages."""
    late: int = 0
    """Billed prompt tokens that the server cannot charge when the call arrives."""

    @property
    def answers(self) -> bool:
        """Whether it gets text back."""
        return self.endpoint in {"chat.completions", "responses", "completions"}

    @property
    def reserve(self) -> int:
        """Tokens that it needs at least: prompt and longest answer, or the charge."""
        return max(
            self.prompt + (self.answer or 0),
            self.counted.charge,
            self.counted.prompt_tokens + (self.counted.max_output_tokens or 0),
        )

    def capped(self, most: int) -> Item:
        """Return the same call with at most `most` tokens for an answer."""
        if not self.answers or (self.most is not None and self.most <= most):
            return self
        name = next(
            (name for name in BOUNDS if name in self.body),
            "max_output_tokens" if self.endpoint == "responses" else "max_tokens",
        )
        choices = self.counted.choices
        counted = self.counted._replace(
            max_output_tokens=most * choices, output_tokens=most * choices
        )
        answer = None if self.answer is None else min(self.answer, most * choices)
        return replace(
            self, body={**self.body, name: most}, counted=counted, answer=answer, most=most
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One call as a seed draws it, times in seconds."""

    number: int
    arrival: float
    item: Item
    output: int
    there: float
    work: float
    back: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """All calls, and how they come.

    :param pace: calls a second, at random moments; 0: all at once; None: at the moments
        that the file says.
    :param span: seconds over which interactive calls come in while others are there
        from the start.
    :param spread: of answers that nobody recorded.
    """

    items: Sequence[Item]
    pace: float | None = 0.0
    span: float = 0.0
    spread: Spread = USUAL
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def two_classes(self) -> bool:
        """Whether some calls are more urgent than others."""
        return len({item.priority for item in self.items}) > 1

    def jobs(self, seed: int, latency: Latency) -> list[Job]:
        """Arrange the calls by a seed, in the order of arrival."""
        generator = random.Random(f"tune {seed}")
        items = list(self.items)
        if self.pace is not None:
            generator.shuffle(items)
        moments = self._moments(items, generator)
        jobs = [
            self._job(item, moment, latency, generator)
            for item, moment in zip(items, moments, strict=True)
        ]
        jobs.sort(key=lambda job: job.arrival)
        return [replace(job, number=number) for number, job in enumerate(jobs)]

    def sample(self, count: int, seed: int = 0) -> Traffic:
        """Draw `count` of the calls; all of them if there are no more."""
        if count >= len(self.items):
            return self
        chosen = sorted(random.Random(f"sample {seed}").sample(range(len(self.items)), count))
        return replace(
            self,
            items=[self.items[index] for index in chosen],
            pace=self.pace and self.pace * count / len(self.items),
        )

    def capped(self, most: int) -> Traffic:
        """The same calls with a smaller `max_tokens`."""
        return replace(self, items=[item.capped(most) for item in self.items])

    def _moments(self, items: Sequence[Item], generator: random.Random) -> list[float]:
        if self.pace is None:
            first = min(item.moment or 0.0 for item in items)
            return [(item.moment or 0.0) - first for item in items]
        if self.pace:
            moment, moments = 0.0, []
            for _ in items:
                moments.append(moment)
                moment += generator.expovariate(self.pace)
            return moments
        urgent = self.two_classes and self.span
        return [
            generator.uniform(0, self.span) if urgent and item.priority == "interactive" else 0.0
            for item in items
        ]

    def _job(self, item: Item, moment: float, latency: Latency, generator: random.Random) -> Job:
        drawn = self.spread.draw(generator)
        if item.most is not None:
            drawn = min(drawn, item.most)
        output = drawn * item.counted.choices if item.answer is None else item.answer
        output = output if item.answers else 0
        work = (
            latency.base + latency.per_token * output / max(item.counted.choices, 1)
        ) * latency.draw(generator)
        return Job(
            0, moment, item, output, latency.network(generator), work, latency.network(generator)
        )
