"""What a request only hints at: built-in tools, encrypted items, files, sound. Guesses,
each with its ground.

Owns the guesses, so that the formulas stay free of them; whatever uses one says
"guess". Must never fetch or decode anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ratelimit.estimate.models import Family
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import decoded, obj, text

# tokens per character of an encrypted item, less its frame
SEALED, SEALED_FRAME, SEALED_LEAST = 0.14, 112, 16
PRO = 1_520  # tokens of what reasoning.mode "pro" is told; 7 calls: 1,514 to 1,531

# (tool type, tokens of its instructions for gpt-4o and gpt-4.1, the same for gpt-5), as
# billed when the tool was not used; what a tool then fetches is billed too, and is not
# known beforehand. Source: 23 to 1 recorded calls each.
_BUILT_IN = (
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
    ("custom", 50, 50),
)
PAGE = 400  # tokens of a PDF's page: its text; 3 to 737 seen
CHAT_FILE = 213  # what Chat adds to a file, tokens
FILE = 600  # a file of which nothing is known
SOUND, SOUND_BYTES = 10, 16_000  # tokens a second; bytes a second of common speech files
_PAGE = re.compile(rb"/Type\s*/Page\b")
_READ = 1_048_576  # base64 characters of a file looked at


def opaque(item: Mapping[str, object]) -> int:
    """Guess the tokens of an encrypted item (reasoning, compaction) from its length; 0
    for items the server only refers to.

    Source: 64 recorded calls that sent reasoning back, 9 with a compaction: 100 more
    characters are about 14 more tokens.
    """
    sealed = text(item.get("encrypted_content"))
    return max(SEALED_LEAST, round(SEALED * len(sealed)) - SEALED_FRAME) if sealed else 0


def built_in(kind: str, family: Family) -> int:
    """Guess the tokens a built-in tool's instructions take; 0 for kinds nobody has
    seen.
    """
    return next(
        (gpt5 if family.gpt5 else gpt4 for name, gpt4, gpt5 in _BUILT_IN if kind.startswith(name)),
        0,
    )


def add_file(part: Mapping[str, object], tally: Totals) -> None:
    """Add a file or sound part to `tally`: texts are counted, PDFs guessed by their
    pages, sound by its length.
    """
    tally.kinds.add("files")
    tally.doubt("guess")
    sound = obj(part.get("input_audio"))
    if sound:
        tally.tokens += 2 + SOUND * (len(text(sound.get("data"))) * 3 // 4) // SOUND_BYTES
        return
    tally.files += 1
    inner = obj(part.get("file"))
    kind, _, data = text((inner or part).get("file_data")).partition(";base64,")
    tally.tokens += CHAT_FILE if inner else 0
    raw = decoded(data, _READ)
    if kind.startswith(("data:text/", "data:application/json")):
        tally.tokens += tally.tok(raw.decode("utf-8", "replace"))
    else:
        tally.tokens += PAGE * max(len(_PAGE.findall(raw)), 1) if raw else FILE
