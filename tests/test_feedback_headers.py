"""What the headers of every kind of server say of their limits."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit.feedback import Reading, header_values, read_headers
from ratelimit.feedback.headers import COUNTED
from ratelimit.feedback.untrusted import LONGEST
from ratelimit.limits import LARGEST

RECORDED = Path(__file__).parent.parent.parent / "shared" / "truth" / "headers.csv"
DATE = "Thu, 21 Aug 2025 12:41:00 GMT"


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
    """An RFC 3339 reset becomes seconds without a clock; a passed moment is 0."""
    headers = {
        "date": "Thu, 21 Aug 2025 12:41:00 GMT",
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "79000",
        "anthropic-ratelimit-input-tokens-reset": "2025-08-21T12:41:05Z",
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-reset": "2025-08-21T12:40:59Z",
    }

    assert read_headers(headers) == [
        Reading("input_tokens", 80_000, 79_000, 5, 60, step=1_000),
        Reading("requests", 1000, None, 0, 60),
    ]


def test_figures_that_contradict_themselves_are_dropped() -> None:
    """-1, 0, more left than the limit, NaN: none of them becomes a limit or a level."""
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


def window(limit: float, left: float, reset: float, period: float | None) -> Reading:
    """What a gateway shows of a window of requests."""
    return Reading("requests", limit, left, reset, period, windowed=True)


SERVERS: list[tuple[str, dict[str, str], list[Reading]]] = [
    (
        "DigitalOcean",
        {
            "x-ratelimit-limit-requests": "120",
            "x-ratelimit-remaining-requests": "119",
            "x-ratelimit-reset-requests": "1755780090",
            "x-ratelimit-limit-tokens-per-minute": "50000",
            "x-ratelimit-remaining-tokens-per-minute": "49000",
            "x-ratelimit-reset-tokens-per-minute": "1755780090",
            "x-ratelimit-limit-tokens-per-day": "1000000",
            "x-ratelimit-remaining-tokens-per-day": "999000",
        },
        [
            Reading("requests", 120, 119, 30, None),
            Reading("tokens", 50_000, 49_000, 30, 60),
            Reading("tokens", 1_000_000, 999_000, None, 86_400),
        ],
    ),
    (
        "Fireworks",
        {
            "x-ratelimit-limit-tokens-prompt": "3600000",
            "x-ratelimit-remaining-tokens-prompt": "3599000",
            "x-ratelimit-limit-tokens-generated": "36000",
            "x-ratelimit-limit-tokens-cache-adjusted-prompt": "900000",
            "x-ratelimit-over-limit": "no",
        },
        [
            Reading("input_tokens", 3_600_000, 3_599_000, None, 60),
            Reading("output_tokens", 36_000, None, None, 60),
        ],
    ),
    (
        "Together",
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2900",
            "x-ratelimit-limit-dynamic": "7",
        },
        [Reading("requests", 10, 9, 1, 1), Reading("tokens", 3_000, 2_900, None, 1)],
    ),
    (
        "slowapi",
        {
            "X-RateLimit-Limit": "50",
            "X-RateLimit-Remaining": "49",
            "X-RateLimit-Reset": "1755780105",
        },
        [window(50, 49, 45, None)],
    ),
    (
        "slowapi, hourly",
        {
            "X-RateLimit-Limit": "50",
            "X-RateLimit-Remaining": "49",
            "X-RateLimit-Reset": "1755782060",
        },
        [window(50, 49, 2_000, 3_600)],
    ),
    (
        "Cerebras",
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-limit-tokens-hour": "1000000",
            "x-ratelimit-remaining-tokens-hour": "999000",
            "x-ratelimit-reset-tokens-hour": "11.38",
        },
        [
            Reading("requests", 14_400, None, None, 86_400),
            Reading("tokens", 1_000_000, 999_000, 11.38, 3_600),
        ],
    ),
    (
        "Azure, a dash more",
        {"x-rate-limit-reset-tokens": "55"},
        [Reading("tokens", None, None, 55, None)],
    ),
    (
        "IETF, draft 8",
        {
            "RateLimit-Policy": '"permin";q=50;w=60, "perday";q=1000;w=86400',
            "RateLimit": '"permin";r=30;t=10, "perday";r=900;t=5000',
        },
        [window(50, 30, 10, 60), window(1_000, 900, 5_000, 86_400)],
    ),
    (
        "IETF, draft 8, another unit",
        {
            "RateLimit-Policy": '"size";q=9000;w=60;qu="content-bytes", "n";q=5;w=1',
            "RateLimit": '"size";r=1;t=1, "n";r=4;t=1',
        },
        [window(5, 4, 1, 1)],
    ),
    (
        "IETF, draft 7",
        {"RateLimit-Policy": "100;w=60", "RateLimit": "limit=100, remaining=50, reset=5"},
        [window(100, 50, 5, 60)],
    ),
    (
        "IETF, draft 6",
        {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "5"},
        [window(100, 50, 5, 60)],
    ),
    (
        "IETF, no policy",
        {"RateLimit-Limit": "100", "RateLimit-Remaining": "50", "RateLimit-Reset": "5"},
        [window(100, 50, 5, None)],
    ),
    (
        "Envoy",
        {
            "x-ratelimit-limit": '10, 10;w=1;name="second", 1000;w=3600',
            "x-ratelimit-remaining": "4",
            "x-ratelimit-reset": "1",
        },
        [window(10, 4, 1, 1), Reading("requests", 1_000, None, None, 3_600)],
    ),
    (
        "IETF, draft 11, partitions, blanks and tokens",
        {
            "RateLimit-Policy": '"fixed window"; q=500; w=300; pk=:YWJjZGVm:, '
            '"t";q=9000;qu="tokens", "open";q=4;qu="concurrent-requests"',
            "RateLimit": '"fixed window"; r=480; t=120; pk=:YWJjZGVm:, "t";r=8000, "open";r=3',
        },
        [window(500, 480, 120, 300), Reading("tokens", 9_000, 8_000, None, None)],
    ),
    (
        "express-rate-limit, draft 8",
        {
            "RateLimit-Policy": '"5-in-15min"; q=5; w=900; pk=:N2Q1ZDRk:',
            "RateLimit": '"5-in-15min"; r=4; t=899',
        },
        [window(5, 4, 899, 900)],
    ),
    (
        "Kong",
        {
            "x-ratelimit-limit-minute": "30",
            "x-ratelimit-remaining-minute": "29",
            "x-ratelimit-limit-hour": "500",
            "ratelimit-limit": "30",
            "ratelimit-remaining": "29",
            "ratelimit-reset": "42",
        },
        [
            Reading("requests", 30, 29, None, 60),
            Reading("requests", 500, None, None, 3_600),
            window(30, 29, 42, None),
        ],
    ),
    (
        "Flask-Limiter, with a fraction",
        {
            "X-RateLimit-Limit": "50",
            "X-RateLimit-Remaining": "49",
            "X-RateLimit-Reset": "1755780105.5",
        },
        [window(50, 49, 45.5, None)],
    ),
    (
        "nestjs, seconds",
        {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "58"},
        [window(10, 9, 58, None)],
    ),
    (
        "Anthropic, exact and rounded",
        {
            "anthropic-ratelimit-input-tokens-limit": "80000",
            "anthropic-ratelimit-input-tokens-remaining": "79123",
            "anthropic-ratelimit-output-tokens-limit": "16000",
            "anthropic-ratelimit-output-tokens-remaining": "15000",
        },
        [
            Reading("input_tokens", 80_000, 79_123, None, 60),
            Reading("output_tokens", 16_000, 15_000, None, 60, step=1_000),
        ],
    ),
    (
        "2023",
        {"x-ratelimit-limit-tokens_usage_based": "90000"},
        [Reading("tokens", 90_000, None, None, None)],
    ),
    (
        "unknown names",
        {
            "x-ratelimit-limit-cats": "5",
            "x-ratelimit-tokens-query-cost": "9",
            "anthropic-ratelimit-unified-limit": "5",
            "x-ratelimit-limit-": "5",
            "azure-openai-deployment-utilization": "87%",
        },
        [],
    ),
]


@pytest.mark.parametrize(
    ("headers", "readings"), [case[1:] for case in SERVERS], ids=[case[0] for case in SERVERS]
)
def test_each_server_is_read_by_its_own_names(
    headers: dict[str, str], readings: list[Reading]
) -> None:
    """What a server's headers say comes out in one form, from a mapping as from raw
    bytes; what no server is known to send is ignored.
    """
    headers = headers | {"date": DATE}
    raw = [(name.upper().encode(), value.encode()) for name, value in headers.items()]

    assert read_headers(headers) == readings
    assert read_headers(raw) == readings


def test_an_unknown_name_is_said_once_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    """So that a new server's headers can be found; those of known servers are not."""
    caplog.set_level("DEBUG", logger="ratelimit")
    for _ in range(3):
        read_headers({"x-ratelimit-limit-dogs": "5", "content-type": "a", "x-ratelimit-limit": "5"})
        read_headers({"X-RateLimit-Limit-Dogs": "6", "x-ratelimit-tokens-query-cost": "9"})

    assert [record.getMessage() for record in caplog.records] == [
        "the header 'x-ratelimit-limit-dogs' is of no known server; it is ignored"
    ]


