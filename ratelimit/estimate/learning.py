"""What usage teaches: how far a formula is off, and how long answers are.

Owns bounded memories, of the difference and the ratio of bill and formula by model and
content, and of the length of answers by model and call site, and the rules by which
they are used. Must
never see a request. Not thread-safe by itself: the estimator holds the lock. But a
settlement may interrupt any line here in the same thread, so no line may fail by it.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ratelimit.estimate.results import Basis, Learned

ROWS: Final = 512
"""Rows of each memory; the longest unused goes first."""

BELIEVED: Final = 5
"""Samples before a ratio corrects anything."""

NOISE: Final = 0.02
"""A ratio this near to 1 corrects nothing: the formula is right, the rest is chance."""

RATIOS: Final = 16
"""Ratios remembered per model and kind; the middle of them corrects.

A mean would let one odd bill, four times the formula, correct twenty right ones.
"""

BOUND: Final = 4.0
"""A ratio stays within 1/BOUND..BOUND.

A formula further off than that was not meant for this content.
"""

LARGEST_CONSTANT: Final = 512
"""Tokens that a bill may differ by for one reason that no body shows.

Source: recorded calls; grok-3-mini writes 227 tokens around functions.
"""

FEW: Final = 3
"""Tokens that servers of one model differ by, in either direction.

Source: recorded calls of o4-mini, gpt-5 and gpt-5-mini, at OpenAI and at Azure.
"""

ANSWERS: Final = 64
"""Answers remembered per model and site."""

ENOUGH: Final = 16
"""Answers before their quantile replaces the reserve."""

QUANTILE: Final = 0.9

KEPT: Final = 4096
"""Responses and conversations of which the length is remembered."""

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


@dataclass(slots=True)
class _Ratio:
    last: deque[float] = field(default_factory=lambda: deque(maxlen=RATIOS))
    samples: int = 0
    factor: float = 1.0
    correction: float = 1.0

    def add(self, ratio: float) -> None:
        self.samples += 1
        self.last.append(min(max(ratio, 1 / BOUND), BOUND))
        # Nearly always the formula has been right every time.
        if ratio == 1.0 and self.factor == 1.0:
            return

        self.factor = statistics.median(self.last)
        believed = len(self.last) >= BELIEVED and abs(self.factor - 1) > NOISE
        self.correction = self.factor if believed else 1.0


@dataclass(slots=True)
class _Constant:
    """What a server writes into every prompt of a kind, and no body shows.

    The first bill is believed until the next one, but for one that is more than a few
    tokens below a formula known to be right. After that one odd bill changes nothing,
    and two equal ones do; one that meets a formula known to be right ends the constant.
    """

    tokens: int
    agreed: bool = False
    odd: int | None = None

    def add(self, difference: int) -> None:
        if difference == self.tokens:
            self.agreed, self.odd = True, None
        elif difference == self.odd:
            self.tokens, self.agreed, self.odd = difference, True, None
        else:
            self.odd = difference
            if not self.agreed:
                # Both hold what is constant, one perhaps more beside it.
                same = (difference > 0) == (self.tokens > 0)
                self.tokens = min(self.tokens, difference, key=abs) if same else 0

    def end(self) -> None:
        """Drop the constant: a bill met a formula that is known to be right."""
        self.tokens, self.agreed, self.odd = 0, True, None


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
        self._constants: dict[tuple[str, str, str], _Constant] = {}
        self._answers: dict[tuple[str, str, int | None], _Answers] = {}
        self._kept: dict[str, int] = {}

    def corrected(self, model: str, endpoint: str, basis: Basis) -> int:
        """Return the formula's tokens as the bills of such prompts correct them."""
        # Every estimate comes here, so the rows are looked up without a call each (see
        # `first_count_ratio_1k` of benchmarks/estimating.py).
        tokens, kind = basis.formula_tokens, basis.kind
        constant = self._constants.get((model, kind, endpoint)) if basis.steady else None
        if constant is not None:
            tokens = max(tokens + constant.tokens, 0)

        ratio = self._ratios.get((model, kind))
        return tokens if ratio is None else round(tokens * ratio.correction)

    def add_difference(
        self,
        model: str,
        kind: str,
        endpoint: str,
        difference: int,
        *,
        known: bool,
        noise: float = 0,
    ) -> int:
        """Record that a prompt was billed `difference` tokens more than the formula's.

        What is larger than `LARGEST_CONSTANT` is no constant, and teaches nothing.
        Return the tokens to add to the formula's from now on.

        :param known: whether the formula was fitted on this very model.
        :param noise: tokens within which a difference is chance, but for a first bill
            above the formula and those that repeat it.
        """
        key = model, kind, endpoint
        row = self._constants.get(key)
        if abs(difference) > LARGEST_CONSTANT:
            return 0 if row is None else row.tokens

        if row is None and (not known or difference > 0 or noise < -difference <= FEW):
            row = self._constants[key] = _Constant(difference)
        else:
            row = row or self._constants.setdefault(key, _Constant(0, agreed=True))
            if known and difference == 0:
                row.end()
            else:
                row.add(difference if abs(difference) > noise or difference == row.tokens else 0)

        if len(self._constants) > ROWS // 2:
            _renew(self._constants, key)
        return row.tokens

    def expected(self, model: str, site: str, bits: int | None) -> int | None:
        """Return the 90th percentile of output tokens per choice.

        None until enough answers were seen.

        :param bits: the size of the requests' bound, in bits.
        """
        row = self._answers.get((model, site, bits))
        return None if row is None else row.expected

    def add_prompt(self, model: str, endpoint: str, basis: Basis, billed: int) -> None:
        """Record the bill of one prompt: its difference first, the rest as a ratio."""
        formula = basis.formula_tokens
        if basis.steady:
            formula += self.add_difference(
                model,
                basis.kind,
                endpoint,
                billed - formula,
                known=basis.known,
                noise=NOISE * formula if basis.known else 0,
            )
            formula = max(formula, 1)

        self.add_bill(model, basis.kind, billed / formula)

    def add_bill(self, model: str, kind: str, ratio: float) -> None:
        """Record that a prompt was billed `ratio` times the formula's figure."""
        _row(self._ratios, (model, kind), _Ratio).add(ratio)

    def add_answer(self, model: str, site: str, bits: int | None, tokens: int) -> None:
        """Record that an answer had `tokens` tokens per choice.

        :param bits: the size of the request's bound, in bits.
        """
        row = _row(self._answers, (model, site, bits), _Answers)
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


def _row(rows: dict[_Key, _Row], key: _Key, make: Callable[[], _Row]) -> _Row:
    """Return the row of a key, made if there is none; the last to be dropped."""
    row = rows.get(key)
    if row is None:
        row = rows[key] = make()

    if len(rows) > ROWS // 2:
        _renew(rows, key)
    return row


def _renew(rows: dict[Any, Any], key: object, most: int = ROWS) -> None:
    """Make a row the last to be dropped; beyond `most` the longest unused one goes."""
    row = rows.pop(key, None)
    if row is not None:
        rows[key] = row

    if len(rows) > most:
        # Of a copy, which no settlement in between can change.
        rows.pop(next(iter(rows.copy())), None)
