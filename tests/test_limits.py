"""Limits as they are written, and which of them a model falls under."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import InvalidArgument, Limit, Limits
from ratelimit.arguments import cost_by_hand
from ratelimit.families import pattern_of
from ratelimit.limits import (
    LARGEST,
    PERIODS,
    amount_of,
    amounts_of,
    read_amount,
    whole,
)
from tests.payments import Held

HUGE = [
    pytest.param(sign * 10**5_000, id=f"{sign}e5000")  # Python refuses to print them
    for sign in (-1, 1)
]
UNUSABLE: list[Any] = [0, -1, nan, inf, -inf, 1e16, True, None, "many", [1], 1j, b"1", *HUGE]
WRITTEN: list[tuple[Any, float]] = [
    (500, 500),
    (0.5, 0.5),
    ("500", 500),
    ("30k", 30_000),
    ("30K", 30_000),
    ("1.5M", 1_500_000),
    ("1.5 m", 1_500_000),
    ("30_000", 30_000),
    ("30,000", 30_000),
    ("1,234,567.5", 1_234_567.5),
    (" 7 ", 7),
    (".5", 0.5),
]
UNREADABLE = [
    "",
    "k",
    "30kk",
    "1,5M",
    "1_",
    "_1",
    "1e5",
    "-1",
    "nan",
    "30k tpm",
    "٣",
    "1.2.3",
    "9" * 400,
    "0x10",
]
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: name not in {"per", "k", "m"}
)
AMOUNTS = st.one_of(
    st.integers(1, 10**12), st.floats(0.001, 1e6).map(lambda amount: round(amount, 3))
)


@pytest.mark.parametrize(("value", "amount"), WRITTEN)
def test_an_amount_may_be_written_as_people_write_it(value: Any, amount: float) -> None:
    """Numbers and texts mean the same wherever a limit's amount is asked for."""
    limits = [
        Limit("tokens", value),
        Limit("tokens", 2_000_000, burst=value).at_most(2_000_000),
        *Limits(tpm=value),
        *Limits(rpd=value),
    ]

    assert read_amount(value, "it") == amount
    assert [limits[0].amount, limits[1].burst, limits[2].amount, limits[3].amount] == [amount] * 4


@pytest.mark.parametrize("value", UNREADABLE)
def test_a_text_that_is_no_amount_says_how_to_write_one(value: str) -> None:
    """A decimal comma, an exponent or a unit is never guessed at."""
    with pytest.raises(InvalidArgument, match=r"30k|between 0 and"):
        read_amount(value, "tpm=")


@pytest.mark.parametrize("name", PERIODS)
def test_a_period_may_be_named(name: str) -> None:
    """Every name that a text may use is one that `per` takes."""
    assert Limit("tokens", 5, per=name) == Limit("tokens", 5, per=PERIODS[name])
    assert Limit.parse(f"5 tokens/{name}") == Limit("tokens", 5, per=PERIODS[name])


@given(name=NAMES, amount=AMOUNTS, per=st.integers(1, 10**7))
def test_a_limit_that_is_shown_can_be_read_back(name: str, amount: float, per: int) -> None:
    """What `str` shows of a limit is a text that `Limit.parse` takes, and what `repr`
    shows is its constructor.
    """
    limit = Limit(name, amount, per)

    assert Limit.parse(str(limit)) == limit
    assert eval(repr(limit), {"Limit": Limit}) == limit  # noqa: S307  # our own text


@given(
    st.lists(st.builds(Limit, NAMES, AMOUNTS, st.integers(1, 99)), unique_by=lambda x: x.name),
    st.none() | st.integers(1, 99),
)
def test_limits_can_be_sent_to_another_process(limits: list[Limit], concurrency: Any) -> None:
    """Pickled, copied or used as a key, limits stay what they are."""
    whole = Limits(*limits, concurrency=concurrency)

    for twin in (
        pickle.loads(pickle.dumps(whole)),  # noqa: S301  # our own bytes
        copy.deepcopy(whole),
        copy.copy(whole),
    ):
        assert twin == whole
        assert hash(twin) == hash(whole)
        assert list(twin) == limits


def test_limits_do_not_change() -> None:
    """A limiter's limits are a value: two limiters may share one."""
    limits = Limits(rpm=500)
    with pytest.raises(AttributeError):
        limits.concurrency = 3  # type: ignore[misc]  # that is what is tested


def test_a_misspelled_dimension_is_an_error_that_names_the_right_one() -> None:
    """A limit of "token" would never hold anything."""
    with pytest.raises(InvalidArgument, match='did you mean "tokens"'):
        Limit("token", 100)


def test_a_dimension_may_have_any_name() -> None:
    """No name is taken by the package itself."""
    assert Limit("held", 5).name == "held"
    assert [limit.name for limit in Limits(Limit("held", 5), rpm=3)] == ["held", "requests"]


@pytest.mark.parametrize(
    ("positional", "remedy"),
    [
        ((500,), r"Limits\(rpm=500, tpm=30_000\)"),
        ((500, 30_000), r"Limits\(rpm=500, tpm=30_000\)"),
        ((["500 rpm"],), r"Limits\(\*limits\)"),
        ((Limits(rpm=5),), r"Limits\(\*limits\)"),
        ((None,), "500 rpm"),
        ((True,), "500 rpm"),
    ],
)
def test_a_limit_without_its_unit_gets_a_sentence(positional: tuple[Any, ...], remedy: str) -> None:
    """The message shows what to write instead."""
    with pytest.raises(InvalidArgument, match=remedy):
        Limits(*positional)


BODY = {"messages": [{"content": "a secret prompt"}], "api_key": "sk-secret"}


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Limits(BODY),  # type: ignore[arg-type]
        lambda: Limits(rpm=BODY),  # type: ignore[arg-type]
        lambda: Limit(BODY, 5),  # type: ignore[arg-type]
        lambda: Limit("tokens", BODY),  # type: ignore[arg-type]
        lambda: Limit.parse(BODY),  # type: ignore[arg-type]
        lambda: Limit.parse("a long prompt that ends with " + " " * 20 + "a secret"),
        lambda: amounts_of(BODY, "the cost"),
        lambda: amounts_of([BODY], "the cost"),
        lambda: cost_by_hand(BODY, None, None),
    ],
)
def test_a_message_shows_no_prompt_and_no_key(misuse: Callable[[], object]) -> None:
    """A body that is passed in the wrong place is not printed into somebody's log."""
    with pytest.raises(InvalidArgument) as caught:
        misuse()

    assert "secret" not in str(caught.value)


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
        ("30ktpm", Limit("tokens", 30_000, 60)),
        ("5 messages/min", Limit("messages", 5, 60)),
        ("5 kittens per hour", Limit("kittens", 5, 3_600)),
        ("5k kittens per hour", Limit("kittens", 5_000, 3_600)),
        ("100 tokens per 10 s", Limit("tokens", 100, 10)),
        ("100,000 tokens/month", Limit("tokens", 100_000, 30 * 86_400)),
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
        "1,5M tpm",
        "5k/min",
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
    held = Held(limit)

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
