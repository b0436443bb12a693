"""Errors that other vendors send with status 200, in shapes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai.types.chat import ChatCompletion

from ratelimit import RateLimiter
from ratelimit.feedback import read_error_answer, read_refusal
from ratelimit.testing import ThreadClock
from ratelimit.testing.clocks import TrioClock, VirtualClock
from tests.batch_api import ANSWER, Api, bodies, good, play

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]

pytestmark = pytest.mark.usefixtures("vocabulary")

REFUSALS: list[Any] = [
    {"message": "rate limited", "code": 429},
    {"statusCode": 429, "message": "Rate limit exceeded"},
    {"status": 429, "error": "Too Many Requests"},
    {"id": "1", "choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    {"base_resp": {"status_code": 1039, "status_msg": "token limit"}},
    [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota"}}],
    {"success": False, "msg": "slow", "code": 429},
    {"success": False, "result": None, "errors": [{"code": 429, "message": "slow"}]},
    {"success": False, "code": "rate_limit_exceeded", "message": "slow"},
]
FAILURES: list[Any] = [
    {"message": "bad", "code": 400},
    {"detail": "Internal"},
    {"errors": [{"message": "x"}]},
    {"errors": ["x"]},
    {"success": False, "msg": "fail"},
    {"choices": None, "base_resp": {"status_code": 2013, "status_msg": "invalid"}},
    {"id": "1", "choices": None},
]
ANSWERS: list[Any] = [
    {"choices": [{"message": {"content": "hi"}}], "base_resp": {"status_code": 0}},
    {"choices": [{"message": {"content": "hi"}}], "base_resp": {"status_code": 1002}},
    {"choices": [{"message": {"content": "hi"}}], "code": 429, "message": "hi"},
    {"choices": [], "object": "chat.completion"},
    {"object": "list", "data": [{}], "status": 429, "message": "x"},
    {"text": "hi", "code": 429, "message": "hi"},
    {"message": {"role": "assistant", "content": "hi"}, "code": 429},
    {"message": "hi", "code": 0},
    {"message": "hi", "status": "completed"},
    {"results": [{"index": 0}], "success": False},
    {"detail": "high", "id": "x"},
    {"errors": []},
    [{"index": 0, "score": 0.5}],
]


def name(body: Any) -> str:
    """Name a case by its text."""
    return json.dumps(body)[:50]


@pytest.mark.parametrize("body", REFUSALS, ids=name)
def test_a_refusal_in_a_foreign_shape_is_one(body: Any) -> None:
    """It pauses the queue and is counted, whatever form a gateway gives it."""
    outcome = read_error_answer(json.dumps(body))

    assert outcome is not None
    assert outcome.refusal is not None


@pytest.mark.parametrize("body", FAILURES, ids=name)
def test_a_failure_in_a_foreign_shape_is_no_refusal(body: Any) -> None:
    """What only failed pauses nothing."""
    outcome = read_error_answer(json.dumps(body))

    assert outcome is not None
    assert outcome.refusal is None


@pytest.mark.parametrize("body", ANSWERS, ids=name)
def test_an_answer_with_output_stays_an_answer(body: Any) -> None:
    """A code beside what was generated, or a status that is none, says nothing."""
    assert read_error_answer(json.dumps(body)) is None


SAID = "Slow down, please try again in 5s"
MARKS: list[Any] = ["", {}, [], 0, False, None, True, 429, 429.0, "Too Many Requests"]


@pytest.mark.parametrize(
    "body",
    [
        {"status": 429, "error": "Too Many Requests", "message": SAID, "path": "/v1"},
        *({"error": mark, "message": SAID} for mark in MARKS),
        {"error": [{"message": SAID}]},
        {"error": {"error": {"message": SAID}}},
        {"error": {"msg": SAID}},
        {"error": {"message": SAID, "errors": [{"message": "Quota", "reason": "rate"}]}},
        {"error": {"message": SAID}, "message": "Something went wrong"},
        {"error": SAID, "message": "Too Many Requests"},
        {"errors": [{"code": 10, "message": SAID}], "success": False},
        {"errors": [SAID]},
        {"detail": SAID},
        {"detail": {"message": SAID}},
        {"type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": SAID},
        {"msg": SAID, "success": False},
        {"error_msg": SAID, "error_code": 18},
        [{"error": {"message": SAID}}],
        [[{"error": {"message": SAID}}]],
        SAID,
    ],
    ids=name,
)
def test_what_a_refusal_says_is_read_in_a_foreign_shape(body: Any) -> None:
    """The pause that it names is obeyed wherever a gateway puts its text."""
    refusal = read_refusal(429, {}, body if isinstance(body, str) else json.dumps(body))

    assert refusal is not None
    assert refusal.wait == pytest.approx(5.001)


def test_the_code_beside_a_text_counts() -> None:
    """Where an error is a text, its code and its details stand beside it."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9s"}]
    body = {"error": "Slow down", "code": "slow_down", "details": details}
    refusal = read_refusal(429, {}, json.dumps(body))

    assert refusal is not None
    assert (refusal.code, refusal.slow_down, refusal.wait) == ("slow_down", True, 9)


