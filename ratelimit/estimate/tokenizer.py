"""How many tokens a text is, and which encoding a model's name stands for.

Owns the counting of one text: the memory of what was counted before, the slices a big
text is counted in, and the size that serves while there is no vocabulary. Must never
know what a message, a request or an endpoint is.

Why in slices. tiktoken releases the GIL while it counts, but then holds it to build a
list of every token: 6 to 24 ms for 1 MB, during which an event loop stands still; it
fails with a panic on some 200,000 blanks in a row. Slices of 8 to 16 thousand
characters cost nothing and hold the GIL for less than 1 ms. quicktok does neither, so
it gets a text whole, unless the text has to be searched for characters it is not
trusted with (see `quick`).

Why exact all the same. No pattern of tiktoken's lets a token reach across any of the
places in `_SEAM`, and none looks back, so a text cut there counts as the whole does. A
text without such a place (a million equal letters, CJK without punctuation, binary) is
cut where the slice ends and counts up to two tokens more per 16,384 characters: within
0.1 %.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

from tiktoken.model import encoding_name_for_model

from ratelimit.estimate.quicktok import Counter, QuickCounters, familiar
from ratelimit.estimate.vocabulary import Vocabularies

# One number, of both hashes (of 64 bits) and the length, stands for a text and its
# encoding in the memory, which keeps no text alive.
_Key: TypeAlias = int
_hash = str.__hash__  # a subclass that defines equality has none of its own

DEFAULT_ENCODING = "o200k_base"
LONGEST_NAME = 200  # characters of a model's name that are read
SLICE = 16_384  # characters
# texts in each of two generations; an entry has some 250 bytes whatever the size of its
# text
REMEMBERED = 10_000
BYTES_PER_TOKEN = 4  # while no vocabulary is at hand

_SEAM = re.compile(
    r"(?<=\S)[ ]"  # before a blank that follows something: blanks only ever lead a token
    r"|(?<=\S\n)(?=[^\W\d_])"  # after a line's end, before a letter: line ends close a token
    # between letters and any sign but the apostrophe
    r"|(?<=[A-Za-z0-9ぁ-ゖ一-龥가-힣])(?=[!-&(-/:-@\[-`{-~、。，：；？！])"
)

# gpt-4o, 4.1 and 4.5, however they are spelled: tiktoken's table takes "gpt-4-1-mini"
# and "ft:gpt-4.1" for a gpt-4.
_NEWER_GPT4 = re.compile(r"gpt[-_ ]?4(?:o|[-_ ]o(?:mni)?(?![a-z])|[-_. ]?[15](?!\d))")
# What tells the encoding inside a name that the table does not know, the most telling
# first.
_CONTAINED = (
    (re.compile(r"(?:text|code)[-_]?davinci|cushman|codex[-_]?00"), "p50k_base"),
    (re.compile(r"gpt[-_ ]?(?:3|4)"), "cl100k_base"),
    (re.compile(r"embedding|ada[-_]?002|(?:davinci|babbage)[-_]?002"), "cl100k_base"),
    # grown from it: 0.0 and 6 % more tokens on 2,454 recorded texts
    (re.compile(r"llama[-_ ]?3|qwen"), "cl100k_base"),
)

vocabularies = Vocabularies()
quick = QuickCounters()


def _after_fork() -> None:
    vocabularies.forget_others()
    quick.forget_others()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Memory:
    """The counts of the texts seen most recently, in two generations: neither a hit nor
    a miss walks, sorts or locks.

    When the young generation is full it becomes the old one, and what was old is
    forgotten; a hit makes young again. Threads that meet here may forget a generation
    early, never count wrongly.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[_Key, int] = {}
        self.old: dict[_Key, int] = {}

    def get(self, key: _Key) -> int | None:
        known = self.young.get(key)
        if known is None and (known := self.old.get(key)) is not None:
            self.put(key, known)
        return known

    def put(self, key: _Key, tokens: int) -> None:
        if len(self.young) >= self._size:
            self.old, self.young = self.young, {}
        self.young[key] = tokens


