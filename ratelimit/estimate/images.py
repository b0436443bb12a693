"""What a picture costs: its size, and the tiles or patches the model cuts it into.

Owns the price lists and the reading of sizes. A picture that comes inline is never
decoded: its first bytes tell its size. Must never fetch anything: a picture behind a
URL is priced at the worst case of its detail. Source: OpenAI's guide to images for the
cutting; recorded calls for the prices, which the guide does not have right for gpt-5.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import NamedTuple

from ratelimit.estimate.models import Family
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import decoded, obj, text

try:
    import imagesize  # type: ignore[import-untyped]
# the extra "images" is not installed: every picture is then priced as one behind a URL
except ImportError:
    imagesize = None


# pixels: a tile, the box a picture is fitted into, its shortest side after that
TILE, BOX, SHORTEST = 512, 2048, 768
PATCH = 32  # pixels
WORST_TILES = 8  # a 2048 x 768 picture
# base64 characters read in search of the size; some JPEGs open with long metadata
_PEEKS = (8_192, 262_144, 4_194_304)


class Tiles(NamedTuple):
    """A price in tiles: tokens for the picture, and for each tile."""

    base: int
    each: int


class Patches(NamedTuple):
    """A price in patches: tokens for each, the most patches there can be, and tokens
    for the picture.
    """

    each: float
    most: int
    base: int = 1


# (how the model's name begins, price); the first match holds. Chat prices; see `price`
# for Responses.
_PRICES: tuple[tuple[str, Tiles | Patches], ...] = (
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


def add_image(part: Mapping[str, object], tally: Totals) -> None:
    """Add the picture of a content part ("image_url" in Chat, "input_image" in
    Responses) to `tally`.
    """
    tally.images += 1
    tally.kinds.add("images")
    source = part.get("image_url")
    nested = obj(source)
    detail = text(nested.get("detail")) or text(part.get("detail"))
    size = size_of(text(nested.get("url")) or text(source))
    tally.doubt("formula" if size else "guess")
    tally.tokens += price(tally.family, size, detail)


def price(family: Family, size: tuple[int, int] | None, detail: str = "") -> int:
    """Return the tokens for a picture of `size` (width, height in pixels), or for the
    worst case when it is None.
    """
    listed = next(listed for name, listed in _PRICES if family.name.startswith(name))
    if isinstance(listed, Tiles):
        if detail == "low":
            return listed.base
        return listed.base + listed.each * (tiles(*size) if size else WORST_TILES)
    count = patches(*size, listed.most) if size else listed.most
    return math.ceil(round(count * listed.each, 6)) + listed.base


def tiles(width: int, height: int) -> int:
    """Count the tiles of a picture, in pixels: fitted into 2048, then its shortest side
    brought down to 768, never up.
    """
    scale = min(1.0, BOX / max(width, height))
    scale = min(scale, SHORTEST / min(width, height))
    return math.ceil(round(width * scale, 6) / TILE) * math.ceil(round(height * scale, 6) / TILE)


def patches(width: int, height: int, most: int) -> int:
    """Count the patches of a picture, in pixels; one with more than `most` is shrunk
    until whole patches fit.
    """
    count = math.ceil(width / PATCH) * math.ceil(height / PATCH)
    if count <= most:
        return count
    scale = math.sqrt(PATCH * PATCH * most / (width * height))
    across, down = width * scale / PATCH, height * scale / PATCH
    scale *= min(max(math.floor(across), 1) / across, max(math.floor(down), 1) / down)
    return min(
        most,
        math.ceil(round(width * scale / PATCH, 6)) * math.ceil(round(height * scale / PATCH, 6)),
    )


def size_of(url: str) -> tuple[int, int] | None:
    """Return width and height in pixels of the picture in a data URL; None when it is
    elsewhere or not understood.
    """
    head, comma, _ = url[:256].partition(",")
    if (
        imagesize is None
        or not comma
        or not head.startswith("data:")
        or not head.endswith(";base64")
    ):
        return None
    start = len(head) + 1
    for peek in _PEEKS:
        width, height = imagesize.get(io.BytesIO(decoded(url[start : start + peek], peek)))
        if width > 0 and height > 0:
            return int(width), int(height)
        if start + peek >= len(url):
            break
    return None
