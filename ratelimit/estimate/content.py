"""The content of a message: a text, or a list of parts.

Owns the kinds of parts and their counting. Must never know roles, tools or endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.guesses import add_file
from ratelimit.estimate.images import add_image
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import items, obj, text

_PICTURES = {"image_url", "input_image", "computer_screenshot"}
_FILES = {"file", "input_file", "input_audio"}


def text_of(content: object) -> str:
    """Return the texts of a content, one after the other."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else _text(obj(part)) for part in items(content))


def add_content(content: object, tally: Totals, *, billed: bool = True) -> None:
    """Add a content to `tally`; unless `billed`, its texts count for the charge alone
    (their tokens are counted elsewhere).
    """
    if isinstance(content, str):
        tally.content(content, billed=billed)
        return
    for item in items(content):
        if isinstance(item, str):
            tally.content(item, billed=billed)
            continue
        part = obj(item)
        kind = text(part.get("type"))
        if kind in _PICTURES:
            add_image(part, tally)
        elif kind in _FILES:
            add_file(part, tally)
        else:
            tally.content(_text(part), billed=billed)


def is_picture(part: Mapping[str, object]) -> bool:
    """Tell whether a part is a picture."""
    return text(part.get("type")) in _PICTURES


def _text(part: Mapping[str, object]) -> str:
    return text(part.get("text")) or text(part.get("refusal"))
