"""What may be spent: limits as they are written, and which of them a model falls under."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import InvalidArgument, Limit, Limits
from ratelimit.families import pattern_of
from ratelimit.limits import LARGEST, amount_of, whole
from ratelimit.stores.bucket import Bucket

# Python refuses to print them
HUGE = [pytest.param(sign * 10**5_000, id=f"{sign}e5000") for sign in (-1, 1)]
UNUSABLE: list[Any] = [0, -1, nan, inf, -inf, 1e16, True, None, "500", [1], 1j, b"1", *HUGE]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("500 rpm", Limit("requests", 500, 60)),
        ("500RPM", Limit("requests", 500, 60)),
        ("30k tpm", Limit("tokens", 30_000, 60)),
        ("1.5m tpm", Limit("tokens", 1_500_000, 60)),
        ("30,000 tpm", Limit("tokens", 30_000, 60)),
        ("30_000 tpm", Limit("tokens", 30_000, 60)),
        ("10 requests per second", Limit("requests", 10, 1)),
        ("10 requests/s", Limit("requests", 10, 1)),
        ("1m tokens/day", Limit("tokens", 1_000_000, 86_400)),
        ("5 ipm", Limit("images", 5, 60)),
        (" 3 rpd ", Limit("requests", 3, 86_400)),
    ],
)
def test_limits_are_read_as_people_write_them(text: str, limit: Limit) -> None:
    """Every documented form gives the limit it says."""
    assert Limit.parse(text) == limit


@given(
    text=st.text(max_size=20) | st.from_regex(r"[0-9.,_kKmM -]*(rpm|tpm|tokens/s)?", fullmatch=True)
)
def test_any_text_is_a_limit_or_a_clear_error(text: str) -> None:
    """Nothing that can be typed breaks the reader."""
    try:
        limit = Limit.parse(text)
    except InvalidArgument:
        return
    assert 0 < limit.amount <= LARGEST


@pytest.mark.parametrize(
    "unusable",
    [
        "0 rpm",
        "-5 rpm",
        "nan rpm",
        "inf rpm",
        "rpm",
        "",
        "5",
        "5 foo",
        "1e9 rpm",
        ". tpm",
        "1.2.3 tpm",
        None,
        5,
    ],
)
def test_texts_that_are_no_limit_say_what_would_be(unusable: Any) -> None:
    """The error shows how to write one."""
    with pytest.raises(InvalidArgument, match=r"rpm|above 0"):
        Limit.parse(unusable)


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_unusable_amounts_are_refused_where_they_are_given(unusable: Any) -> None:
    """Zero, negative, NaN, infinite, huge and foreign amounts never become a limit, by
    any way in.
    """
    makers: list[Callable[[Any], object]] = [
        lambda value: Limit("tokens", value),
        lambda value: Limit("tokens", 5, per=value),
    ]
    if unusable is not None:  # which leaves a limit out
        makers += [lambda value: Limits(rpm=value), lambda value: Limit("tokens", 5, burst=value)]
    for make in makers:
        with pytest.raises(InvalidArgument):
            make(unusable)


@pytest.mark.parametrize("name", ["", None, 5, b"tokens"])
def test_a_limit_needs_a_name(name: Any) -> None:
    """A dimension is a text."""
    with pytest.raises(InvalidArgument, match="name"):
        Limit(name, 5)


def test_a_burst_above_the_limit_is_refused() -> None:
    """A burst is a part of the limit."""
    with pytest.raises(InvalidArgument, match="burst"):
        Limit("tokens", 5, burst=6)
    assert Limit("tokens", 6, burst=6).with_burst(0.5).burst == 6
    assert Limit("tokens", 6).with_burst(0.5).burst == 3


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "3", nan])
def test_a_concurrency_is_a_whole_number(concurrency: Any) -> None:
    """Half a call cannot be in flight."""
    with pytest.raises(InvalidArgument, match="concurrency"):
        Limits(concurrency=concurrency)


def test_two_limits_of_one_thing_are_a_mistake() -> None:
    """Which of them should hold cannot be told; different periods of one dimension hold
    together.
    """
    with pytest.raises(InvalidArgument, match="two limits"):
        Limits("500 rpm", rpm=400)
    with pytest.raises(InvalidArgument, match="is a Limit or a text"):
        Limits(500)  # type: ignore[arg-type]  # that is what is tested
    assert len(Limits("500 rpm", "10 rps", rpd=10_000)) == 3


def test_limits_compare_and_show_themselves() -> None:
    """Equal limits are equal, and read as they were written."""
    assert Limits(rpm=500, tpm=30_000) == Limits("500 rpm", "30k tpm")
    assert hash(Limits(rpm=500)) == hash(Limits("500 rpm"))
    assert Limits(rpm=500) != Limits(rpm=500, concurrency=2)
    assert repr(Limits("30k tpm", concurrency=2)) == "<Limits 30,000 tokens/min, concurrency=2>"
    assert str(Limit("requests", 3, 7)) == "3 requests/7 s"


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini*"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini*"),
        ("ft:gpt-4o-mini:org::id", "gpt-4o-mini*"),
        ("ft:gpt-4o:org::id", "gpt-4o"),
        ("o3", "o1|o3"),
        ("o1", "o1|o3"),
        ("o1|o3", "o1|o3"),
        ("gpt-4-0613", "gpt-4"),
        ("claude", "*"),
        ("", "*"),
        ("ft:", "*"),
    ],
)
def test_a_model_falls_under_the_most_specific_pattern(model: str, family: str) -> None:
    """Names, globs, families joined by |, snapshots and fine-tunes find the buckets
    that the server counts them against.
    """
    assert (
        pattern_of(model, ["*", "gpt-4o", "gpt-4o-mini*", "gpt-4", "gpt-*-never", "o1|o3"])
        == family
    )


def test_a_model_may_fall_under_nothing() -> None:
    """Without a pattern that fits there is no family."""
    assert pattern_of("gpt-4o", ["o1"]) is None


def test_amounts_are_shown_for_people() -> None:
    """Whole numbers with separators, others short."""
    assert (whole(30_000), whole(0.5), whole(inf)) == ("30,000", "0.5", "inf")


@pytest.mark.parametrize("value", [0, 1e-300, 1, 0.5, 1e15])
def test_amounts_between_zero_and_the_largest_are_believed(value: float) -> None:
    """The bounds themselves are amounts."""
    assert amount_of(value, "it") == value


@pytest.mark.parametrize(
    ("amount", "per"),
    [(1e-300, 1e15), (5e-324, 1.0), (1e15, 5e-324), (1e15, 1e15), (1e15, 1e-9), (1e-9, 1e15)],
)
def test_extreme_limits_stay_finite_or_are_refused(amount: float, per: float) -> None:
    """A rate that floats cannot express is told at once, not met as NaN or a division
    by zero in a level.
    """
    try:
        limit = Limit("tokens", amount, per)
    except InvalidArgument:
        return
    held = Bucket(limit, 0.0)
    assert held.take(amount, 0.0)
    assert held.level(0.0) == pytest.approx(0, abs=amount * 1e-9)
    assert held.level(held.full_at) == amount


@given(st.floats(1, 1e6), st.floats(1e-9, 1), st.floats(1e-3, 1e6))
def test_a_lowered_limit_keeps_a_burst_that_it_can_have(
    amount: float, share: float, lower: float
) -> None:
    """However small the burst, and whatever rounding does, lowering never fails."""
    limit = Limit("tokens", amount).with_burst(share).at_most(lower)

    assert limit.burst is not None
    assert limit.burst <= limit.amount <= max(lower, 1e-9)
