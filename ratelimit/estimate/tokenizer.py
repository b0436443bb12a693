"""How many tokens a text is.

Owns the counting of one text: the memory of what was counted before, the slices that a
big text is counted in, and the size that serves while there is no vocabulary. Must
never know what a message, a request or an endpoint is, and never load a vocabulary in a
thread that runs an event loop.

Why in slices. tiktoken releases the GIL while it counts, but then holds it to build a
list of every token: 6 to 24 ms for 1 MB, during which an event loop stands still; it
fails with a panic on some 200,000 blanks in a row. Slices of 8 to 16 thousand
characters cost nothing and hold the GIL for less than 1 ms. quicktok does neither, so
it gets a text whole, unless the text has to be searched for unfamiliar characters.

Why exact all the same. No pattern of tiktoken's lets a token reach across any of the
places in `_SEAM`, and none looks back, so a text cut there counts as the whole does. A
text without such a place (a million equal letters, CJK without punctuation, binary) is
cut where the slice ends and counts up to two tokens more per 16,384 characters: within
0.1 %.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import Final, TypeAlias

from ratelimit.estimate.encodings import DEFAULT_ENCODING
from ratelimit.estimate.quicktok import Counter, QuickCounters, familiar_runs, is_familiar
from ratelimit.estimate.threads import runs_event_loop
from ratelimit.estimate.untrusted import utf8_size
from ratelimit.estimate.vocabulary import Vocabularies

_Key: TypeAlias = tuple[int, int, str]
"""Hash and length of a text, and an encoding: the memory keeps no text alive."""

_hash: Final = str.__hash__
"""A subclass of `str` that defines equality has no hash of its own."""

SLICE: Final = 16_384
"""Characters."""

REMEMBERED: Final = 10_000
"""Texts in each of two generations; an entry has some 250 bytes."""

BYTES_PER_TOKEN: Final = 3
"""Bytes that are taken for a token while no vocabulary is at hand.

Source: the 2,078 distinct texts of recorded calls; 5 % have fewer bytes per token than
3.1, half have fewer than 4.5. A reserve had better be too large.
"""

_SEAM: Final = re.compile(
    r"(?<=\S)[ ]"  # before a blank that follows something: blanks only ever lead a token
    r"|(?<=\S\n)(?=[^\W\d_])"  # after a line's end, before a letter: line ends close a token
    # between letters and any sign but the apostrophe
    r"|(?<=[A-Za-z0-9ぁ-ゖ一-龥가-힣])(?=[!-&(-/:-@\[-`{-~、。，：；？！])"
)

vocabularies = Vocabularies()
quick = QuickCounters()

_preparing: set[str] = set()
"""Encodings that a thread of this process has been started to load."""


class _Inexact(threading.local):
    """How many counts in this thread were not tiktoken's own."""

    counts = 0


_inexact = _Inexact()