@pytest.mark.parametrize("reset", ["9999-12-31T23:59:59Z", "99999999999999", "-1", "1e300", "nan"])
def test_an_absurd_reset_is_not_known(reset: str) -> None:
    """A date in the year 9999 closes nothing until then."""
    headers = {
        "date": DATE,
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": reset,
    }

    assert read_headers(headers) == [Reading("requests", 60, 0, None, None)]


def test_headers_are_found_by_name_in_any_case_and_form() -> None:
    """One that comes twice is joined by commas, one that is absent is empty."""
    raw: list[Any] = [(b"Content-Type", b"a"), ("content-type", " b "), ["X", "c"], 5, (None, "d")]

    assert header_values(raw, "content-type", "x", "y") == {
        "content-type": "a, b",
        "x": "c",
        "y": "",
    }
    assert header_values({"Date": DATE}, "date") == {"date": DATE}
    assert header_values(None, "date") == {"date": ""}


GARBAGE = st.one_of(
    st.text(max_size=80),
    st.from_regex(r'("[a-z]*"|[0-9]+)(;[qrtw]=[0-9eE.-]{1,8}){0,4}', fullmatch=True),
    st.sampled_from(["-1", "0", "1e300", "inf", "nan", "9" * 400, "2147483647", "9999-12-31"]),
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
        + [
            *("anthropic-ratelimit-tokens-reset", "ratelimitbysize-limit", "date"),
            *("x-groq-region", "x-ratelimit-limit", "x-ratelimit-reset", "x-tokenlimit-limit"),
            *("ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-reset"),
        ]
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
        assert reading.name in COUNTED.values()
        assert reading.limit is None or 1 <= reading.limit <= LARGEST
        assert reading.remaining is None or 0 <= reading.remaining <= (reading.limit or LARGEST)
        assert reading.reset is None or 0 <= reading.reset <= LONGEST
        assert reading.period is None or 0 < reading.period <= LONGEST
