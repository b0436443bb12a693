"""What refusals say, from every server that refuses."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.feedback import Refusal, read_refusal
from ratelimit.feedback.refusals import LONGEST_WAIT, REFUSING_STATUSES
from ratelimit.limits import LARGEST

DATE = "Thu, 21 Aug 2025 12:41:00 GMT"
QUOTA = "You exceeded your current quota, please check your plan and billing details."
TPM = "You exceeded your current quota: the TPM limit was triggered"
ALLOCATED = "Allocated quota exceeded, please increase your quota limit."


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
                "Rate limit reached for gpt-4o in organization org-… on tokens per min "
                "(TPM): Limit 30000, Used 29937, Requested 385. Please try"
                "again in 644ms. Visit https://platform.openai.com/account/rate-limits to "
                "learn more."
            ),
            ("tokens", 60, 30_000, 29_937),
            0.645,
        ),
        (
            (
                "Rate limit reached for gpt-4o in organization o on requests per min (RPM): "
                "Limit 3, Used 3, Requested 1. Please try again in 20s."
            ),
            ("requests", 60, 3, 3),
            20.001,
        ),
        (
            (
                "Rate limit reached for gpt-4 in organization o on requests per day (RPD): "
                "Limit 200, Used 200, Requested 1. Please try again"
                " in 7m12s. Visit https://x"
            ),
            ("requests", 86_400, 200, 200),
            432.001,
        ),
        (
            (
                "Rate limit reached for gpt-4 in organization org-xxx on requests per min. "
                "Limit: 3 req/min."
            ),
            ("requests", 60, 3, None),
            None,
        ),
        (
            (
                "Rate limit reached for gpt-3.5-turbo in organization org-x on tokens per "
                "min. Limit: 90,000 / min. Current: 91,234 / min."
                "Contact us through our help center at help.openai.com if you continue to "
                "have issues."
            ),
            ("tokens", 60, 90_000, 91_234),
            None,
        ),
        (
            (
                "Rate limit reached for gpt-image-2 (for limit gpt-image) in organization "
                "org-x on input-images per min: Limit 4000, Used 4000,"
                " Requested 3. Please try again in 7.5s."
            ),
            ("input_images", 60, 4_000, 4_000),
            7.501,
        ),
        (
            (
                "Rate limit reached for model `llama3-70b-8192` in organization `org_01` "
                "on tokens per day (TPD): Limit 500000, Used 499000,"
                " Requested ~1500. Please try again in 1m26.4s."
            ),
            ("tokens", 86_400, 500_000, 499_000),
            86.401,
        ),
        (
            (
                "This request would exceed your organization's rate limit of 40,000 input "
                "tokens per minute."
            ),
            ("input_tokens", 60, 40_000, None),
            None,
        ),
        (
            "request reached max organization concurrency: 3, please try again after 1 seconds",
            ("concurrency", None, 3, None),
            1.001,
        ),
        (
            "Your account org-x request reached max RPM: 20, please try again after 2 seconds",
            ("requests", 60, 20, None),
            2.001,
        ),
        (
            "Rate limit exceeded: free-models-per-day. Add credits.",
            ("requests", 86_400, None, None),
            None,
        ),
        ("Rate limit exceeded: free-models-per-min.", ("requests", 60, None, None), None),
        ("Too many tokens, please wait before trying again.", ("tokens", None, None, None), None),
        (
            (
                "Your account org-x<ak-y> request reached max organization TPM rate limit, "
                "current: 32004, limit: 32000, please try again after 1 seconds"
            ),
            ("tokens", 60, 32_000, 32_004),
            1.001,
        ),
        ("Please try again in about 20 seconds", (None, None, None, None), 20.001),
        (
            (
                "Requests to the ChatCompletions_Create Operation under Azure OpenAI API "
                "version 2024-02-15 have exceeded token rate limit"
                "of your current OpenAI S0 pricing tier. Please retry after 6 seconds. "
                "Please go here: https://aka.ms/oai/quotaincrease"
            ),
            ("tokens", None, None, None),
            6.001,
        ),
        (
            (
                "Requests to the Embeddings_Create Operation have exceeded call rate limit "
                "of your current OpenAI S0 pricing tier. Please retry"
                " after 1 second."
            ),
            ("requests", None, None, None),
            1.001,
        ),
    ],
)
def test_a_refusals_text_gives_up_its_figures(
    message: str, expected: tuple[object, ...], wait: float | None
) -> None:
    """Every server's sentences say what ran out, how far, and for how long."""
    refusal = refuse(message, type="", code="")

    assert (refusal.kind, refusal.period, refusal.limit, refusal.used) == expected
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
        ({"retry-after": "1755780070", "date": DATE}, "slow", 10),
        ({"retry-after": "2025-08-21T12:41:07Z", "date": DATE}, "slow", 7),
        ({"retry-after": "Thursday, 21-Aug-25 12:41:30 GMT", "date": DATE}, "slow", 30),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, "slow", None),
        ({"retry-after": "1.5"}, "slow", 1.5),
        ({"retry-after": "2m"}, "slow", 120),
        ({"retry-after-ms": "1e300", "retry-after": "9" * 400}, AGAIN, 5.001),
        (
            {"retry-after": "86400"},
            "on tokens per min (TPM): Limit 100, Used 90, Requested 40.",
            18,
        ),
        ({"retry-after": "86400"}, "on requests per day (RPD): Limit 100, Used 100.", 86_400),
        ({"x-rate-limit-reset-tokens": "55"}, "slow", 55),
        ({"ratelimit-policy": '"a";q=50;w=60', "ratelimit": '"a";r=0;t=10'}, "slow", 10),
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
                "message": QUOTA,
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
                "message": (
                    "Request too large for gpt-4o in organization org-x on tokens per min "
                    "(TPM): Limit 30000, Requested 31538."
                )
            },
            "31,538",
        ),
        (
            429,
            {
                "message": (
                    "Rate limit reached on tokens per min (TPM): Limit 30000, Used 0, "
                    "Requested 31538. Please try again in 2s."
                )
            },
            "larger",
        ),
        (
            413,
            {
                "message": (
                    "Request too large for model `x` on tokens per minute (TPM): Limit 6000, "
                    "Requested 9000"
                )
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


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>413 Request Entity Too Large</h1></html>",
        {"detail": "Request Entity Too Large"},
        {"message": "Request Too Long"},
        b"Request too large: Limit 1048576",
        {"error": {"message": "Too many bytes", "type": "request_too_large"}},
        b"",
        None,
    ],
)
def test_a_413_of_a_proxy_is_no_refusal(body: object) -> None:
    """A body of too many bytes is larger than no limit of tokens."""
    assert read_refusal(413, {}, body) is None


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
    assert (refusal.limit, refusal.used) == (100, 90)


