"""Times as servers write them: durations, moments and periods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.feedback.times import (
    KNOWN_PERIODS,
    infer_period,
    least_period,
    parse_duration,
    seconds_until,
)
from ratelimit.feedback.untrusted import LONGEST

DATE = "Thu, 21 Aug 2025 12:41:00 GMT"


def go(milliseconds: int) -> str:
    """Write a duration as the server does (Go's form, to the millisecond)."""
    if milliseconds < 1_000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest // 1_000}.{rest % 1_000:03}".rstrip("0").rstrip(".") + "s"
    return (
        f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds
    )


@pytest.mark.parametrize(
    ("spoken", "seconds"),
    [
        ("0s", 0.0),
        ("12ms", 0.012),
        ("1.31s", 1.31),
        ("6m0s", 360.0),
        ("1m40.310s", 100.31),
        ("1h8m25.745s", 4105.745),
        ("83h10m39.057s", 299439.057),
        ("10.332999999s", 10.332999999),
        ("30", 30.0),
        ("26.5", 26.5),
        ("250µs", 0.00025),
        ("2d", 172800.0),
    ],
)
def test_every_recorded_form_of_a_duration_is_read(spoken: str, seconds: float) -> None:
    """Go durations, Azure's integers and Groq's fractions all mean seconds; `7.66s` is
    not 66 s.
    """
    assert parse_duration(spoken) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "spoken",
    [
        "",
        "soon",
        "-1",
        "-5s",
        "5x",
        "s",
        "1h-5m",
        "nan",
        "inf",
        "1e400",
        "٣s",
        "5 s",
        "9" * 65,
        "1_0",
        "9" * 60 + "h",
        "32d",
        "1e300",
        "99999999",
    ],
)
def test_what_is_no_duration_is_none(spoken: str) -> None:
    """Nonsense in a reset never becomes a number."""
    assert parse_duration(spoken) is None


@given(st.integers(0, 31 * 86_400_000))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    """Whatever the server can write in its form is read back to the millisecond."""
    assert parse_duration(go(milliseconds)) == pytest.approx(milliseconds / 1_000, abs=1e-6)


@given(
    st.sampled_from(KNOWN_PERIODS),
    st.integers(1, 100_000_000),
    st.data(),
)
def test_an_inferred_period_is_never_a_wrong_one(
    period: float, limit: int, data: st.DataObject
) -> None:
    """A bucket that drips shows its own period, or none that can be told; `reset` is
    cut to ms and `remaining` to whole units.
    """
    used = data.draw(st.floats(1, limit))
    remaining = int(limit - used)
    reset = int(used * period / limit * 1_000 + 1e-6) / 1_000

    assert infer_period(limit, remaining, reset) in {period, None}


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "period"),
    [
        (10_000, 9_999, 8.64, 86_400),
        (200, 199, 432.0, 86_400),
        (500, 499, 0.12, 60),
        (100_000, 99_925, 1_929.545, 30 * 86_400),
        (10_000, 9_997, 22.564, 86_400),  # 2.6 used, shown as 3
        (30_000_000, 29_999_000, 0.002, 60),
        (5_000, 5_000, 0.0, None),
        (150_000_000, 149_999_995, 0.0, None),
        (18_000, 17_997, 7.66, None),  # a page's made-up example, which fits nothing
    ],
)
def test_the_period_behind_a_reset_is_told(
    limit: float, remaining: float, reset: float, period: float | None
) -> None:
    """10000 with 8.64s is a DAILY limit; a full bucket tells nothing."""
    assert infer_period(limit, remaining, reset) == period


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("Thu, 21 Aug 2025 12:41:30 GMT", 30),
        ("Thursday, 21-Aug-25 12:41:30 GMT", 30),
        ("Thu Aug 21 12:41:30 2025", 30),
        ("2025-08-21T12:41:05Z", 5),
        ("2025-08-21T12:41:05.5+00:00", 5.5),
        ("2025-08-21T12:41:05", 5),
        ("2025-08-21T12:40:59Z", 0),
        ("1755780065", 5),
        ("1755780065.25", 5.25),
        ("1755780065000", 5),
        ("1", None),
        ("-1", None),
        ("1e300", None),
        ("9999-12-31T23:59:59Z", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("999999999999999", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_moment_is_compared_with_the_answers_own_date(moment: str, seconds: float | None) -> None:
    """HTTP dates of all three forms, RFC 3339 and Unix times become seconds without a
    clock; one that has passed is 0, one beyond a month is a mistake.
    """
    assert seconds_until(moment, DATE) == seconds
    assert seconds_until(moment, "") is None


@given(
    st.text(max_size=80) | st.integers().map(str) | st.datetimes().map(str),
    st.text() | st.just(DATE),
)
def test_garbage_in_a_time_is_none_or_a_plausible_one(moment: str, date: str) -> None:
    """Whatever a header holds, no reader of times raises or returns the absurd."""
    for seconds in (parse_duration(moment), seconds_until(moment, date)):
        assert seconds is None or 0 <= seconds <= LONGEST


@given(st.floats(), st.floats(), st.floats())
def test_inferring_from_garbage_never_raises(limit: float, remaining: float, reset: float) -> None:
    """A period is inferred from figures that were read, but must not depend on it."""
    assert infer_period(limit, remaining, reset) in {*KNOWN_PERIODS, None}


@pytest.mark.parametrize(
    ("reset", "period"),
    [(0, None), (62, None), (63, 3_600), (3_603, 86_400), (80_000, 86_400), (1e6, 30 * 86_400)],
)
def test_a_window_is_at_least_as_long_as_its_reset(reset: float, period: float | None) -> None:
    """What is not over within a minute is no limit per minute."""
    assert least_period(reset) == period
