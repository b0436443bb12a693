"""What usage teaches: the ratio bill / formula per model and content, the length of answers per model and call site.

Owns two bounded memories and the rules by which they are believed. Must never see a request. Not thread-safe by itself:
the estimator holds the lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TypeVar

from ratelimit.estimate.results import Learned

ROWS = 512  # models x kinds, and models x sites, remembered; the longest unused goes first
BELIEVED = 5  # samples before a ratio corrects anything
NOISE = 0.02  # ratios this near 1 correct nothing: the formula is right, the rest is luck
SLOWEST = 1 / 16  # weight of a new sample once many were seen
BOUND = 4.0  # a ratio never leaves 1/BOUND..BOUND; a formula further off than that was not meant for this content
ANSWERS = 64  # answers remembered per model and site
ENOUGH = 16  # answers before their quantile replaces the reserve
QUANTILE = 0.9
KEPT = 4096  # responses and conversations whose length is remembered

T = TypeVar("T")


@dataclass(slots=True)
class _Ratio:
    log: float = 0.0
    samples: int = 0

    def add(self, ratio: float) -> None:
        self.samples += 1
        step = math.log(min(max(ratio, 1 / BOUND), BOUND)) - self.log
        self.log += step * max(1 / self.samples, SLOWEST)

    @property
    def factor(self) -> float:
        return math.exp(self.log)

    @property
    def correction(self) -> float:
        if self.samples < BELIEVED:
            return 1.0
        factor = self.factor
        return factor if abs(factor - 1) > NOISE else 1.0


@dataclass(slots=True)
class _Answers:
    last: deque[int] = field(default_factory=lambda: deque(maxlen=ANSWERS))
    samples: int = 0

    def add(self, tokens: int) -> None:
        self.last.append(tokens)
        self.samples += 1

    @property
    def expected(self) -> int | None:
        if len(self.last) < ENOUGH:
            return None
        return sorted(self.last)[math.ceil(QUANTILE * len(self.last)) - 1]


class Memory:
    """Ratios and answers, bounded to `ROWS` each, and how long the conversations kept by the server are."""

    def __init__(self) -> None:
        self._ratios: OrderedDict[tuple[str, str], _Ratio] = OrderedDict()
        self._answers: OrderedDict[tuple[str, str], _Answers] = OrderedDict()
        self._kept: OrderedDict[str, int] = OrderedDict()

    def correction(self, model: str, kind: str) -> float:
        """Return the factor for a formula's prompt tokens: 1.0 until enough bills disagree with it."""
        row = self._ratios.get((model, kind))
        return 1.0 if row is None else row.correction

    def expected(self, model: str, site: str) -> int | None:
        """Tokens nine of ten answers stay within, None until enough were seen."""
        row = self._answers.get((model, site))
        return None if row is None else row.expected

    def billed(self, model: str, kind: str, ratio: float) -> None:
        """Take in that a prompt was billed `ratio` times what the formula said."""
        _row(self._ratios, (model, kind), _Ratio).add(ratio)

    def answered(self, model: str, site: str, tokens: int) -> None:
        """Take in that an answer had `tokens` tokens per choice."""
        _row(self._answers, (model, site), _Answers).add(tokens)

    def keep(self, name: str, tokens: int) -> None:
        """Remember that what the server keeps under `name`, a response's or a conversation's id, has `tokens` tokens."""
        self._kept[name] = tokens
        self._kept.move_to_end(name)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def kept(self, name: str) -> int | None:
        """Return the tokens the server keeps under `name`, None when they were never seen."""
        return self._kept.get(name)

    def prompts(self) -> tuple[Learned, ...]:
        """List the rows of content kinds."""
        return tuple(Learned(model, kind, "", row.samples, row.factor, None) for (model, kind), row in self._ratios.items())

    def outputs(self) -> tuple[Learned, ...]:
        """List the rows of call sites."""
        return tuple(Learned(model, "", site, row.samples, 1.0, row.expected) for (model, site), row in self._answers.items())


def _row(rows: OrderedDict[tuple[str, str], T], key: tuple[str, str], make: type[T]) -> T:
    row = rows.get(key)
    if row is None:
        row = rows[key] = make()
        if len(rows) > ROWS:
            rows.popitem(last=False)
    rows.move_to_end(key)
    return row
