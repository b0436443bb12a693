"""Whose calls are to be tuned for: read out of a file, or drawn from a description, and how a seed arranges them.

Owns: what is known of each call (its body, its bill, when it comes, how urgent it is) and what chance decides (the order, answers that nobody
recorded, how long answers and the network take). What must never come in: limits, servers, clocks, settings of the limiter.

A seed decides everything random beforehand and call by call, so two settings that are compared on one seed meet the same luck.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import read_request
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimate, Estimator
from ratelimit.feedback import read_usage
from ratelimit.limits import family_of
from ratelimit.testing import Latency
from ratelimit.testing.answers import words

PRIORITIES: Final = ("interactive", "normal", "batch")
MOMENTS: Final = ("arrival", "timestamp", "created_at", "created", "time", "date")
"""Fields of a line that may say when its call came: seconds, ISO 8601, or an HTTP date."""
BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal length in tokens: its median, and the standard deviation of its logarithm."""

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
"""The answers of calls whose answers nobody recorded, as `ratelimit demo` invents them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One call. `answer`: billed output tokens, None: not known. `most`: what its body allows for one answer, in tokens."""

    body: Mapping[str, Any]
    endpoint: str
    model: str
    counted: Estimate
    prompt: int
    answer: int | None = None
    most: int | None = None
    moment: float | None = None
    priority: str = "normal"
    origin: str = ""

    @property
    def answers(self) -> bool:
        """Whether it gets text back."""
        return self.endpoint in {"chat.completions", "responses", "completions"}

    @property
    def reserve(self) -> int:
        """Tokens that it needs at least: its prompt and the most it may answer, or what the server takes at admission."""
        return max(self.prompt + (self.answer or 0), self.counted.charge, self.counted.prompt_tokens + (self.counted.max_output_tokens or 0))

    def capped(self, most: int) -> Item:
        """The same call with at most `most` tokens for an answer; a longer one is cut."""
        if not self.answers or (self.most is not None and self.most <= most):
            return self
        name = next((name for name in BOUNDS if name in self.body), "max_output_tokens" if self.endpoint == "responses" else "max_tokens")
        choices = self.counted.choices
        counted = self.counted._replace(max_output_tokens=most * choices, output_tokens=most * choices)
        answer = None if self.answer is None else min(self.answer, most * choices)
        return replace(self, body={**self.body, name: most}, counted=counted, answer=answer, most=most)


@dataclass(frozen=True, slots=True)
class Job:
    """One call as a seed has it: when it comes, what it will be billed, and the seconds it spends on the way there, at work, and back."""

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

    :param pace: calls a second, at random moments; 0: all at once; None: at the moments that the file says.
    :param span: seconds over which interactive calls come in while others are there from the start.
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
        jobs = [self._job(item, moment, latency, generator) for item, moment in zip(items, moments, strict=True)]
        jobs.sort(key=lambda job: job.arrival)
        return [replace(job, number=number) for number, job in enumerate(jobs)]

    def sample(self, count: int, seed: int = 0) -> Traffic:
        """`count` of the calls, drawn without order; all of them if there are no more."""
        if count >= len(self.items):
            return self
        chosen = sorted(random.Random(f"sample {seed}").sample(range(len(self.items)), count))
        return replace(self, items=[self.items[index] for index in chosen], pace=self.pace and self.pace * count / len(self.items))

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
        return [generator.uniform(0, self.span) if urgent and item.priority == "interactive" else 0.0 for item in items]

    def _job(self, item: Item, moment: float, latency: Latency, generator: random.Random) -> Job:
        drawn = self.spread.draw(generator)
        if item.most is not None:
            drawn = min(drawn, item.most)
        output = drawn * item.counted.choices if item.answer is None else item.answer
        output = output if item.answers else 0
        work = (latency.base + latency.per_token * output / max(item.counted.choices, 1)) * latency.draw(generator)
        return Job(0, moment, item, output, latency.network(generator), work, latency.network(generator))


def described(requests: int, prompt: tuple[float, float], output: tuple[float, float], most: int | None, model: str) -> Traffic:
    """Draw chat calls of a description: mean and deviation of prompts and answers in tokens, `max_tokens` of all."""
    estimator, generator = Estimator(), random.Random("described")
    lengths = Spread.around(*prompt)

    @cache
    def item(tokens: int) -> Item:
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": words(0, max(tokens - 7, 1)).lstrip()}]}
        if most is not None:
            body["max_tokens"] = most
        counted = estimator.estimate(body)
        return Item(body, "chat.completions", model, counted, counted.prompt_tokens, most=most)

    return Traffic([item(lengths.draw(generator)) for _ in range(requests)], spread=Spread.around(*output))


