"""The content of a message: a text, or a list of parts.

Owns the kinds of parts and their counting. Must never know roles, tools or endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ratelimit.estimate.guesses import add_file
from ratelimit.estimate.images import add_image
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.unknown import add_unknown_part
from ratelimit.estimate.untrusted import as_mapping, as_sequence, as_str, is_opaque, texts_in

_PICTURES: Final = frozenset({"image_url", "input_image", "computer_screenshot", "image"})
_FILES: Final = frozenset({"file", "input_file", "input_audio"})
_TEXTS: Final = frozenset(
    {"", "text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"}
)
"""Types of parts that are their text, and nothing else of them is shown."""

_BESIDE: Final = frozenset({"type", "annotations", "cache_control", "id", "logprobs"})
"""Fields of a text part that cost nothing."""


def text_of(content: object) -> str:
    """Return the texts of a content, one after the other."""
    if isinstance(content, str):
        return content

    texts: list[str] = []
    for item in as_sequence(content):
        part = as_mapping(item)
        if isinstance(item, str):
            texts.append(item)
        elif is_text(part):
            texts.append(text_of_part(part))

    return "".join(texts)


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

    # Texts of neighbouring parts are one text to the model.
    joined: list[str] = []
    for item in totals.items(content, "content", required=True):
        text = _text_of_item(item, totals)
        if text is not None:
            joined.append(text)
            continue

        totals.add_text("".join(joined), billed=billed)
        joined.clear()
        _add_attachment(item, totals)

    totals.add_text("".join(joined), billed=billed)


def is_picture(part: Mapping[str, object]) -> bool:
    """Whether a part is a picture."""
    return as_str(part.get("type")) in _PICTURES


def _text_of_item(item: object, totals: Totals) -> str | None:
    """Return the text of an item of a content, None for one that is no text."""
    if isinstance(item, str):
        return item

    if isinstance(item, (list, tuple)):
        totals.lower_confidence("guess")
        return "".join(texts_in(item))

    part = as_mapping(item)
    return None if is_opaque(item) or not is_text(part) else text_of_part(part)


def _add_attachment(item: object, totals: Totals) -> None:
    part = as_mapping(item)
    if is_picture(part):
        add_image(part, totals)
    elif as_str(part.get("type")) in _FILES:
        add_file(part, totals)
    elif part:
        add_unknown_part(part, totals)
    else:
        totals.add_unread("content", item)


def text_of_part(part: Mapping[str, object]) -> str:
    """Return the text of a part that is one."""
    return as_str(part.get("text")) or as_str(part.get("refusal"))


def is_text(part: Mapping[str, object]) -> bool:
    """Whether a part is a text and nothing else, perhaps an empty one."""
    kind = as_str(part.get("type"))
    if kind not in _TEXTS:
        return False

    if kind and isinstance(part.get("text"), str):
        return True

    return all(
        not value or field in _BESIDE or (field in {"text", "refusal"} and isinstance(value, str))
        for field, value in part.items()
    )
