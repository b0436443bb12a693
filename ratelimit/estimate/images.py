"""What a picture costs.  (being built)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit.estimate.tally import Tally


def add_image(part: Mapping[str, object], tally: Tally) -> None:
    """Add a picture."""
    del part
    tally.images += 1
    tally.kinds.add("images")
    tally.doubt("guess")
