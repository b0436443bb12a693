import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.feedback.refusals import LONGEST_WAIT, Refusal, read_refusal


def refuse(message: str = "", *, status: int = 429, headers: Any = None, **error: Any) -> Refusal:
    """Read a refusal of the usual shape."""
    refusal = read_refusal(
        status,
        headers,
        {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"} | error},
    )
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    ("message", "expected", "wait"),
    [
        (
            (
                "Rate limit reached for gpt-4o in organization org-… on tokens per min (TPM): Limit 30000, Used 29937, Requested 385. Please try"
                " again in 644ms. Visit https://platform.openai.com/account/rate-limits to learn more."
            ),
            ("tokens", 60, 30_000, 29_937, 385),
            0.645,
        ),
        (
            "Rate limit reached for gpt-4o in organization o on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
            ("requests", 60, 3, 3, 1),
            20.001,
        ),
        (
            (
                "Rate limit reached for gpt-4 in organization o on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again"
                " in 7m12s. Visit https://x"
            ),
            ("requests", 86_400, 200, 200, 1),
            432.001,
        ),
        (
            "Rate limit reached for gpt-4 in organization org-xxx on requests per min. Limit: 3 req/min.",
            ("requests", 60, 3, None, None),
            None,
        ),
        (
            (
                "Rate limit reached for gpt-3.5-turbo in organization org-x on tokens per min. Limit: 90,000 / min. Current: 91,234 / min."
                " Contact us through our help center at help.openai.com if you continue to have issues."
            ),
            ("tokens", 60, 90_000, 91_234, None),
            None,
        ),
        (
            (
                "Rate limit reached for gpt-image-2 (for limit gpt-image) in organization org-x on input-images per min: Limit 4000, Used 4000,"
                " Requested 3. Please try again in 7.5s."
            ),
            ("input_images", 60, 4_000, 4_000, 3),
            7.501,
        ),
        (
            (
                "Rate limit reached for model `llama3-70b-8192` in organization `org_01` on tokens per day (TPD): Limit 500000, Used 499000,"
                " Requested ~1500. Please try again in 1m26.4s."
            ),
            ("tokens", 86_400, 500_000, 499_000, 1_500),
            86.401,
        ),
        (
            (
                "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-02-15 have exceeded token rate limit"
                " of your current OpenAI S0 pricing tier. Please retry after 6 seconds. Please go here: https://aka.ms/oai/quotaincrease"
            ),
            ("tokens", None, None, None, None),
            6.001,
        ),
        (
            (
                "Requests to the Embeddings_Create Operation have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry"
                " after 1 second."
            ),
            ("requests", None, None, None, None),
            1.001,
        ),
    ],
)
def test_a_refusals_text_gives_up_its_figures(
    message: str, expected: tuple[object, ...], wait: float | None
) -> None:
    """Both of OpenAI's message forms, Azure's and Groq's say what ran out, how far, and
    for how long.
    """
    refusal = refuse(message)

    assert (
        refusal.kind,
        refusal.period,
        refusal.limit,
        refusal.used,
        refusal.requested,
    ) == expected
    assert refusal.wait == (None if wait is None else pytest.approx(wait))
    assert not refusal.hopeless


AGAIN = "on tokens per min (TPM): Limit 100, Used 90, Requested 40. Please try again in 5s."


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after-ms": "1500", "retry-after": "7"}, AGAIN, 1.5),
        ({"retry-after": "7"}, AGAIN, 5.001),
        ({"retry-after": "7"}, "slow", 7),
        ({"Retry-After-Ms": "0", "Retry-After": "1"}, "slow", 1),
        (
            {
                "retry-after": "Thu, 21 Aug 2025 12:41:30 GMT",
                "date": "Thu, 21 Aug 2025 12:41:00 GMT",
            },
            "slow",
            30,
        ),
        ({"retry-after": "Thu, 21 Aug 2025 12:41:30 GMT"}, "slow", None),
        ({"retry-after": "1e9"}, "slow", None),
        ({"retry-after": "-3"}, "slow", None),
        ({"retry-after-ms": "nan"}, AGAIN, 5.001),
        ([(b"retry-after", b"7")], "slow", 7),
        ({}, "on tokens per min (TPM): Limit 100, Used 90, Requested 40.", 18),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-reset-requests": "1s",
            },
            "slow",
            1,
        ),
    ],
)
def test_the_pause_is_read_in_order_and_nonsense_is_passed_over(
    headers: Any, message: str, wait: float | None
) -> None:
    """retry-after-ms, the message, retry-after in seconds or as a date, the figures; a
    zero or absurd one closes nothing.
    """
    assert refuse(message, headers=headers, type="").wait == (
        None if wait is None else pytest.approx(wait)
    )


def test_the_empty_bucket_in_the_headers_says_what_the_message_does_not() -> None:
    """A refusal without a text still names its limit when its headers show one empty
    bucket.
    """
    headers = {
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "2s",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "60s",
    }
    refusal = read_refusal(429, headers, None)

    assert refusal is not None
    assert (refusal.kind, refusal.limit, refusal.period, refusal.wait) == ("requests", 60, 60, 60)


