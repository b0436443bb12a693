"""The running sum one request is counted into: tokens for the bill, sizes for the
charge, and how sure we are.

Owns nothing but the sum, so that every formula takes one walk over the request. Must
never know what a field means.
"""

from __future__ import annotations

from ratelimit.estimate.models import Family
from ratelimit.estimate.results import Confidence
from ratelimit.estimate.tokenizer import count
from ratelimit.estimate.untrusted import utf8

_ORDER: tuple[Confidence, ...] = ("exact", "formula", "learned", "guess")


class Totals:
    """One request's sums; tokens in the model's own encoding, bytes in UTF-8."""

    # The defaults stand on the class: one tally is made for every request, and most of
    # its fields stay as they are.
    tokens: int = 0
    text_bytes: int = 0  # of text content alone: what the server's limiter counts
    messages: int = 0
    token_ids: int = 0  # prompts sent as lists of token numbers
    prompts: int = 1  # texts in a completions or embeddings body
    images: int = 0  # image parts
    files: int = 0  # file and audio parts
    hidden: int = 0  # tokens the server adds on Responses, charged and not billed
    # of `tokens`: those sent anew with every request of a conversation the server keeps
    fixed: int = 0
    choices: int = 1  # answers asked for, by each prompt
    max_tokens: int | None = None  # the most that one of them may hold
    charged_max: int | None = None  # the part of it OpenAI's older charge rules look at
    confidence: Confidence = "exact"

    def __init__(self, family: Family) -> None:
        self.family = family
        self.kinds: set[str] = set()

    def tok(self, text: str) -> int:
        """Tokens of `text` alone; nothing is added to the sum."""
        return count(text, self.family.encoding) if text else 0

    def content(self, text: str, *, billed: bool = True) -> None:
        """Add a text the server charges and, unless told otherwise, bills."""
        if text:
            self.text_bytes += len(text) if text.isascii() else utf8(text)
            if billed:
                self.tokens += count(text, self.family.encoding)

    def doubt(self, confidence: Confidence) -> None:
        """Be at most this sure of the sum."""
        if _ORDER.index(confidence) > _ORDER.index(self.confidence):
            self.confidence = confidence
