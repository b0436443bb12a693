"""What this room hands out: frozen results and the statistics.

Owns the shapes other rooms read. Must never hold a rule, a number that is fitted, or a
cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Endpoint: TypeAlias = Literal[
    "chat.completions",
    "responses",
    "embeddings",
    "completions",
    "images",
    "audio",
    "moderations",
    "other",
]
Confidence: TypeAlias = Literal["exact", "formula", "learned", "guess"]


class Estimate(NamedTuple):
    """What one request will cost, as far as its body tells.

    All amounts are tokens (`images` is a number of pictures). `confidence` is "exact"
    where the formula met the bill on practically every recorded call, "formula" where
    it is known to be a few tokens off at times, "learned" where usage corrected it,
    "guess" where only a size is known.

    A named tuple, since every call makes one: a frozen dataclass of that many fields
    takes three times as long to make.
    """

    endpoint: Endpoint
    model: str  # "" when unknown
    # what will be billed for the prompt: usage.prompt_tokens, usage.input_tokens
    prompt_tokens: int
    output_tokens: int  # expected output over all choices: what a reserve should hold
    # the most the body allows over all choices; None: the body sets no bound
    max_output_tokens: int | None
    charge: int  # what the server's token limiter takes at admission
    images: int = 0  # pictures in the prompt, or asked for on the images endpoint
    confidence: Confidence = "guess"
    kind: str = "text"  # what the prompt holds, for learning: "text", "tools", "images+tools", ...
    site: str = ""  # the call site that asked, for learning its output
    choices: int = 1  # n, times the number of prompts on the completions endpoint
    # of the bound its answers are learned by; None: with all others of its site
    bound_bits: int | None = None
    # prompt_tokens before the learned ratio; what `learn` compares the bill with
    formula_tokens: int = 0
    # of these: instructions and tools, sent anew with every request of a conversation
    # the server keeps
    fixed_tokens: int = 0
    conversation: str = ""  # its id, where the body names one


@dataclass(frozen=True, slots=True)
class Learned:
    """What usage taught about one model and kind of content, or about one model's
    answers at one call site to bodies of one bound.
    """

    model: str
    kind: str  # kind of content; "" in the rows of call sites
    site: str  # call site; "" in the rows of content kinds
    samples: int
    ratio: float  # usage / formula, 1.0 in the rows of call sites
    expected_output: int | None  # tokens per choice; None until enough answers were seen
    # tokens per choice: the bodies' bound is half of this to this; None: whatever it
    # was
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class EstimatorStatistics:
    """A snapshot of what an estimator has learned and which warnings it gave."""

    prompts: tuple[Learned, ...]
    outputs: tuple[Learned, ...]
    warnings: tuple[str, ...]
