"""What no formula knows: counted by its text, so that it never costs nothing.

Owns the print of an unknown value and the search for files inside it. Must never be
"exact": a server may show the model less of such a value, or more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.guesses import UNKNOWN_FILE, add_data, sealed_tokens
from ratelimit.estimate.images import price, size_of_base64
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import (
    as_mapping,
    as_sequence,
    as_str,
    is_opaque,
    is_unreadable,
    texts_in,
)

_DATA: Final = re.compile(
    r"data:(?P<kind>[a-z]{1,20}/[^,\"\s]{0,60}?);base64,(?P<url>[A-Za-z0-9+/=_-]*)"
    # How the base64 of PNG, JPEG, GIF, WebP or WAV, PDF, MP3 and Ogg begins.
    r"|(?<![A-Za-z0-9+/=_-])(?=iVBORw|/9j/|R0lGOD|UklGR|JVBERi|SUQz|T2dnUw)"
    r"(?P<bare>[A-Za-z0-9+/=_-]{256,})"
)
"""A file inside a JSON text: a data URL, or base64 that begins like a file."""

_UNSHOWN: Final = frozenset({"id", "call_id", "status", "encrypted_content"})
"""Fields of an item that no model is shown."""

_FILES: Final = re.compile("video|audio|image|document|file")
"""What the type of a part says when it stands for a file."""


def json_text(value: object, totals: Totals | None = None) -> str:
    """Print a value as JSON without blanks, a text as it is.

    :param totals: where the flat guess for what cannot be read goes.
    """
    if isinstance(value, str):
        return value

    def readable(inner: object) -> object:
        fields = as_mapping(inner)
        if fields:
            return dict(fields)

        if totals is not None and (is_unreadable(inner) or is_opaque(inner)):
            totals.add_unread("content", inner)

        return list(as_sequence(inner)) or None

    try:
        return json.dumps(
            value, separators=(",", ":"), ensure_ascii=False, default=readable, skipkeys=True
        )
    except RecursionError:
        return "\n".join(texts_in(value))


def add_unknown(value: object, totals: Totals) -> None:
    """Add a value that no formula knows: its text, and the files that it holds."""
    if not value:
        return

    totals.kinds.add("unknown")
    totals.lower_confidence("guess")
    text = json_text(value, totals)
    rest: list[str] = []
    end = 0
    for found in _DATA.finditer(text):
        rest.append(text[end : found.start()])
        end = found.end()
        data, kind = found["bare"] or found["url"], found["kind"] or ""
        size = size_of_base64(data)
        if size or kind.startswith("image/"):
            totals.images += 1
            totals.tokens += price(totals.traits, size)
        else:
            add_data(kind, data, totals)

    totals.add_text("".join([*rest, text[end:]]))


def add_unknown_part(part: Mapping[str, object], totals: Totals) -> None:
    """Add a part of a content that is of no known type.

    One that stands for a file costs at least what an unknown file does.
    """
    before = totals.tokens
    add_unknown(part, totals)
    if _FILES.search(as_str(part.get("type"))):
        totals.tokens = max(totals.tokens, before + UNKNOWN_FILE)


def add_unknown_item(item: Mapping[str, object], totals: Totals) -> None:
    """Add an input item that is of no known type."""
    totals.kinds.add("items")
    totals.tokens += sealed_tokens(item)
    shown = {key: value for key, value in item.items() if value and key not in _UNSHOWN}
    add_unknown(shown, totals)
