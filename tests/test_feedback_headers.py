import csv
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit.feedback.headers import PERIODS, Reading, infer_period, parse_duration, read_headers

RECORDED = Path(__file__).parent.parent.parent / "shared" / "truth" / "headers.csv"


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
    ],
)
def test_what_is_no_duration_is_none(spoken: str) -> None:
    """Nonsense in a reset never becomes a number."""
    assert parse_duration(spoken) is None


@given(st.integers(0, 40 * 86_400_000))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    """Whatever the server can write in its form is read back to the millisecond."""
    assert parse_duration(go(milliseconds)) == pytest.approx(milliseconds / 1_000, abs=1e-6)


@given(
    st.sampled_from(PERIODS),
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


def test_every_recorded_set_of_headers_is_read() -> None:
    """1,309 recorded sets: every figure comes out, and the period, where it can be
    told, is a minute, a day or a month.
    """
    if not RECORDED.exists():
        pytest.skip("the recorded headers are not on this machine")
    told = 0
    with RECORDED.open(newline="") as file:
        for row in csv.DictReader(file):
            headers = {
                f"x-ratelimit-{field}-{name}": row[f"{field}_{name}"]
                for field in ("limit", "remaining", "reset")
                for name in ("requests", "tokens")
                if row[f"{field}_{name}"]
            }
            for reading in read_headers(headers):
                assert reading.limit == float(row[f"limit_{reading.name}"])
                assert reading.remaining == float(row[f"remaining_{reading.name}"])
                assert reading.reset is not None
                assert reading.period in {60, 86_400, 30 * 86_400, None}
                if reading.name == "requests":
                    told += reading.period is not None

    assert told >= 1_295  # the rest shows one request used, in a reset of a few ms


def test_azure_integers_take_their_period_from_the_renewal() -> None:
    """Azure's resets are seconds to a window's end; a limit renewed every 10 s is still
    quoted per minute.
    """
    readings = read_headers(
        {
            "X-RateLimit-Limit-Requests": "9000",
            "X-RateLimit-Remaining-Requests": "8999",
            "X-RateLimit-Reset-Requests": "0",
            "x-ratelimit-renewalperiod-requests": "10",
            "x-ratelimit-limit-tokens": "1500000",
            "x-ratelimit-remaining-tokens": "745399",
            "x-ratelimit-reset-tokens": "30",
        }
    )

    assert readings == [
        Reading("requests", 9000, 8999, 0, 60),
        Reading("tokens", 1_500_000, 745_399, 30, None),
    ]


def test_groq_counts_requests_per_day() -> None:
    """Groq's -requests headers are per day and its -tokens per minute, also when
    nothing is used yet.
    """
    full = read_headers(
        [
            ("x-groq-region", "fra"),
            ("x-ratelimit-limit-requests", "14400"),
            ("x-ratelimit-remaining-requests", "14400"),
        ]
    )
    used = read_headers(
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-tokens": "14900",
            "x-ratelimit-reset-tokens": "10.332999999s",
        }
    )

    assert [reading.period for reading in full] == [86_400]
    assert [(reading.name, reading.period) for reading in used] == [
        ("requests", 86_400),
        ("tokens", 60),
    ]


def test_names_that_tell_the_period_are_believed() -> None:
    """Mistral and Cerebras put the period into the name; two limits on tokens are two
    readings.
    """
    readings = read_headers(
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-limit-tokens-minute": "50000",
            "x-ratelimit-remaining-tokens-minute": "47196",
            "x-ratelimit-limit-tokens-month": "4000000",
            "x-ratelimit-remaining-tokens-month": "3950246",
            "x-ratelimit-tokens-query-cost": "2804",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "x-ratelimit-limit-requests-day": "14400",
        }
    )

    assert [(reading.name, reading.limit, reading.period) for reading in readings] == [
        ("requests", 60, 60),
        ("tokens", 50_000, 60),
        ("tokens", 4_000_000, 30 * 86_400),
        ("requests", 14_400, 86_400),
    ]


def test_project_and_image_limits_have_names_of_their_own() -> None:
    """A project's limit must not be mistaken for the organization's."""
    names = [
        reading.name
        for reading in read_headers(
            {
                "x-ratelimit-limit-project-tokens": "100000",
                "x-ratelimit-limit-project-requests": "100",
                "x-ratelimit-limit-input-images": "50000",
            }
        )
    ]

    assert names == ["project_tokens", "project_requests", "input_images"]


def test_anthropic_dates_are_compared_with_the_answers_own_date() -> None:
    """An RFC 3339 reset becomes seconds without a clock; a moment that has passed is 0."""
    headers = {
        "date": "Thu, 21 Aug 2025 12:41:00 GMT",
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "79000",
        "anthropic-ratelimit-input-tokens-reset": "2025-08-21T12:41:05Z",
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-reset": "2025-08-21T12:40:59Z",
    }

    assert read_headers(headers) == [
        Reading("input_tokens", 80_000, 79_000, 5, 60),
        Reading("requests", 1000, None, 0, 60),
    ]


def test_figures_that_contradict_themselves_are_dropped() -> None:
    """-1, 0, more left than the limit, NaN: none of them may become a limit or a level."""
    readings = read_headers(
        {
            "x-ratelimit-limit-requests": "-1",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": "5000",
            "x-ratelimit-limit-project-tokens": "nan",
            "x-ratelimit-limit-input-images": "1e300",
            "x-ratelimit-remaining-input-images": "0",
        }
    )

    assert readings == [
        Reading("tokens", 1000, None, None, None),
        Reading("input_images", None, 0, None, None),
    ]


GARBAGE = st.one_of(
    st.text(max_size=80),
    st.binary(max_size=80),
    st.integers().map(str),
    st.floats().map(str),
    st.none(),
    st.integers(),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            f"x-ratelimit-{field}-{name}"
            for field in ("limit", "remaining", "reset", "renewalperiod")
            for name in ("requests", "tokens", "tokens-minute", "project-tokens")
        ]
        + ["anthropic-ratelimit-tokens-reset", "ratelimitbysize-limit", "date", "x-groq-region"]
    ),
    GARBAGE,
)


@given(st.lists(st.one_of(st.tuples(NAMES, GARBAGE), GARBAGE), max_size=12))
@example(
    [
        ("anthropic-ratelimit-tokens-limit", "5"),
        ("anthropic-ratelimit-tokens-reset", "2025-08-21T12:41:05"),
        ("date", "Thu, 21 Aug 2025 12:41:00 GMT"),
    ]
)
def test_garbage_in_headers_never_raises_and_never_becomes_an_absurd_figure(
    pairs: list[object],
) -> None:
    """Headers are written by strangers: whatever they hold, what is read is sane or
    None.
    """
    for reading in read_headers(pairs):  # type: ignore[arg-type]  # garbage is the point
        assert reading.limit is None or 0 < reading.limit <= 1e15
        assert reading.remaining is None or 0 <= reading.remaining <= (reading.limit or 1e15)
        assert reading.reset is None or 0 <= reading.reset <= 315_360_000
        assert reading.period is None or 1 <= reading.period <= 315_360_000


@given(st.floats(), st.floats(), st.floats())
def test_inferring_from_garbage_never_raises(limit: float, remaining: float, reset: float) -> None:
    """A period is inferred from figures that were read, but must not depend on it."""
    assert infer_period(limit, remaining, reset) in {*PERIODS, None}