@pytest.mark.parametrize("depth", [1, 3, 900, 100_000])
def test_errors_inside_errors_end(depth: int) -> None:
    """What is nested beyond reason is a refusal of which nothing more is known."""
    body = '{"error":' * depth + '"slow"' + "}" * depth
    refusal = read_refusal(429, {}, body)

    assert refusal is not None
    assert refusal.wait is None


def test_the_sdks_object_of_a_foreign_error_is_read() -> None:
    """The SDK builds a completion without choices of whatever a 200 holds."""
    answer: Any = ChatCompletion.construct(**REFUSALS[3])
    outcome = read_error_answer(answer)

    assert outcome is not None
    assert outcome.refusal is not None


@pytest.mark.parametrize("body", REFUSALS, ids=name)
def test_a_wrapped_client_counts_it(body: Any) -> None:
    """Through the transport the body is bytes, and may be a list."""
    limiter = RateLimiter(rpm=600, tpm=100_000, clock=ThreadClock())
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body))
    client = limiter.wrap(httpx2.Client(transport=transport))
    client.post("http://x/v1/chat/completions", json=next(bodies(1)))
    family = limiter.statistics().families["*"]

    assert (family.refused, family.in_flight) == (1, 0)


@pytest.mark.parametrize("body", [*FAILURES, None], ids=name)
def test_a_run_takes_it_for_a_failure(loop_clock: LoopClock, body: Any) -> None:
    """It is no answer, so that `--retry-failed` sends its request again."""

    def reply(number: int) -> httpx2.Response:
        return httpx2.Response(200, content=json.dumps(body)) if number == 1 else good(number)

    results = play(loop_clock, Api(0.5, reply), bodies(3), concurrency=1)

    assert [result.ok for result in results] == [True, False, True]


@pytest.mark.parametrize("body", REFUSALS, ids=name)
def test_a_run_sends_it_again(loop_clock: LoopClock, body: Any) -> None:
    """The SDK takes it for an answer, so the run repeats it."""

    def reply(number: int) -> httpx2.Response:
        return httpx2.Response(200, json=body) if number < 1 else good(number)

    api = Api(0.5, reply)
    (result,) = play(loop_clock, api, bodies(1), retries=2)

    assert result.ok
    assert len(api.requests) == 2


@pytest.mark.parametrize("body", [ANSWER | {"code": 0}, [{"index": 0}], *ANSWERS[4:8]], ids=name)
def test_a_run_takes_an_answer_for_one(loop_clock: LoopClock, body: Any) -> None:
    """Endpoints of other vendors answer in forms that are not known here."""
    api = Api(0.5, lambda _: httpx2.Response(200, json=body))

    assert [result.ok for result in play(loop_clock, api, bodies(1))] == [True]