@pytest.mark.parametrize(
    ("error", "host", "verdict"),
    [
        ({"code": "insufficient_quota", "message": TPM}, "", "passes"),
        ({"code": "insufficient_quota", "message": TPM}, "dashscope.aliyuncs.com", "passes"),
        ({"code": "insufficient_quota", "message": ALLOCATED}, "", "may be final"),
        ({"type": "insufficient_quota", "message": ALLOCATED}, "relay.example", "may be final"),
        ({"code": "insufficient_quota"}, "", "may be final"),
        ({"code": "insufficient_quota"}, "api.openai.com", "final"),
        ({"code": "insufficient_quota", "message": TPM}, "eu.api.openai.com", "final"),
        ({"code": "insufficient_quota"}, "mine.openai.azure.com", "final"),
        ({"code": "insufficient_quota"}, "notopenai.com", "may be final"),
        ({"code": "insufficient_quota", "message": QUOTA}, "", "final"),
        (
            {"code": "insufficient_quota", "message": QUOTA},
            "dashscope.aliyuncs.com",
            "may be final",
        ),
        (
            {
                "type": "exceeded_current_quota_error",
                "message": "please check your account balance",
            },
            "api.moonshot.ai",
            "final",
        ),
        ({"code": "credit_balance_exhausted", "type": "insufficient_quota"}, "", "final"),
        ({"code": "project_spend_limit_exceeded", "type": "insufficient_quota"}, "", "final"),
        ({"code": "organization_usage_limit_exceeded", "message": TPM}, "", "final"),
        ({"code": "rate_limit_exceeded"}, "api.openai.com", "passes"),
    ],
)
def test_a_quota_is_judged_by_its_server(error: dict[str, str], host: str, verdict: str) -> None:
    """One server's word for spent credit is another's for a minute's tokens: only with
    its companions, on the hosts that mean it, or when it stays, is it final.
    """
    refusal = read_refusal(429, {}, {"error": error}, host)
    assert refusal is not None

    found = "final" if refusal.hopeless else "may be final" if refusal.may_be_final else "passes"
    assert found == verdict


