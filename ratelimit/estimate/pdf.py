"""How many pages a PDF has, as far as its two ends show.

Owns the search for pages. Must never read the middle of a file nor draw a page.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ratelimit.estimate.untrusted import decode_base64

READ: Final = 1_048_576
"""Base64 characters of a file that are looked at, at either end. A multiple of 4."""

BYTES_PER_PAGE: Final = 8_000
"""Bytes a page of a PDF that does not show its pages.

Source: two manuals, typeset by TeX and by FOP: 7,304 and 8,261. Scanned pages have more
bytes, and more tokens as well.
"""

_PAGE: Final = re.compile(rb"/Type\s*/Page\b")
_TREE: Final = re.compile(rb"<<|>>|/Type\s*/(?P<pages>Pages)\b|/Count\s+(?P<count>\d{1,6})\b")
"""What tells how many pages a node of the tree of pages has below it."""

_DEEPEST: Final = 32
"""Dictionaries inside dictionaries that are kept apart; a tree's node holds few."""

_OBJECTS: Final = re.compile(rb"/ObjStm\b[^>]{0,500}>>\s*stream\r?\n")
"""What stands before compressed objects, where newer PDFs have their pages."""

_STREAMS: Final = 1_000
"""Streams of such objects that are unpacked."""

_INFLATED: Final = 4_194_304
"""Bytes that are unpacked of a PDF, at most."""


def pages(start: bytes, data: str) -> int:
    """Return the pages of a PDF, at least 1.

    By the marks of a page where all of it is read, else by its own count, else by the
    marks that were seen, and without any by its size.

    :param start: what its first `READ` characters decode to.
    :param data: all of it, in base64.
    """
    if not data:
        return 1

    end = data[max(READ, (len(data) - READ) // 4 * 4) :]
    read = [start, decode_base64(end, 2 * READ)]
    shown = b"\n".join([*read, *map(_inflated, read)])
    marks = len(_PAGE.findall(shown))
    share = min(1.0, 2 * READ / len(data))
    counted = _counted(shown) if share < 1 else 0
    if counted:
        marks, share = max(marks, counted), 1.0

    return math.ceil(marks / share) if marks else math.ceil(len(data) * 3 / 4 / BYTES_PER_PAGE)


def _counted(shown: bytes) -> int:
    """Return the most pages that a node of the tree of pages counts, 0 without one.

    A count in another dictionary is one of the entries of an outline.
    """
    most = 0
    opened: deque[_Node] = deque(maxlen=_DEEPEST)
    for found in _TREE.finditer(shown):
        if found[0] == b"<<":
            opened.append(_Node())
        elif not opened:
            continue
        elif found["count"]:
            opened[-1].count = int(found["count"])
        elif found["pages"]:
            opened[-1].is_tree = True
        else:
            node = opened.pop()
            most = max(most, node.count) if node.is_tree else most
    return most


@dataclass(slots=True)
class _Node:
    """What is known of a dictionary."""

    is_tree: bool = False
    count: int = 0


def _inflated(raw: bytes) -> bytes:
    """Unpack the compressed objects of a part of a PDF."""
    unpacked: list[bytes] = []
    left = _INFLATED
    view = memoryview(raw)
    for found in islice(_OBJECTS.finditer(raw), _STREAMS):
        try:
            unpacked.append(zlib.decompressobj().decompress(view[found.end() :], left))
        except zlib.error:
            # Packed otherwise, or encrypted: these objects show no page.
            continue

        left -= len(unpacked[-1])
        if left <= 0:
            break

    return b"\n".join(unpacked)
