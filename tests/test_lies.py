"""Answers that lie about limits.

Nothing raises, and no call is refused or kept waiting for good.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit import Limits, RateLimiter, RequestTooLarge
from ratelimit.testing import ThreadClock
from ratelimit.testing.clocks import VirtualClock

FIGURES = st.sampled_from(
    [
        "1",
        "5",
        "0",
        "-1",
        "0.5",
        "1e-10",
        "1e15",
        "1e16",
        "1e300",
        "nan",
        "inf",
        "",
        "many",
        "30000",
        "9" * 30,
    ]
)
SPANS = st.sampled_from(
    ["60s", "0s", "1ms", "59", "-5", "1e9", "99999h", "nan", "2026-01-01T00:00:00Z"]
)
COUNTED = st.sampled_from(
    [
        "requests",
        "tokens",
        "project-tokens",
        "input-images",
        "tokens-month",
        "tokens-minute",
        "requests-day",
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(["limit", "remaining"]).flatmap(
        lambda field: COUNTED.map(f"x-ratelimit-{field}-".__add__)
    ),
    FIGURES,
)
RESETS = st.dictionaries(
    st.sampled_from(["reset", "renewalperiod"]).flatmap(
        lambda field: COUNTED.map(f"x-ratelimit-{field}-".__add__)
    ),
    SPANS,
)
WAITS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms"]), st.one_of(FIGURES, SPANS)
)
TEXTS = st.builds(
    "{} on {} per {}: Limit {}, Used {}, Requested {}. Please try again in {}.".format,
    st.sampled_from(["Rate limit reached", "Request too large"]),
    st.sampled_from(["tokens", "requests", "input-images", "moons"]),
    st.sampled_from(["min", "day", "month"]),
    *[
        st.sampled_from(
            ["0", "1", "0.00000000001", "0.000001", "0.5", "30000", "900000000000000", "9" * 20]
        )
    ]
    * 3,
    SPANS,
)
GIVEN = [Limits(), Limits(tpm=30_000, rpm=60), Limits("30k tpm", concurrency=2)]
TINY = {
    "x-ratelimit-limit-tokens": "1",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "60s",
}
TRUE = {
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29990",
    "x-ratelimit-reset-tokens": "20ms",
}


@given(st.sampled_from(GIVEN), HEADERS, RESETS, WAITS, st.sampled_from([200, 413, 429, 503]), TEXTS)
@example(
    GIVEN[0],
    {"x-ratelimit-limit-requests": "1e-10", "x-ratelimit-remaining-requests": "0"},
    {},
    {},
    200,
    "",
)
@example(
    GIVEN[1],
    {},
    {},
    {},
    429,
    "Rate limit reached on tokens per min: Limit 30000, Used 900000000000000, Requested 1.",
)
def test_no_single_answer_raises_or_stops_the_calls_that_fit(
    limits: Limits,
    headers: dict[str, str],
    resets: dict[str, str],
    waits: dict[str, str],
    status: int,
    text: str,
) -> None:
    """After one answer of any kind a call is still admitted in the end.

    At the latest when the longest period is over.
    """
    clock = ThreadClock()
    held = RateLimiter(limits=limits, clock=clock)
    with held.reserve(tokens=10) as lease:
        lease.observe(headers | resets | waits, status=status, body={"error": {"message": text}})

    held.acquire_sync(tokens=10).close()

    assert clock.now() < 70 * 86_400


@pytest.mark.parametrize("limits", [Limits(), Limits(tpm=30_000)], ids=["learned", "given"])
@pytest.mark.parametrize(
    "answer",
    [
        {"headers": TINY},
        {
            "headers": {},
            "status": 429,
            "body": {
                "error": {
                    "message": "Rate limit reached on tokens per min (TPM): Limit 1, "
                    "Used 1, Requested 1."
                }
            },
        },
        {"headers": {"x-ratelimit-limit-tokens-month": "5"}},
    ],
    ids=["headers", "refusal", "month"],
)
def test_a_tiny_limit_that_one_answer_names_refuses_no_call(
    limits: Limits, answer: dict[str, Any]
) -> None:
    """Every door still admits a call that is larger; true answers set the limit
    right.
    """
    clock = VirtualClock()
    held = RateLimiter(limits=limits, clock=clock)

    async def main() -> None:
        (await held.acquire(tokens=10)).observe(**answer)
        for _ in range(3):
            lease = await held.acquire(tokens=10)
            lease.observe(TRUE)
            lease.close()

    clock.run(main)
    assert [str(limit) for limit in held.limits("any")] == ["30,000 tokens/min"]
    assert clock.now() < 120


def test_calls_that_wait_for_the_first_headers_are_not_refused_for_their_figures() -> None:
    """They keep their order, also among equals.

    The next one goes alone, until a second answer has shown the limits.
    """
    clock = VirtualClock()
    held = RateLimiter(clock=clock)
    held._engine.listen()
    admitted: list[tuple[int, int]] = []

    async def call(number: int, headers: dict[str, str]) -> None:
        lease = await held.acquire(tokens=10)
        admitted.append((number, round(clock.now())))
        await anyio.sleep(1)
        lease.observe(headers)
        lease.close()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(call, number, TRUE if number else TINY)

    clock.run(main)
    assert admitted == [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)]


def test_a_call_that_waits_on_a_limit_that_is_retracted_goes_on() -> None:
    """A small call waits on a tiny limit until a larger one has it retracted."""
    clock = VirtualClock()
    held = RateLimiter(clock=clock)
    moments: list[float] = []

    async def small() -> None:
        (await held.acquire(tokens=1)).close()
        moments.append(clock.now())

    async def main() -> None:
        (await held.acquire(tokens=1)).observe(TINY)
        async with anyio.create_task_group() as group:
            group.start_soon(small)
            await anyio.sleep(1)
            (await held.acquire(tokens=10)).close()

    clock.run(main)
    assert moments == [pytest.approx(1)]


def test_a_limit_is_learned_from_the_refusal_of_a_call_that_is_too_large() -> None:
    """The second one of its kind is not sent any more; the level stays as it was."""
    held = RateLimiter(tpm=30_000, arrival_slack=0, clock=ThreadClock())
    large = {
        "error": {
            "message": "Request too large for gpt-4o on tokens per min (TPM): Limit 100, "
            "Requested 200."
        }
    }
    for _ in range(2):
        held.acquire_sync(tokens=200).observe({}, status=429, body=large)

    assert [str(limit) for limit in held.limits("any")] == ["100 tokens/min"]
    with pytest.raises(RequestTooLarge):
        held.acquire_nowait(tokens=200)


def test_a_limit_that_only_a_refusal_names_holds_beside_those_that_were_given() -> None:
    """A day's tokens count from the first refusal for them on.

    Whatever headers show of other limits.
    """
    held = RateLimiter(rpm=60, arrival_slack=0, clock=ThreadClock())
    spent = {
        "error": {
            "message": "Rate limit reached on tokens per day (TPD): Limit 5000, Used "
            "4000, Requested 2000. Please try again in 5s."
        }
    }
    held.acquire_sync(tokens=2_000).observe({}, status=429, body=spent)
    for _ in range(2):
        lease = held.acquire_sync(tokens=1)
        lease.observe({"x-ratelimit-limit-requests": "30"})
        lease.close()

    assert [str(limit) for limit in held.limits("any")] == [
        "30 requests/min",
        "5,000 tokens/day",
    ]


def test_a_tiny_limit_that_answers_name_refuses_nothing_until_the_server_does() -> None:
    """The call goes and asks; a server that refuses it twice is not asked again."""
    held = RateLimiter(clock=ThreadClock())
    for tokens in (1, 10, 10):
        lease = held.acquire_sync(tokens=tokens)
        lease.observe(TINY)
        lease.close()
    large = {"error": {"message": "Request too large on tokens per min (TPM): Limit 1."}}
    for _ in range(2):
        held.acquire_sync(tokens=10).observe(TINY, status=429, body=large)

    with pytest.raises(RequestTooLarge, match="limit is 1 tokens/min"):
        held.acquire_nowait(tokens=10)


def test_a_limit_that_was_given_is_never_retracted() -> None:
    """What the user gives needs no confirmation."""
    held = RateLimiter(tpm=5, clock=ThreadClock())
    held.acquire_sync(tokens=1).observe(TRUE)

    for _ in range(2):
        with pytest.raises(RequestTooLarge):
            held.acquire_nowait(tokens=10)
