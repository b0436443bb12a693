"""The content of a message: a text, or a list of parts.

Owns the kinds of parts and their counting. Must never know roles, tools or endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.guesses import add_file
from ratelimit.estimate.images import add_image
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str, is_opaque, texts_in

_PICTURES: Final = frozenset({"image_url", "input_image", "computer_screenshot"})
_FILES: Final = frozenset({"file", "input_file", "input_audio"})


def text_of(content: object) -> str:
    """Return the texts of a content, one after the other."""
    if isinstance(content, str):
        return content

    return "".join(
        part if isinstance(part, str) else _text_of_part(as_mapping(part))
        for part in as_sequence(content)
    )


def add_content(content: object, totals: Totals, *, billed: bool = True) -> None:
    """Add a content to `totals`.

    :param billed: False where the tokens of its texts are counted elsewhere, so that
        they only count for the charge.
    """
    if isinstance(content, str):
        totals.add_text(content, billed=billed)
        return

    if isinstance(content, Mapping):
        content = [content]

    for item in totals.items(content, "content", required=True):
        if isinstance(item, str):
            totals.add_text(item, billed=billed)
            continue

        if isinstance(item, (list, tuple)):
            totals.add_text("".join(texts_in(item)), billed=billed)
            totals.lower_confidence("guess")
            continue

        if is_opaque(item):
            totals.add_unread("content", item)
            continue

        part = as_mapping(item)
        kind = as_str(part.get("type"))
        if kind in _PICTURES:
            add_image(part, totals)
        elif kind in _FILES:
            add_file(part, totals)
        else:
            totals.add_text(_text_of_part(part), billed=billed)


def is_picture(part: Mapping[str, object]) -> bool:
    """Whether a part is a picture."""
    return as_str(part.get("type")) in _PICTURES


def _text_of_part(part: Mapping[str, object]) -> str:
    return as_str(part.get("text")) or as_str(part.get("refusal"))