def test_a_quota_that_may_be_a_rate_is_a_tokens_refusal_until_it_stays() -> None:
    """It pauses like any refusal of a minute's tokens; taken as final it says what
    helps.
    """
    body = {"error": {"code": "insufficient_quota", "message": ALLOCATED}}
    refusal = read_refusal(429, {"retry-after": "3"}, body)
    assert refusal is not None
    final = refusal.as_final()

    assert (refusal.kind, refusal.period, refusal.wait) == ("tokens", 60, 3)
    assert (refusal.hopeless, refusal.advice) == (False, "")
    assert (final.hopeless, final.may_be_final, final.wait) == (True, False, None)
    assert "credit" in final.advice
    assert final.as_final() is final
    assert (final.kind, final.code, final.message) == (None, "insufficient_quota", ALLOCATED)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("limit_requests", ("requests", 60, False)),
        ("limit_burst_rate", (None, None, True)),
        ("Throttling.RateQuota", ("requests", 60, False)),
        ("Throttling.AllocationQuota", ("tokens", 60, False)),
        ("Throttling.BurstRate", (None, None, True)),
    ],
)
def test_alibabas_codes_say_what_its_texts_do_not(code: str, expected: tuple[Any, ...]) -> None:
    """RPM, TPM and the ramp guard are told apart by the code alone."""
    refusal = refuse("Request rate increased too quickly.", type="", code=code)

    assert (refusal.kind, refusal.period, refusal.slow_down) == expected
    assert not refusal.hopeless


def gemini(*quotas: tuple[str, str], message: str = "Quota exceeded.") -> list[dict[str, Any]]:
    """Write a refusal as Gemini does, for these quotas and their values."""
    violations = [
        {
            "quotaId": quota,
            "quotaMetric": "generativelanguage.googleapis.com/x",
            "quotaValue": value,
        }
        for quota, value in quotas
    ]
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"url": "https://x"}]},
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20.5s"},
    ]
    return [
        {
            "error": {
                "code": 429,
                "message": message,
                "status": "RESOURCE_EXHAUSTED",
                "details": details,
            }
        }
    ]


MINUTE_REQUESTS = ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "15")
DAY_REQUESTS = ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "200")
MINUTE_TOKENS = ("GenerateContentInputTokensPerModelPerMinute-FreeTier", "250000")


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ([MINUTE_REQUESTS], ("requests", 60, 15)),
        ([MINUTE_REQUESTS, DAY_REQUESTS], ("requests", 86_400, 200)),
        ([MINUTE_TOKENS], ("input_tokens", 60, 250_000)),
        ([("ConcurrentThings", "3")], (None, None, None)),
        ([], (None, None, None)),
    ],
)
def test_geminis_details_say_which_quota_and_how_long(
    quotas: list[tuple[str, str]], expected: tuple[Any, ...]
) -> None:
    """It sends no headers: its quotas and its delay stand in the body's details."""
    refusal = read_refusal(429, {"retry-after": "99"}, gemini(*quotas))
    assert refusal is not None

    assert (refusal.kind, refusal.period, refusal.limit) == expected
    assert refusal.wait == 20.5
    assert not refusal.hopeless


@pytest.mark.parametrize(
    "body",
    [
        gemini((MINUTE_REQUESTS[0], "0")),
        gemini((DAY_REQUESTS[0], ""), message="Quota exceeded for metric: x, limit: 0, model: y"),
    ],
)
def test_a_gemini_quota_of_nothing_is_hopeless(body: Any) -> None:
    """A model that the plan does not include never becomes free."""
    refusal = read_refusal(429, {}, body)
    assert refusal is not None

    assert (refusal.hopeless, refusal.wait) == (True, None)
    assert "plan" in refusal.advice


def test_openrouters_headers_come_inside_the_body() -> None:
    """Its limit and its reset, in Unix milliseconds, stand in the error's metadata."""
    inner = {
        "X-RateLimit-Limit": "20",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1755780090000",
    }
    error = {
        "code": 429,
        "message": "Rate limit exceeded: free-models-per-min. ",
        "metadata": {"headers": inner, "provider_name": None},
    }
    refusal = read_refusal(429, {"Date": DATE}, json.dumps({"error": error}))
    assert refusal is not None

    assert (refusal.kind, refusal.period, refusal.limit, refusal.wait) == ("requests", 60, 20, 30)


