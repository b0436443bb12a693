"""Errors that other vendors send with status 200, in shapes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai.types.chat import ChatCompletion

from ratelimit import RateLimiter
from ratelimit.feedback import read_error_answer
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