@pytest.mark.parametrize(
    ("status", "error", "word"),
    [
        (
            429,
            {
                "code": "insufficient_quota",
                "type": "insufficient_quota",
                "message": "You exceeded your current quota",
            },
            "credit",
        ),
        (
            429,
            {"code": "organization_spend_limit_exceeded", "type": "insufficient_quota"},
            "credit",
        ),
        (429, {"code": "project_spend_limit_exceeded"}, "credit"),
        (429, {"code": "credit_balance_exhausted"}, "credit"),
        (429, {"code": "billing_hard_limit_reached"}, "billing"),
        (429, {"code": "billing_not_active"}, "billing"),
        (402, {"message": "Insufficient Balance"}, "credit"),
        (
            429,
            {
                "message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 31538."
            },
            "31,538",
        ),
        (
            429,
            {
                "message": "Rate limit reached on tokens per min (TPM): Limit 30000, Used 0, Requested 31538. Please try again in 2s."
            },
            "larger",
        ),
        (
            413,
            {
                "message": "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000"
            },
            "larger",
        ),
    ],
)
def test_what_waiting_cannot_cure_is_hopeless_and_says_what_can(
    status: int, error: dict[str, str], word: str
) -> None:
    """Quota, billing and a request beyond its limit are told in plain words, with no
    pause to wait for.
    """
    refusal = read_refusal(status, {"retry-after": "3"}, {"error": error})

    assert refusal is not None
    assert refusal.hopeless
    assert refusal.wait is None
    assert word in refusal.advice


def test_geminis_quota_text_is_an_ordinary_refusal() -> None:
    """Gemini says "exceeded your current quota" for its rate limits too: only the code
    makes it hopeless.
    """
    body = json.dumps(
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota. Please retry in 27.5s.",
                    "status": "RESOURCE_EXHAUSTED",
                }
            }
        ]
    )
    refusal = read_refusal(429, {}, body.encode())

    assert refusal is not None
    assert not refusal.hopeless
    assert refusal.wait == pytest.approx(27.501)


def test_slowing_down_and_overload_are_told_apart() -> None:
    """slow_down is our growth, a 503 is the server's lack; neither is hopeless."""
    slow = refuse("Too fast", type="rate_limit_error", code="slow_down")
    busy = read_refusal(
        503, None, b'{"error": {"code": "server_is_overloaded", "message": "busy"}}'
    )
    flex = refuse("Flex does not have sufficient resources available to fulfill the request")

    assert (slow.slow_down, slow.overloaded, slow.hopeless) == (True, False, False)
    assert busy is not None
    assert (busy.slow_down, busy.overloaded) == (False, True)
    assert (flex.overloaded, flex.hopeless) == (True, False)


@pytest.mark.parametrize(
    "status", [200, 201, 400, 401, 404, 408, 409, 500, 502, 504, "429", None, [429]]
)
def test_other_answers_are_no_refusals(status: object) -> None:
    """A bad request or a broken gateway says nothing about our limits."""
    assert read_refusal(status, {}, {"error": {"message": AGAIN}}) is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": AGAIN}},
        {"message": AGAIN},
        json.dumps({"error": {"message": AGAIN}}),
        json.dumps({"error": {"message": AGAIN}}).encode(),
        AGAIN,
        AGAIN.encode(),
        {"error": AGAIN},
        json.dumps(AGAIN),
    ],
)
def test_a_refusal_is_read_from_any_shape_of_body(body: object) -> None:
    """Whole bodies, the SDK's inner error, plain text, bytes: the same figures."""
    refusal = read_refusal(429, None, body)

    assert refusal is not None
    assert (refusal.limit, refusal.used, refusal.requested) == (100, 90, 40)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type"]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
TEXTS = st.lists(
    st.sampled_from(
        [
            "on ",
            "tokens",
            " per ",
            "min",
            ": Limit ",
            "Used ",
            "Requested ",
            "-1",
            "1e999",
            "99999999999999999999",
            "try again in ",
            "5s",
            "ms",
            ".",
        ]
    ),
    max_size=14,
).map("".join)


@given(
    st.integers(100, 599) | st.just(429),
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-remaining-tokens"]),
        st.text(max_size=20),
    ),
    JSON
    | TEXTS
    | st.binary(max_size=60)
    | TEXTS.map(lambda message: {"error": {"message": message}}),
)
def test_garbage_in_a_refusal_never_raises_and_never_waits_for_ever(
    status: int, headers: dict[str, str], body: object
) -> None:
    """Whatever a proxy answers, the pause is none, or between a millisecond and a
    month.
    """
    refusal = read_refusal(status, headers, body)
    if refusal is not None:
        assert refusal.wait is None or 0 < refusal.wait <= LONGEST_WAIT
        assert refusal.hopeless == bool(refusal.advice)
        assert len(refusal.message) <= 4_000
