"""What usage teaches: the ratio bill / formula per model and content, the length of
answers per model and call site.

Owns two bounded memories and the rules by which they are believed. Must never see a
request. Not thread-safe by itself: the estimator holds the lock. But a lesson may
interrupt any line here, in the same thread, so no line may fail by it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ratelimit.estimate.results import Learned

ROWS = 512  # models x kinds, and models x sites, remembered; the longest unused goes first
BELIEVED = 5  # samples before a ratio corrects anything
NOISE = 0.02  # ratios this near 1 correct nothing: the formula is right, the rest is luck
SLOWEST = 1 / 16  # weight of a new sample once many were seen
# a ratio never leaves 1/BOUND..BOUND; a formula further off than that was not meant for
# this content
BOUND = 4.0
ANSWERS = 64  # answers remembered per model and site
ENOUGH = 16  # answers before their quantile replaces the reserve
QUANTILE = 0.9
KEPT = 4096  # responses and conversations whose length is remembered


@dataclass(slots=True)
class _Ratio:
    log: float = 0.0
    samples: int = 0
    correction: float = 1.0

    def add(self, ratio: float) -> None:
        self.samples += 1
        step = math.log(min(max(ratio, 1 / BOUND), BOUND)) - self.log
        self.log += step * max(1 / self.samples, SLOWEST)
        factor = math.exp(self.log)
        self.correction = factor if self.samples >= BELIEVED and abs(factor - 1) > NOISE else 1.0

    @property
    def factor(self) -> float:
        return math.exp(self.log)


@dataclass(slots=True)
class _Answers:
    last: deque[int] = field(default_factory=lambda: deque(maxlen=ANSWERS))
    samples: int = 0

    @property
    def expected(self) -> int | None:
        if len(self.last) < ENOUGH:
            return None
        return sorted(self.last)[math.ceil(QUANTILE * len(self.last)) - 1]


class Memory:
    """Ratios and answers, bounded to `ROWS` each, and how long the conversations kept
    by the server are.
    """

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], _Ratio] = {}
        # the third: bits of the bodies' bound
        self._answers: dict[tuple[str, str, int | None], _Answers] = {}
        self._kept: dict[str, int] = {}

    def correction(self, model: str, kind: str) -> float:
        """Return the factor for a formula's prompt tokens: 1.0 until enough bills
        disagree with it.
        """
        row = self._ratios.get((model, kind))
        return 1.0 if row is None else row.correction

    def expected(self, model: str, site: str, bits: int | None) -> int | None:
        """Tokens nine of ten answers to bodies whose bound has so many bits stay
        within, None until enough were seen.
        """
        row = self._answers.get((model, site, bits))
        return None if row is None else row.expected

    def billed(self, model: str, kind: str, ratio: float) -> None:
        """Take in that a prompt was billed `ratio` times what the formula said."""
        key = model, kind
        row = self._ratios.get(key)
        if row is None:
            row = self._ratios[key] = _Ratio()
        if len(self._ratios) > ROWS // 2:
            _renew(self._ratios, key)
        if ratio == 1.0 and row.log == 0.0:  # nearly always: the formula has been right every time
            row.samples += 1
        else:
            row.add(ratio)

    def answered(self, model: str, site: str, bits: int | None, tokens: int) -> None:
        """Take in that an answer to a body whose bound has so many bits had `tokens`
        tokens per choice.
        """
        key = model, site, bits
        row = self._answers.get(key)
        if row is None:
            row = self._answers[key] = _Answers()
        if len(self._answers) > ROWS // 2:
            _renew(self._answers, key)
        row.last.append(tokens)
        row.samples += 1

    def keep(self, name: str, tokens: int) -> None:
        """Remember that what the server keeps under `name`, a response's or a
        conversation's id, has `tokens` tokens.
        """
        self._kept[name] = tokens
        _renew(self._kept, name, KEPT)

    def kept(self, name: str) -> int | None:
        """Return the tokens the server keeps under `name`, None when they were never
        seen.
        """
        return self._kept.get(name)

    def prompts(self) -> tuple[Learned, ...]:
        """List the rows of content kinds."""
        return tuple(
            Learned(model, kind, "", row.samples, row.factor, None)
            for (model, kind), row in self._ratios.copy().items()
        )

    def outputs(self) -> tuple[Learned, ...]:
        """List the rows of call sites."""
        return tuple(
            Learned(
                model,
                "",
                site,
                row.samples,
                1.0,
                row.expected,
                None if bits is None else (1 << bits) - 1,
            )
            for (model, site, bits), row in self._answers.copy().items()
        )


def _renew(rows: dict[Any, Any], key: object, most: int = ROWS) -> None:
    """Make a row the last to be forgotten; when there are too many, the one that was
    not used for the longest time goes.
    """
    row = rows.pop(key, None)
    if row is not None:
        rows[key] = row
    if len(rows) > most:
        rows.pop(next(iter(rows.copy())), None)  # of a copy, which no lesson in between can change