def _after_fork() -> None:
    vocabularies.reset_after_fork()
    quick.reset_after_fork()
    _preparing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Memory:
    """The counts of the texts seen most recently, in two generations.

    Neither a hit nor a miss walks, sorts or locks. When the young generation is full it
    becomes the old one, and what was old is dropped; a hit makes young again. Threads
    that meet here may drop a generation early, never count wrongly.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[_Key, int] = {}
        self.old: dict[_Key, int] = {}

    def get(self, key: _Key) -> int | None:
        known = self.young.get(key)
        if known is not None:
            return known

        known = self.old.get(key)
        if known is not None:
            self.put(key, known)

        return known

    def put(self, key: _Key, tokens: int) -> None:
        if len(self.young) >= self._size:
            self.old, self.young = self.young, {}

        self.young[key] = tokens


_memory = _Memory(REMEMBERED)


def count(text: str, encoding: str) -> int:
    """Count the tokens of `text` in `encoding`, special tokens as plain text.

    Never raises: lone surrogates count as the replacement character does, an unknown
    encoding is taken for the default. While the vocabulary is not on this machine the
    nearest encoding counts, or the size of the text; in a thread that runs an event
    loop also while it is not loaded. Thread-safe.
    """
    key = _hash(text), len(text), encoding
    # Nearly every text of a conversation was counted at its last turn, so the young
    # generation is looked up without a call (see `conversation_chat_ratio` of
    # benchmarks/estimating.py).
    known = _memory.young.get(key)
    if known is None and _memory.old:
        known = _memory.get(key)

    if known is not None:
        return known

    fast = quick.loaded.get(encoding)
    if fast is None:
        if not is_ready(encoding) and runs_event_loop():
            prepare(encoding)
            return _size_in_tokens(text)

        fast = quick.load(encoding)

    if fast is not None and text.isascii():
        tokens = fast(text)
    else:
        in_slices = _count_slices(text, encoding, fast)
        if in_slices is None:
            return _approximate(text, encoding, fast)

        tokens = in_slices

    _memory.put(key, tokens)
    return tokens


def _count_slices(text: str, encoding: str, fast: Counter | None) -> int | None:
    """Count each slice by quicktok where it is familiar, else by tiktoken.

    None while that is not at hand.
    """
    tokens = 0
    for piece in slices(text):
        if fast is not None and is_familiar(piece):
            tokens += fast(piece)
            continue

        # Beside quicktok the other vocabulary is not loaded for an event loop's sake,
        # in no thread: building it holds the GIL for 0.1 to 0.4 s.
        if not vocabularies.is_ready(encoding) and runs_event_loop():
            return None

        vocabulary = vocabularies.load(encoding)
        if vocabulary is None:
            return None

        tokens += len(vocabulary.encode_ordinary(piece))

    return tokens


def _approximate(text: str, encoding: str, fast: Counter | None) -> int:
    """Count without the vocabulary.

    The result is not remembered for `encoding`: its vocabulary may still come.
    """
    if fast is not None:
        _inexact.counts += 1
        return sum(_familiar_and_bytes(piece, fast) for piece in slices(text))

    stand_in = vocabularies.stand_in(encoding)
    if stand_in is None:
        return _size_in_tokens(text)

    _inexact.counts += 1
    return count(text, stand_in.name)


def _familiar_and_bytes(piece: str, fast: Counter) -> int:
    """Count the familiar characters, and each other one as its bytes.

    A token is at least a byte, so the figure is on the safe side.
    """
    runs = familiar_runs(piece)
    unfamiliar = utf8_size(piece) - sum(map(utf8_size, runs))
    return sum(map(fast, runs)) + unfamiliar


def _size_in_tokens(text: str) -> int:
    _inexact.counts += 1
    return -(-utf8_size(text) // BYTES_PER_TOKEN)


def inexact_counts() -> int:
    """Return how many counts in this thread, so far, were not tiktoken's own figure."""
    return _inexact.counts


def prepare(encoding: str = DEFAULT_ENCODING) -> None:
    """Load what counts in `encoding` in a thread of its own, once a process.

    Returns at once. Loading takes 0.5 to 0.7 s, for most of which the GIL is held.
    """
    if encoding in _preparing or is_ready(encoding):
        return

    _preparing.add(encoding)
    thread = threading.Thread(
        target=count, args=("a", encoding), name=f"prepare {encoding}", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:
        # No thread is to be had: the next caller that may wait loads it.
        _preparing.discard(encoding)


def load(encoding: str) -> None:
    """Load what counts in `encoding` in this thread, whatever has to wait for it."""
    if quick.load(encoding) is None and vocabularies.load(encoding) is None:
        vocabularies.stand_in(encoding)


def is_ready(encoding: str) -> bool:
    """Whether `count` in `encoding` starts at once.

    Before that its first call loads a vocabulary, for 0.5 to 0.7 s.
    """
    if not quick.is_ready(encoding):
        return False

    return quick.load(encoding) is not None or vocabularies.is_ready(encoding)


def is_counted(text: str, encoding: str) -> bool:
    """Whether `count` remembers `text`, so that counting it again costs nothing.

    Loads nothing.
    """
    return _memory.get((_hash(text), len(text), encoding)) is not None


def slices(text: str) -> Iterator[str]:
    """Cut `text` where the counts of the slices add up to the count of the whole.

    Without such a place a slice ends after SLICE characters.
    """
    at = 0
    while len(text) - at > SLICE:
        seam = _SEAM.search(text, at + SLICE // 2, at + SLICE)
        cut = seam.start() if seam else at + SLICE
        yield text[at:cut]
        at = cut

    yield text[at:]