_memory = _Memory(REMEMBERED)


def count(text: str, encoding: str) -> int:
    """Count the tokens of `text` in `encoding`, as tiktoken does with special tokens
    taken for plain text.

    Never raises: lone surrogates count as the replacement character does, an unknown
    encoding is taken for the default. While the vocabulary is not on this machine the
    nearest encoding counts, or the size of the text. Thread-safe.
    """
    key = _hash(text) - _hash(encoding) + len(text)
    known = _memory.young.get(key)
    if known is None and _memory.old:
        known = _memory.get(key)
    if known is not None:
        return known
    fast = quick.loaded.get(encoding) or quick.load(encoding)
    tokens: int | None
    if fast is not None and text.isascii():  # nothing to be searched for, so nothing to be cut
        tokens = fast(text)
    else:
        tokens = _in_slices(text, encoding, fast)
        if tokens is None:
            return _without(encoding, text)
    _memory.put(key, tokens)
    return tokens


def _in_slices(text: str, encoding: str, fast: Counter | None) -> int | None:
    """Count each slice by what is trusted with it; None while that is tiktoken and its
    vocabulary is not here.
    """
    tokens = 0
    for piece in slices(text):
        if fast is not None and familiar(piece):
            tokens += fast(piece)
            continue
        tokenizer = vocabularies.load(encoding)
        if tokenizer is None:
            return None
        tokens += len(tokenizer.encode_ordinary(piece))
    return tokens


def _without(encoding: str, text: str) -> int:
    """Count without the vocabulary; the result is remembered for the encoding that
    stands in, as this one may yet come.
    """
    stand_in = vocabularies.stand_in(encoding)
    if stand_in is not None:
        return count(text, stand_in.name)
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def exact(encoding: str) -> bool:
    """Whether `count` in `encoding` is tiktoken's own figure; False while a stand-in or
    the size serves.
    """
    return (
        quick.loaded.get(encoding) or quick.load(encoding) or vocabularies.load(encoding)
    ) is not None


def ready(encoding: str) -> bool:
    """Whether `count` in `encoding` starts at once; before that its first call loads a
    vocabulary, for 0.5 to 0.7 s.
    """
    return quick.ready(encoding) and (
        quick.load(encoding) is not None or vocabularies.ready(encoding)
    )


def counted(text: str, encoding: str) -> bool:
    """Whether `count` remembers `text`, so that counting it again costs nothing. Loads
    nothing.
    """
    return _memory.get(_hash(text) - _hash(encoding) + len(text)) is not None


def slices(text: str) -> Iterator[str]:
    """Cut `text` where the counts of the slices add up to the count of the whole, or
    after SLICE characters.
    """
    at = 0
    while len(text) - at > SLICE:
        seam = _SEAM.search(text, at + SLICE // 2, at + SLICE)
        cut = seam.start() if seam else at + SLICE
        yield text[at:cut]
        at = cut
    yield text[at:]


def encoding_for(model: str) -> str:
    """Name the encoding that `model` uses.

    Tiktoken's own table says it, dated names included, for the name without a provider
    ("openai/gpt-4o") and without the marks of a fine-tune. Else what the name contains,
    for Azure deployments ("my-gpt4o"). An unknown name, and a model of another maker,
    gets the default. Never raises.
    """
    return _encoding_for(model[:LONGEST_NAME].lower())


@lru_cache(maxsize=1024)
def _encoding_for(model: str) -> str:
    name = model.removeprefix("ft:").split(":", 1)[0]  # "ft:gpt-4o:org::id", "davinci:ft-org"
    name = name.rsplit("/", 1)[-1]
    if _NEWER_GPT4.search(name):
        return "o200k_base"
    try:
        return encoding_name_for_model(name)
    except KeyError:
        return next(
            (encoding for pattern, encoding in _CONTAINED if pattern.search(name)), DEFAULT_ENCODING
        )
