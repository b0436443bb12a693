"""Guesses for content that the body does not show.

Owns the guesses for built-in tools, encrypted items, files and audio, each with its
ground, so that the formulas stay free of them; what uses one has the confidence
"guess". Must never fetch a file, nor decode more than its ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.pdf import READ, pages
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import as_mapping, as_str, decode_base64

SEALED_PER_CHARACTER: Final = 0.14
"""Tokens per character of an encrypted item, before `SEALED_FRAME` is taken off.

Source: 64 recorded calls that sent reasoning back, 9 with a compaction.
"""

SEALED_FRAME: Final = 112
SEALED_LEAST: Final = 16

PRO: Final = 1_520
"""Tokens of the instructions for `reasoning.mode` "pro".

Source: 7 recorded calls: 1,514 to 1,531.
"""

_BUILT_IN: Final[tuple[tuple[str, int, int], ...]] = (
    ("web_search", 294, 4_300),
    ("code_interpreter", 139, 1_330),
    ("file_search", 840, 840),
    ("image_generation", 342, 342),
    ("mcp", 550, 630),
    ("shell", 240, 240),
    ("local_shell", 240, 240),
    ("apply_patch", 620, 620),
    ("computer", 500, 500),
    ("tool_search", 90, 90),
)
"""How a tool's type begins, and the tokens of its instructions: gpt-4o and 4.1; gpt-5.

As billed when the tool was not used: what it then fetches is billed as well, and is not
known beforehand. Source: 23 to 1 recorded calls each.
"""

PAGE: Final = 400
"""Tokens of a page of a PDF: its text. Source: recorded calls, 3 to 737."""

CHAT_FILE: Final = 213
"""Tokens that Chat adds to a file. Source: recorded calls."""

UNKNOWN_FILE: Final = 600
"""Tokens of a file of which nothing is known."""

AUDIO_PER_SECOND: Final = 10
"""Tokens a second of audio. Source: OpenAI's prices."""

AUDIO_BYTES_PER_SECOND: Final = 16_000
"""Bytes a second of common speech files."""

_CUT: Final = 3
"""Bytes of a character that may be missing where the reading ends."""


def sealed_tokens(item: Mapping[str, object]) -> int:
    """Guess the tokens of an encrypted item (reasoning, compaction) from its length.

    0 for items that the server only refers to.
    """
    sealed = as_str(item.get("encrypted_content"))
    if not sealed:
        return 0

    return max(SEALED_LEAST, round(SEALED_PER_CHARACTER * len(sealed)) - SEALED_FRAME)


def built_in_tokens(kind: str, traits: ModelTraits) -> int:
    """Guess the tokens of a built-in tool's instructions, 0 for an unknown one."""
    for name, gpt4, gpt5 in _BUILT_IN:
        if kind.startswith(name):
            return gpt5 if traits.gpt5 else gpt4

    return 0


def add_file(part: Mapping[str, object], totals: Totals) -> None:
    """Add a file or audio part to `totals`.

    Texts are counted, PDFs guessed by their pages, files of another kind like PDFs of
    their size, audio by its length.
    """
    totals.kinds.add("files")
    totals.lower_confidence("guess")
    audio = as_mapping(part.get("input_audio"))
    if audio:
        totals.tokens += _audio_tokens(as_str(audio.get("data")))
        return

    chat_file = as_mapping(part.get("file"))
    if chat_file:
        totals.tokens += CHAT_FILE

    given = as_str((chat_file or part).get("file_data"))
    kind, comma, data = given.partition(";base64,")
    add_data(kind.removeprefix("data:") if comma else "", data if comma else given, totals)


def add_data(kind: str, data: str, totals: Totals) -> None:
    """Add a file in base64, as far as its ends show what it is.

    :param kind: its media type, "" where none is given.
    :param data: "" for a file that is elsewhere.
    """
    totals.kinds.add("files")
    if kind.startswith("audio/"):
        totals.tokens += _audio_tokens(data)
        return

    totals.files += 1
    raw = decode_base64(data, READ)
    text = _text_of(raw, named=kind.startswith(("text/", "application/json")))
    if not raw:
        totals.tokens += UNKNOWN_FILE
    elif text is None or raw.startswith(b"%PDF") or kind.startswith("application/pdf"):
        totals.tokens += PAGE * pages(raw, data)
    else:
        totals.tokens += math.ceil(totals.count(text) * max(len(data) / READ, 1))


def _audio_tokens(data: str) -> int:
    size = len(data) * 3 // 4
    return 2 + AUDIO_PER_SECOND * size // AUDIO_BYTES_PER_SECOND


def _text_of(raw: bytes, *, named: bool) -> str | None:
    """Return the text that the start of a file holds, None for a file of no text.

    A character may be cut at the end.

    :param named: whether the file is said to be a text, in whatever encoding.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if not named and error.start < len(raw) - _CUT:
            return None

        text = raw.decode("utf-8", "replace")

    return None if "\0" in text and not named else text
