"""What usage teaches: how far a formula is off, and how long answers are.

Owns two bounded memories, of the ratio bill / formula by model and content, and of the
length of answers by model and call site, and the rules by which they are used. Must
never see a request. Not thread-safe by itself: the estimator holds the lock. But a
settlement may interrupt any line here in the same thread, so no line may fail by it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from ratelimit.estimate.results import Learned

ROWS: Final = 512
"""Rows of each memory; the longest unused goes first."""

BELIEVED: Final = 5
"""Samples before a ratio corrects anything."""

NOISE: Final = 0.02
"""A ratio this near to 1 corrects nothing: the formula is right, the rest is chance."""

SLOWEST: Final = 1 / 16
"""Weight of a new sample once many were seen."""

BOUND: Final = 4.0
"""A ratio stays within 1/BOUND..BOUND.

A formula further off than that was not meant for this content.
"""

ANSWERS: Final = 64
"""Answers remembered per model and site."""

ENOUGH: Final = 16
"""Answers before their quantile replaces the reserve."""

QUANTILE: Final = 0.9

KEPT: Final = 4096
"""Responses and conversations of which the length is remembered."""


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
        if self.samples >= BELIEVED and abs(factor - 1) > NOISE:
            self.correction = factor
        else:
            self.correction = 1.0

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
    """Ratios, answers, and the lengths of conversations that the server keeps.

    Ratios and answers are bounded to `ROWS` each.
    """

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], _Ratio] = {}
        self._answers: dict[tuple[str, str, int | None], _Answers] = {}
        self._kept: dict[str, int] = {}

    def correction(self, model: str, kind: str) -> float:
        """Return the factor for a formula's prompt tokens.

        1.0 until enough bills disagree with it.
        """
        row = self._ratios.get((model, kind))
        return 1.0 if row is None else row.correction

    def expected(self, model: str, site: str, bits: int | None) -> int | None:
        """Return the 90th percentile of output tokens per choice.

        None until enough answers were seen.

        :param bits: the size of the requests' bound, in bits.
        """
        row = self._answers.get((model, site, bits))
        return None if row is None else row.expected

    def add_bill(self, model: str, kind: str, ratio: float) -> None:
        """Record that a prompt was billed `ratio` times the formula's figure."""
        key = model, kind
        row = self._ratios.get(key)
        if row is None:
            row = self._ratios[key] = _Ratio()

        if len(self._ratios) > ROWS // 2:
            _renew(self._ratios, key)

        # Nearly always the formula has been right every time.
        if ratio == 1.0 and row.log == 0.0:
            row.samples += 1
        else:
            row.add(ratio)

    def add_answer(self, model: str, site: str, bits: int | None, tokens: int) -> None:
        """Record that an answer had `tokens` tokens per choice.

        :param bits: the size of the request's bound, in bits.
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
        """Record the tokens that the server keeps under an id.

        :param name: the id of a response or of a conversation.
        """
        self._kept[name] = tokens
        _renew(self._kept, name, KEPT)

    def kept(self, name: str) -> int | None:
        """Return the tokens that the server keeps under an id, None when unknown."""
        return self._kept.get(name)

    def prompts(self) -> tuple[Learned, ...]:
        """List the rows of content kinds."""
        return tuple(
            Learned(
                model=model,
                kind=kind,
                site="",
                samples=row.samples,
                ratio=row.factor,
                expected_output=None,
            )
            for (model, kind), row in self._ratios.copy().items()
        )

    def outputs(self) -> tuple[Learned, ...]:
        """List the rows of call sites."""
        return tuple(
            Learned(
                model=model,
                kind="",
                site=site,
                samples=row.samples,
                ratio=1.0,
                expected_output=row.expected,
                longest=None if bits is None else (1 << bits) - 1,
            )
            for (model, site, bits), row in self._answers.copy().items()
        )


def _renew(rows: dict[Any, Any], key: object, most: int = ROWS) -> None:
    """Make a row the last to be dropped; beyond `most` the longest unused one goes."""
    row = rows.pop(key, None)
    if row is not None:
        rows[key] = row

    if len(rows) > most:
        # Of a copy, which no settlement in between can change.
        rows.pop(next(iter(rows.copy())), None)
