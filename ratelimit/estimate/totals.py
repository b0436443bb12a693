"""The running sum of one request: tokens for the bill, sizes for the charge.

Owns the sum and how sure it is, so that every formula takes one walk over the request.
Must never know what a field means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.results import Confidence
from ratelimit.estimate.tokenizer import count
from ratelimit.estimate.untrusted import (
    as_sequence,
    is_opaque,
    is_unreadable,
    text_of_bytes,
    utf8_size,
)

_ORDER: Final[tuple[Confidence, ...]] = ("exact", "formula", "learned", "guess")

UNREAD_TOKENS: Final = 2_000
"""Tokens held for content that cannot be read.

Source: the prompts of 5,012 recorded calls; half have at most 143 tokens, 95 % at most
1,715.
"""


@dataclass(slots=True)
class Totals:
    """One request's sums; tokens in the model's own encoding, bytes in UTF-8."""

    traits: ModelTraits

    tokens: int = 0
    """Prompt tokens, as the server will bill them."""

    text_bytes: int = 0
    """Bytes of text content alone, which is what the server's limiter counts."""

    messages: int = 0

    token_ids: int = 0
    """Prompts sent as lists of token numbers: how many numbers."""

    prompts: int = 1
    """Texts in a completions or embeddings body."""

    images: int = 0
    """Image parts, or images asked for."""

    files: int = 0
    """File and audio parts."""

    hidden: int = 0
    """Tokens that the server adds on Responses, charged and not billed."""

    fixed: int = 0
    """Of `tokens`: those of instructions and tools, sent anew with every request of a
    conversation that the server keeps."""

    choices: int = 1
    """Answers asked for, by each prompt."""

    max_tokens: int | None = None
    """The most tokens that one answer may hold, None without a bound."""

    confidence: Confidence = "exact"

    kinds: set[str] = field(default_factory=set)
    """What the prompt holds beside text: "tools", "images", ..."""

    unread: tuple[str, str] | None = None
    """The field and the type of the first value that could not be read."""

    def count(self, text: str) -> int:
        """Return the tokens of `text` alone; the sum stays as it is."""
        return count(text, self.traits.encoding) if text else 0

    def add_text(self, text: str, *, billed: bool = True) -> None:
        """Add a text that the server charges and, unless `billed` is False, bills."""
        if not text:
            return

        self.text_bytes += utf8_size(text)
        if billed:
            self.tokens += count(text, self.traits.encoding)

    def items(self, value: object, what: str, *, required: bool = False) -> Sequence[object]:
        """Return the items of `value`, none for what is no list.

        Where they cannot be read without consuming them, the flat guess is added.

        :param what: the name of the field, for the warning.
        :param required: whether an object of an unknown kind, too, stands for items.
        """
        if isinstance(value, (list, tuple)):
            return value

        if is_unreadable(value) or (required and is_opaque(value)):
            self.add_unread(what, value)

        return as_sequence(value)

    def add_unread(self, what: str, value: object) -> None:
        """Add the flat guess for a value that cannot be read, of the field `what`.

        Bytes are read as text, which is a guess as well.
        """
        text = text_of_bytes(value)
        if text:
            self.add_text(text)
            self.lower_confidence("guess")
            return

        self.unread = self.unread or (what, type(value).__name__)
        self.tokens += UNREAD_TOKENS
        self.text_bytes += 4 * UNREAD_TOKENS
        self.lower_confidence("guess")

    def lower_confidence(self, confidence: Confidence) -> None:
        """Be at most as sure of the sum as `confidence` says."""
        if _ORDER.index(confidence) > _ORDER.index(self.confidence):
            self.confidence = confidence
