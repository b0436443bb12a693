"""What `ratelimit.run` does with requests: each one has one result, at the pace of the
limits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

import ratelimit
from ratelimit import InvalidArgument, RateLimiter
from ratelimit.batch import Request, Result
from ratelimit.batch.running import FIRST_SLOTS
from ratelimit.integrations import settlement
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import TrioClock, VirtualClock

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]
from tests.batch_api import Api, bad, bodies, client_of, good, play

pytestmark = pytest.mark.usefixtures("vocabulary")


def test_every_request_has_one_result(loop_clock: LoopClock) -> None:
    """Nothing is lost and nothing is asked twice, whatever the order of the answers."""
    api = Api()
    results = play(loop_clock, api, bodies(150), rpm=1e6, tpm=1e9)

    assert len(api.requests) == 150
    assert sorted(int(result.custom_id.split("-")[0]) for result in results) == list(range(1, 151))
    assert all(
        result.ok and result.usage is not None and result.usage.total_tokens == 14
        for result in results
    )
    assert {result.request_id for result in results} == {f"req_{number}" for number in range(150)}


def test_each_endpoint_is_asked_at_its_path(loop_clock: LoopClock) -> None:
    """The same run serves chat, Responses, embeddings and completions, in every form of
    a request, as it was written.
    """
    api = Api()
    given: list[dict[str, Any]] = [
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        {
            "custom_id": "r",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"model": "gpt-4o", "input": "Hi"},
        },
        {
            "custom_id": "e",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "text-embedding-3-small", "input": "Hi"},
        },
        {"request": {"model": "davinci-002", "prompt": "Hi"}, "endpoint": "completions"},
    ]
    play(loop_clock, api, given, concurrency=1)

    assert [request.url.path for request in api.requests] == [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/completions",
    ]
    assert b"stream" not in api.requests[0].content
    assert api.requests[1].content == b'{"model":"gpt-4o","input":"Hi"}'


def test_requests_may_come_from_an_async_iterable(loop_clock: LoopClock) -> None:
    """Requests that are made and named while others run need not be collected first."""

    async def source() -> AsyncIterator[Request]:
        for number, body in enumerate(bodies(5)):
            await anyio.sleep(3)
            yield Request(f"mine-{number}", "chat.completions", body)

    assert sorted(result.custom_id for result in play(loop_clock, Api(), source())) == [
        f"mine-{number}" for number in range(5)
    ]


def test_the_limits_hold_and_are_used(loop_clock: LoopClock) -> None:
    """A full bucket at once, then the rate: 180 requests at 60 a minute take two
    minutes, and neither more nor much less.
    """
    api = Api(seconds=0.5)
    play(loop_clock, api, bodies(180), rpm=60, arrival_slack=0)

    start = api.times[0]
    assert all(number <= 60 + (time - start) + 1 for number, time in enumerate(api.times, 1))
    assert api.times[-1] - start == pytest.approx(120, abs=2)


def test_a_real_server_s_limit_is_used_to_the_last_percent() -> None:
    """FakeOpenAI at 200 a minute, 400 requests: no 429, and from the first answer to
    the last sending next to nothing of the limit is lost.
    """
    clock, server = VirtualClock(), FakeOpenAI(rpm=200, tpm=10_000_000)

    async def main() -> None:
        http = httpx2.AsyncClient(transport=server.transport())
        async with AsyncOpenAI(
            api_key="sk-test", base_url="http://api/v1", http_client=http
        ) as client:
            async for result in ratelimit.run(
                bodies(400), client, RateLimiter(rpm=200, clock=clock)
            ):
                assert result.ok

    clock.run(main)
    entries = server.ledger.entries()
    seconds = entries[-1].time - (entries[0].ended or 0.0)

    assert len(server.ledger.refused) == 0
    assert 400 / (200 * (1 + seconds / 60)) > 0.97


def test_requests_are_taken_no_faster_than_they_are_sent(loop_clock: LoopClock) -> None:
    """Memory stays flat: what was taken and not yet handed back never exceeds the
    slots.
    """
    taken = handed = most = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken, most
        for body in bodies(60):
            taken += 1
            most = max(most, taken - handed)
            yield body

    clock, api = loop_clock(), Api()

    async def main() -> None:
        nonlocal handed
        async with (
            client_of(api) as client,
            aclosing(
                ratelimit.run(source(), client, RateLimiter(clock=clock), concurrency=7)
            ) as results,
        ):
            async for _ in results:
                handed += 1
                await anyio.sleep(2)  # slower than the answers

    clock.run(main)

    assert handed == 60
    assert most <= 8
    assert api.most <= 7


def test_slots_grow_where_nothing_else_holds_requests_back(loop_clock: LoopClock) -> None:
    """Slow answers need many calls in flight to use a high limit, and get them; a low
    limit does not.
    """
    fast, slow = Api(seconds=20), Api(seconds=20)
    play(loop_clock, fast, bodies(400), rpm=1e6)
    play(loop_clock, slow, bodies(120), rpm=70, arrival_slack=0)

    assert fast.most > 2 * FIRST_SLOTS
    assert slow.most <= FIRST_SLOTS + 10


@pytest.mark.logs("gpt-4o ended without usage")
def test_a_failure_is_the_result_of_its_request_alone(
    loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An HTTP error, a broken connection, an answer that is no JSON and a request
    beyond its limit: each is a result, the rest goes on.
    """
    monkeypatch.setattr(settlement, "_warned", set())

    def reply(number: int) -> httpx2.Response:
        if number == 1:
            return bad(400, "invalid_request_error", "Bad thing.")
        if number == 2:
            raise httpx2.ReadError("cut off")
        return httpx2.Response(200, text="<html>") if number == 3 else good(number)

    wide = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi " * 5_000}]}
    results = play(loop_clock, Api(reply=reply), [*bodies(5), wide], concurrency=1, tpm=1_000)
    by_place = {int(result.custom_id.split("-")[0]): result for result in results}

    assert [place for place, result in by_place.items() if result.ok] == [1, 5]
    assert (by_place[2].status, by_place[2].error, by_place[2].reason) == (
        400,
        None,
        "HTTP 400: Bad thing.",
    )
    assert (by_place[3].status, by_place[3].error) == (
        None,
        {"code": "APIConnectionError", "message": "Connection error. (cut off)"},
    )
    assert by_place[4].reason == "unreadable_answer: the answer is not JSON: <html>"
    assert by_place[6].reason.startswith("request_too_large: ")


