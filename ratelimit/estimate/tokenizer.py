"""How many tokens a text is, and which encoding a model's name stands for.

Owns the counting of one text. Must never know what a message, a request or an endpoint is.
"""

from __future__ import annotations

from tiktoken.model import encoding_name_for_model

from ratelimit.estimate import vocabulary

DEFAULT_ENCODING = "o200k_base"


def count(text: str, encoding: str) -> int:
    """Tokens of `text` in `encoding`, as tiktoken counts them with special tokens as plain text."""
    tokenizer = vocabulary.load(encoding)
    if tokenizer is None:
        return -(-len(text.encode("utf-8", "surrogatepass")) // 4)
    return len(tokenizer.encode_ordinary(text))


def encoding_for(model: str) -> str:
    """The name of the encoding that `model` uses; the nearest one for a name that says nothing."""
    try:
        return encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING


def exact(encoding: str) -> bool:
    """Whether `count` in `encoding` is tiktoken's own figure."""
    return vocabulary.load(encoding) is not None