@pytest.mark.parametrize(
    ("message", "used"),
    [
        ("on tokens per min (TPM): Limit 30000, Used 999999999999, Requested 1.", None),
        ("on tokens per min (TPM): Limit 30000, Used 31000, Requested 1.", 31_000),
        ("on tokens per min (TPM): Limit 0, Used 5, Requested 1.", 5),
        ("on tokens per min (TPM): Limit 0.5, Used 5, Requested 1.", 5),
    ],
)
def test_figures_that_do_not_go_together_are_dropped(message: str, used: float | None) -> None:
    """What is used cannot be many times the limit, and no limit is below one."""
    refusal = refuse(message)

    assert refusal.used == used
    assert refusal.limit in {30_000, None}
    assert not refusal.hopeless


def test_a_refusal_shows_no_text_and_travels() -> None:
    """A server's text may quote a prompt or a key; a refusal can be logged, copied and
    sent to another process.
    """
    refusal = refuse("Invalid prompt 'a secret' for key sk-secret")

    assert "secret" not in repr(refusal)
    assert "rate_limit_exceeded" in repr(refusal)
    assert pickle.loads(pickle.dumps(refusal)) == copy.deepcopy(refusal) == refusal  # noqa: S301  # our own bytes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("error", "message", "code", "type", "status", "metadata", "headers"),
                    *("details", "@type", "retryDelay", "violations", "quotaId", "quotaValue"),
                    "X-RateLimit-Reset",
                ]
            )
            | st.text(max_size=5),
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


FIGURES = st.sampled_from(
    ["-1", "0", "nan", "inf", "1e300", "9" * 400, "1e9", "9999-12-31T00:00:00Z", "5", "1755780090"]
)
CODES = st.sampled_from(
    ["insufficient_quota", "rate_limit_exceeded", "limit_burst_rate", "billing_x", "slow_down", "x"]
)


@given(
    st.integers(100, 599) | st.sampled_from(sorted(REFUSING_STATUSES)),
    st.dictionaries(
        st.sampled_from(
            [
                *("retry-after", "retry-after-ms", "date", "x-ratelimit-remaining-tokens"),
                *("x-ratelimit-limit-tokens", "x-ratelimit-reset-tokens", "ratelimit", "x-y"),
            ]
        ),
        st.text(max_size=20) | FIGURES | st.just(DATE),
    ),
    JSON
    | TEXTS
    | st.binary(max_size=60)
    | st.builds(lambda message, code: {"error": {"message": message, "code": code}}, TEXTS, CODES)
    | st.builds(gemini, st.tuples(st.just(DAY_REQUESTS[0]), FIGURES)),
    st.text(max_size=10) | st.just("api.openai.com"),
)
def test_garbage_in_a_refusal_never_raises_and_never_becomes_absurd(
    status: int, headers: dict[str, str], body: object, host: str
) -> None:
    """Whatever a proxy answers, every figure is none or one that can be."""
    refusal = read_refusal(status, headers, body, host)

    if refusal is not None:
        assert refusal.wait is None or 0 < refusal.wait <= LONGEST_WAIT
        assert refusal.limit is None or 1 <= refusal.limit <= LARGEST
        assert refusal.used is None or 0 <= refusal.used <= LARGEST
        assert refusal.period is None or 1 <= refusal.period <= LONGEST_WAIT
        assert refusal.hopeless == bool(refusal.advice)
        assert not (refusal.hopeless and refusal.may_be_final)
        assert refusal.as_final().advice
        assert len(refusal.message) <= 4_000
        assert len(refusal.code) <= 100


def test_problem_types_of_the_ietf_are_read_by_their_names() -> None:
    """Their type is an address; a capacity that is reduced for a while is no limit."""
    draft = "https://iana.org/assignments/http-problem-types#"
    refusal = read_refusal(429, None, {"type": draft + "quota-exceeded", "title": "Too many"})
    reduced = read_refusal(503, None, {"type": draft + "temporary-reduced-capacity"})

    assert refusal is not None
    assert (refusal.hopeless, refusal.may_be_final) == (False, False)
    assert reduced is not None
    assert reduced.overloaded


def test_traefik_names_its_wait_in_a_header_of_its_own() -> None:
    """A duration of Go; Retry-After counts before it."""
    assert refuse(headers={"x-retry-in": "1.5s"}).wait == 1.5
    assert refuse(headers={"x-retry-in": "1.5s", "retry-after": "3"}).wait == 3