def test_the_sdk_retries_pass_the_limits(loop_clock: LoopClock) -> None:
    """A server error is retried by the SDK, each attempt is admitted, and there is one
    result.
    """
    api = Api(reply=lambda number: bad(500, "server_error") if number < 2 else good(number))
    clock = loop_clock()
    limiter = RateLimiter(rpm=100, clock=clock)

    async def main() -> list[Result]:
        async with client_of(api, retries=3) as client:
            return [result async for result in ratelimit.run(bodies(1), client, limiter)]

    results = clock.run(main)
    family = limiter.statistics().families["*"]

    assert [result.ok for result in results] == [True]
    assert len(api.requests) == family.admitted == family.ended == 3


def test_a_request_that_cannot_be_sent_costs_nothing(loop_clock: LoopClock) -> None:
    """A body that is no JSON fails on its way out: what it had taken from the limits
    comes back.
    """
    clock = loop_clock()
    limiter = RateLimiter(rpm=100, arrival_slack=0, clock=clock)
    broken = Request("broken", "chat.completions", next(bodies(1)) | {"metadata": object()})

    async def main() -> list[Result]:
        async with client_of(Api()) as client:
            return [result async for result in ratelimit.run([broken], client, limiter)]

    (result,) = clock.run(main)
    family = limiter.statistics().families["*"]

    assert result.reason.startswith("TypeError: ")
    assert (family.admitted, family.in_flight, family.levels["requests/60s"]) == (1, 0, 100)


@pytest.mark.parametrize(
    "client",
    [OpenAI(api_key="none"), httpx2.AsyncClient(), None],
    ids=lambda client: type(client).__name__,
)
def test_another_client_is_told_at_once(client: Any) -> None:
    """A sync client would block the event loop, a bare one knows no endpoints: said
    when called, not when iterated.
    """
    with pytest.raises(InvalidArgument, match="AsyncOpenAI"):
        ratelimit.run([], client, RateLimiter())


@pytest.mark.parametrize(
    ("requests", "options"),
    [("text", {}), (5, {}), ([], {"concurrency": 0}), ([], {"concurrency": True})],
)
def test_unusable_arguments_are_told_at_once(requests: Any, options: dict[str, Any]) -> None:
    """A mistake is refused where it is made."""
    with pytest.raises(InvalidArgument):
        ratelimit.run(requests, AsyncOpenAI(api_key="none"), RateLimiter(), **options)