def read(path: Path, *, model: str | None, every_model: bool, skip_bad: bool, largest: float) -> Traffic:
    """Read a file of request bodies, Batch API lines or recorded calls.

    :param model: whose calls count: those of this model, its snapshots, and those that name none. :param every_model: all count as its calls.
    :param skip_bad: go on behind a line that cannot be used. :param largest: tokens that one call may need at most.
    Raises `InvalidArgument`: one sentence that names the line and the remedy.
    """
    items, others, bad, estimator = [], Counter[str](), [], Estimator()
    for number, raw in read_lines(path):
        where = f"line {number} of {path}"
        try:
            item = _item(parse_line(raw, where), number, where, model, estimator, every_model=every_model)
            if isinstance(item, str):
                others[item] += 1
                continue
            _fitting(item, largest)
        except InvalidArgument as error:
            if not skip_bad:
                raise InvalidArgument(f"{error}; --skip-bad goes on without such lines") from None
            bad.append(str(error))
            continue
        items.append(item)
    if not items:
        raise InvalidArgument(_nothing(path, model, others, bad))
    if any(item.moment is None for item in items):
        items = [replace(item, moment=None) for item in items]
    return Traffic(items, notes=tuple(_notes(items, model, others, bad)))


def _item(line: Mapping[str, Any], number: int, where: str, model: str | None, estimator: Estimator, *, every_model: bool) -> Item | str:
    """One call, or the model of one that is another's."""
    request = read_request(line, number, where=where, model=model if every_model else None)
    named = request.model
    if model is not None and named and family_of(named, [model]) is None and family_of(model, [named]) is None:
        return named
    counted = estimator.estimate(request.body, endpoint=request.endpoint)
    usage = read_usage(line.get("usage")) if line.get("usage") else None
    priority = line.get("priority", "normal")
    if priority not in PRIORITIES:
        raise InvalidArgument(f'{where} has the "priority" {priority!r}; it is one of {", ".join(PRIORITIES)}')
    most = None if counted.max_output_tokens is None else counted.max_output_tokens // max(counted.choices, 1)
    return Item(
        {**request.body, "model": model or named},
        request.endpoint,
        model or named,
        counted,
        counted.prompt_tokens if usage is None else usage.prompt_tokens,
        None if usage is None else usage.output_tokens,
        most,
        next((moment for name in MOMENTS if (moment := _moment(line.get(name))) is not None), None),
        priority,
        where,
    )


def _fitting(item: Item, largest: float) -> None:
    if item.reserve > largest:
        raise InvalidArgument(
            f"{item.origin} needs {item.reserve:,} tokens, more than the limit of {largest:,.12g} lets through at all: shorten it, lower its"
            " max_tokens, or give a higher limit"
        )


def _moment(said: object) -> float | None:
    """Seconds of a moment as a line says it; None when it is none."""
    if isinstance(said, (int, float)) and not isinstance(said, bool) and math.isfinite(said):
        return float(said)
    if isinstance(said, str):
        for read_text in (dt.datetime.fromisoformat, parsedate_to_datetime):
            try:
                return read_text(said).timestamp()
            except ValueError:
                continue
    return None


def _nothing(path: Path, model: str | None, others: Counter[str], bad: Sequence[str]) -> str:
    if others:
        named = ", ".join(name for name, _ in others.most_common(5))
        return f"{path} holds no requests for {model}, only for {named}: name one of these as --model, or count all of them with --every-model"
    if bad:
        return f"{path} holds no usable requests: {bad[0]}"
    return f"{path} holds no requests: one JSON object a line is expected, such as a request body; or describe the traffic with --requests"


def _notes(items: Sequence[Item], model: str | None, others: Counter[str], bad: Sequence[str]) -> Iterator[str]:
    if others:
        yield (
            f"{sum(others.values()):,} requests for {len(others)} other models are left out: what they use does not count against {model}'s"
            " limits (--every-model counts them)."
        )
    if bad:
        yield f"{len(bad):,} lines that cannot be used are left out, first: {bad[0]}."
    unknown = sum(item.answer is None and item.answers for item in items)
    if unknown:
        yield f"For {unknown:,} requests nobody recorded the answer: its length is drawn around {USUAL.median:.0f} tokens."


def arranged(traffic: Traffic, arrivals: str, interactive: float) -> Traffic:
    """Say how the calls come in, and which share of them is urgent.

    :param arrivals: "at once", "recorded" (by the moments of the file), or a pace such as "5/s".
    """
    items = list(traffic.items)
    if interactive:
        chosen = random.Random("interactive").sample(range(len(items)), max(1, round(interactive * len(items))))
        urgent = set(chosen)
        items = [replace(item, priority="interactive" if number in urgent else "batch") for number, item in enumerate(items)]
    traffic = replace(traffic, items=items)
    if arrivals == "at once":
        return replace(traffic, pace=0.0)
    if arrivals == "recorded":
        if items[0].moment is None:
            raise InvalidArgument(f"--arrivals recorded needs a moment in every line, under one of {', '.join(MOMENTS)}")
        return replace(traffic, pace=None)
    amount, _, unit = arrivals.partition("/")
    periods = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    try:
        pace = float(amount) / periods[unit.strip()]
    except (ValueError, KeyError):
        pace = 0.0
    if not 0 < pace < math.inf:
        raise InvalidArgument(f"--arrivals is 'at once', 'recorded' or a pace such as 5/s or 300/min, not {arrivals!r}")
    return replace(traffic, pace=pace)
