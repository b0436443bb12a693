"""What a picture costs: its size, and the tiles or patches the model cuts it into.

Owns the price lists and the reading of sizes. Must never decode a picture (its first
bytes hold its size) and never fetch one: a picture behind a URL is priced at the worst
case of its detail. Source: OpenAI's guide to images for the cutting; recorded calls for
the prices, which the guide does not have right for gpt-5.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from ratelimit.estimate.models import ModelTraits
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import as_mapping, as_str, decode_base64

try:
    import imagesize  # type: ignore[import-untyped]
except ImportError:
    # Without the extra "images" every picture is priced as one behind a URL.
    imagesize = None

TILE: Final = 512
"""Pixels of a tile's side."""

BOX: Final = 2048
"""Pixels of the square that a picture is fitted into."""

SHORTEST: Final = 768
"""Pixels of a picture's shortest side after that, at most."""

WORST_TILES: Final = 8
"""Tiles of a picture of unknown size: those of 2048 x 768 pixels."""

PATCH: Final = 32
"""Pixels of a patch's side."""

_PEEKS: Final = (8_192, 262_144, 4_194_304)
"""Base64 characters read in search of the size; some JPEGs open with long metadata."""


class Tiles(NamedTuple):
    """A price in tiles: tokens for the picture, and for each tile."""

    base: int
    each: int


class Patches(NamedTuple):
    """A price in patches: tokens for each, their limit, tokens for the picture."""

    each: float
    most: int
    base: int = 1


_PRICES: Final[tuple[tuple[str, Tiles | Patches], ...]] = (
    ("gpt-4.1-mini", Patches(1.62, 1536)),
    ("gpt-4.1-nano", Patches(2.46, 1536)),
    ("o4-mini", Patches(1.72, 1536)),
    ("gpt-5-mini", Patches(1.2, 1536)),
    ("gpt-5-nano", Patches(1.5, 1536)),
    ("gpt-5.4", Patches(1.2, 2500)),
    ("gpt-5.5", Patches(1.2, 2500)),
    ("gpt-5.6", Patches(1.2, 2500)),
    ("gpt-4o-mini", Tiles(2833, 5667)),
    ("gpt-5", Tiles(70, 140)),
    ("o1", Tiles(75, 150)),
    ("o3", Tiles(75, 150)),
    ("computer-use", Tiles(65, 129)),
    ("gpt-image", Tiles(65, 129)),
    ("", Tiles(85, 170)),  # gpt-4o, gpt-4.1, gpt-4-turbo, gpt-4-vision
)
"""How a model's name begins, and its price; the first match holds."""


def add_image(part: Mapping[str, object], totals: Totals) -> None:
    """Add the picture of a content part to `totals`.

    The part is "image_url" in Chat, "input_image" in Responses, and "image" with a
    "source" at other vendors.
    """
    totals.images += 1
    totals.kinds.add("images")
    source = part.get("image_url") or part.get("source")
    nested = as_mapping(source)
    detail = as_str(nested.get("detail")) or as_str(part.get("detail"))
    data = as_str(nested.get("data"))
    size = size_of_base64(data) if data else size_of(as_str(nested.get("url")) or as_str(source))
    if size is None:
        # What is learned of pictures that are elsewhere says nothing of those here.
        totals.kinds.add("remote")

    totals.lower_confidence("formula" if size else "guess")
    totals.tokens += price(totals.traits, size, detail)


def price(traits: ModelTraits, size: tuple[int, int] | None, detail: str = "") -> int:
    """Return the tokens for a picture.

    :param size: width and height in pixels; None for the worst case.
    """
    listed = next(listed for name, listed in _PRICES if traits.table_name.startswith(name))
    if isinstance(listed, Patches):
        count = listed.most if size is None else patches(*size, listed.most)
        return math.ceil(round(count * listed.each, 6)) + listed.base

    if detail == "low":
        return listed.base

    return listed.base + listed.each * (WORST_TILES if size is None else tiles(*size))


def tiles(width: int, height: int) -> int:
    """Count the tiles of a picture, in pixels.

    It is fitted into `BOX`, then its shortest side is brought down to `SHORTEST`.
    """
    scale = min(1.0, BOX / max(width, height))
    scale = min(scale, SHORTEST / min(width, height))
    return math.ceil(round(width * scale, 6) / TILE) * math.ceil(round(height * scale, 6) / TILE)


def patches(width: int, height: int, most: int) -> int:
    """Count the patches of a picture, in pixels.

    One with more than `most` is shrunk until whole patches fit.
    """
    count = math.ceil(width / PATCH) * math.ceil(height / PATCH)
    if count <= most:
        return count

    scale = math.sqrt(PATCH * PATCH * most / (width * height))
    across, down = width * scale / PATCH, height * scale / PATCH
    scale *= min(max(math.floor(across), 1) / across, max(math.floor(down), 1) / down)
    columns = math.ceil(round(width * scale / PATCH, 6))
    rows = math.ceil(round(height * scale / PATCH, 6))
    return min(most, columns * rows)


def size_of(url: str) -> tuple[int, int] | None:
    """Return width and height in pixels of the picture in a data URL.

    None when it is elsewhere or not understood.
    """
    head, comma, _ = url[:256].partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None

    return size_of_base64(url, len(head) + 1)


def size_of_base64(data: str, start: int = 0) -> tuple[int, int] | None:
    """Return width and height in pixels of the picture in a base64 text.

    None when it is not understood.

    :param start: where in `data` the picture begins.
    """
    if imagesize is None:
        return None

    for peek in _PEEKS:
        raw = decode_base64(data[start : start + peek], peek)
        try:
            width, height = imagesize.get(io.BytesIO(raw))
        except Exception:  # noqa: BLE001  # a broken picture has no size: the worst is held
            width = height = 0

        if width > 0 and height > 0:
            return int(width), int(height)

        if start + peek >= len(data):
            break

    return None
