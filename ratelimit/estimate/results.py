"""What this room hands out: frozen results and the statistics.

Owns the shapes that other rooms read. Must never hold a rule, a fitted number or a
cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ratelimit.estimate.endpoints import Endpoint

Confidence: TypeAlias = Literal["exact", "formula", "learned", "guess"]


class Basis(NamedTuple):
    """What an estimate was made of, for `Estimator.learn` to compare the bill with."""

    kind: str = "text"
    """What the prompt holds: "text", "tools", "images+tools", ..."""

    site: str = ""
    """The call site that asked; the length of its answers is learned apart."""

    bound_bits: int | None = None
    """Bits of the body's bound on one answer.

    Answers are learned apart for bounds of another size; None: whatever the bound was.
    """

    formula_tokens: int = 0
    """Prompt tokens before the learned ratio was applied."""

    fixed_tokens: int = 0
    """Of these: instructions and tools, sent anew with every request of a conversation
    that the server keeps."""

    steady: bool = False
    """Whether the formula sees all that the prompt holds, so that what a bill differs
    by is the same for each."""

    known: bool = False
    """Whether the formula was fitted on this very model."""

    conversation: str = ""
    """The conversation's id, where the body names one."""


class Estimate(NamedTuple):
    """What one request will cost, as far as its body shows.

    All amounts are tokens; `images` is a number of pictures. A named tuple, as every
    call makes one: a frozen dataclass takes twice as long, which shows in
    `first_count_ratio_1k` of benchmarks/estimating.py.
    """

    endpoint: Endpoint

    model: str
    """The model's name, "" when the body names none."""

    prompt_tokens: int
    """What will be billed for the prompt: `usage.prompt_tokens` or
    `usage.input_tokens`."""

    output_tokens: int
    """Expected output over all choices: what a reserve should hold."""

    max_output_tokens: int | None
    """The most that the body allows over all choices, None when it sets no bound."""

    charge: int
    """What the server's token limiter takes at admission."""

    images: int = 0
    """Pictures in the prompt, or asked for on the images endpoint."""

    confidence: Confidence = "guess"
    """How sure `prompt_tokens` is.

    "exact": the formula met the bill on practically every recorded call; "formula": it
    is known to be a few tokens off at times, or no call of so new a model is recorded;
    "learned": usage corrected it; "guess": only a size is known.
    """

    choices: int = 1
    """`n`, times the number of prompts on the completions endpoint."""

    basis: Basis = Basis()
    """What the estimate was made of: for `Estimator.learn` alone."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What usage taught about one model.

    A row is either about prompts, by the kind of their content, or about the answers at
    one call site to bodies with a bound of one size.
    """

    model: str

    kind: str
    """Kind of content; "" in the rows of call sites."""

    site: str
    """Call site; "" in the rows of content kinds."""

    samples: int

    ratio: float
    """Usage / formula; 1.0 in the rows of call sites."""

    expected_output: int | None
    """Tokens per choice; None until enough answers were seen."""

    longest: int | None = None
    """Tokens per choice: the bodies' bound is half of this to this; None: any."""


@dataclass(frozen=True, slots=True)
class EstimatorStatistics:
    """A snapshot of what an estimator has learned and which warnings it gave."""

    prompts: tuple[Learned, ...]
    outputs: tuple[Learned, ...]
    warnings: tuple[str, ...]
