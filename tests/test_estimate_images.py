"""Pictures are priced by the size their data tells, and never decoded or fetched."""

from __future__ import annotations

import base64
import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.estimate import Estimator, images
from ratelimit.estimate.images import patches, price, size_of, tiles
from ratelimit.estimate.models import traits_of


def png(width: int, height: int) -> str:
    """The start of a PNG as a data URL: all that tells its size, and nothing of the
    picture.
    """
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0
    )
    return "data:image/png;base64," + base64.b64encode(head + b"\0" * 40).decode()


def message(url: str, **part: Any) -> dict[str, Any]:
    """A user message that holds one picture."""
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, **part}}]}


@pytest.mark.parametrize(
    ("width", "height", "count"),
    [
        (1, 1, 1),
        (512, 512, 1),
        (640, 480, 2),
        (768, 768, 4),
        (1024, 1024, 4),
        (2048, 4096, 6),
        (4096, 512, 4),
        (10_000, 1, 4),
    ],
)
def test_tiles_cover_what_fits(width: int, height: int, count: int) -> None:
    """A picture is fitted into 2048, then to a shortest side of 768, never enlarged,
    and cut into tiles of 512.
    """
    assert tiles(width, height) == tiles(height, width) == count


@pytest.mark.parametrize(
    ("width", "height", "count"), [(32, 32, 1), (33, 32, 2), (1024, 1024, 1024), (1800, 2400, 1452)]
)
def test_patches_shrink_to_the_most(width: int, height: int, count: int) -> None:
    """Patches of 32 cover a picture; a larger one is shrunk by the guide's rule."""
    assert patches(width, height, 1536) == count


@given(st.integers(1, 50_000), st.integers(1, 50_000))
def test_no_picture_costs_more_than_the_worst(width: int, height: int) -> None:
    """The price of a picture of unknown size is an upper bound for every size."""
    for name in (
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4.1-nano",
        "gpt-5",
        "gpt-5-mini",
        "gpt-5.4",
        "o3",
        "o4-mini",
    ):
        assert 0 < price(traits_of(name), (width, height)) <= price(traits_of(name), None)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o", 425),
        ("gpt-4o-mini", 14_167),
        ("gpt-5", 350),
        ("gpt-4.1-mini", 487),
        ("gpt-5-nano", 451),
        ("o4-mini", 517),
        ("gpt-4.1-nano", 739),
    ],
)
def test_each_model_has_its_price(model: str, tokens: int) -> None:
    """A picture of 640 x 480 costs what calls with one were billed."""
    assert price(traits_of(model), (640, 480)) == tokens


def test_low_detail_costs_the_base() -> None:
    """A picture asked for in low detail has no tiles."""
    assert (
        price(traits_of("gpt-4o"), (2000, 2000), "low")
        == price(traits_of("gpt-4o"), None, "low")
        == 85
    )


def test_the_size_is_read_from_the_first_bytes() -> None:
    """The head of a data URL tells the size, whatever follows; a URL, a broken head or
    garbage tells none.
    """
    assert size_of(png(640, 480)) == (640, 480)
    assert size_of(png(640, 480)[:80]) == (640, 480)
    assert size_of("https://example.org/a.png") is None
    assert size_of("data:image/png;base64,AAAA") is None
    assert size_of("data:image/png,not-base64") is None
    assert size_of("data:image/png;base64,§§§§") is None
    assert size_of("") is None


def test_a_known_size_is_a_formula_and_an_unknown_one_a_guess() -> None:
    """The estimate says how sure it is of a picture."""
    estimator = Estimator()
    inline = estimator.estimate({"model": "gpt-4o", "messages": [message(png(640, 480))]})
    remote = estimator.estimate(
        {"model": "gpt-4o", "messages": [message("https://example.org/a.png")]}
    )

    assert (inline.confidence, inline.images, inline.basis.kind) == ("formula", 1, "images")
    assert remote.confidence == "guess"
    assert remote.prompt_tokens > inline.prompt_tokens


def test_pictures_without_the_extra_are_priced_at_the_worst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where imagesize is not installed nothing fails."""
    monkeypatch.setattr(images, "imagesize", None)

    assert size_of(png(640, 480)) is None
    assert "imagesize" in sys.modules


def test_responses_name_pictures_differently() -> None:
    """An input_image costs what an image_url does, and one more where a message holds
    nothing else.
    """
    chat = Estimator().estimate({"model": "gpt-4o", "messages": [message(png(640, 480))]})
    responses = Estimator().estimate(
        {
            "model": "gpt-4o",
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": png(640, 480)}]}
            ],
        }
    )

    assert responses.prompt_tokens == chat.prompt_tokens + 1
    assert responses.images == 1
