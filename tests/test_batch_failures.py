"""What a failure means for the run of `ratelimit.run`: one result, an end,
or a wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from openai import (
    APIConnectionError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
)

import ratelimit
from ratelimit import LimiterError, RateLimiter
from ratelimit.batch import Result
from ratelimit.batch.failures import FEW, FEW_REFUSED_BODIES, MANY_ALIKE
from ratelimit.batch.running import FIRST_SLOTS, Batch
from ratelimit.testing.clocks import TrioClock, VirtualClock
from tests.batch_api import ANSWER, Api, bad, bodies, client_of, good, play

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]

pytestmark = pytest.mark.usefixtures("vocabulary")

MANY = 2_000
SECONDS = 0.5
OUT_OF_CREDIT = "You exceeded your current quota, please check your plan and billing details."


class Flaky(Api):
    """A server that is away from one moment of the loop's time to another.

    The first moment comes with the `first`-th request.
    """

    def __init__(self, first: int, seconds: float, reply: Callable[[], httpx2.Response]) -> None:
        super().__init__(SECONDS)
        self.first = first
        self.away_for = seconds
        self.away: Callable[[], httpx2.Response] = reply
        self.since: float | None = None
        self.refused = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        now = anyio.current_time()
        if self.since is None and len(self.requests) >= self.first:
            self.since = now
        if self.since is not None and now < self.since + self.away_for:
            self.refused += 1
            return self.away()

        return await super().handle_async_request(request)


def unreachable() -> httpx2.Response:
    """Nothing listens."""
    raise httpx2.ConnectError("connection refused")


def gateway() -> httpx2.Response:
    """A proxy stands before a server that is away."""
    return bad(502, "bad_gateway")


def ended_by(
    loop_clock: LoopClock, api: Api, requests: Any, error: type[Exception], **options: Any
) -> list[Result]:
    """Run until the error; return the results that came before."""
    clock = loop_clock()
    results: list[Result] = []

    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        async with client_of(api) as client:
            async for result in ratelimit.run(requests, client, limiter, **options):
                results.append(result)  # noqa: PERF401  # what came before the error is kept

    with pytest.raises(error):
        clock.run(main)
    return results


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (bad(404, "model_not_found"), NotFoundError),
        (bad(404, "not_found"), NotFoundError),
        (bad(403, "unsupported_country_region_territory"), PermissionDeniedError),
        (bad(500, "server_error"), InternalServerError),
        (bad(503, "loading"), InternalServerError),
        (httpx2.Response(200, text="<html>Welcome</html>"), LimiterError),
        (httpx2.Response(200, json={"error": {"code": 500, "message": "no"}}), LimiterError),
    ],
    ids=["model", "path", "access", "500", "503", "page", "error in a 200"],
)
def test_what_every_request_meets_ends_the_run_after_a_few(
    loop_clock: LoopClock, reply: httpx2.Response, error: type[Exception]
) -> None:
    """A typo in the model or the address does not burn a whole file."""
    api = Api(
        SECONDS,
        lambda _: httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content),
    )
    results = ended_by(loop_clock, api, bodies(MANY), error)

    assert FEW <= len(api.requests) < FEW + FIRST_SLOTS
    assert not any(result.ok for result in results)


def test_a_body_that_no_request_should_have_ends_the_run_later(loop_clock: LoopClock) -> None:
    """A parameter that the server does not take stands in every line; its failures stay
    results, so that the next run goes on behind them.
    """
    api = Api(SECONDS, lambda _: bad(400, "unsupported_parameter"))
    results = ended_by(loop_clock, api, bodies(MANY), BadRequestError, concurrency=4)

    assert FEW_REFUSED_BODIES <= len(api.requests) < FEW_REFUSED_BODIES + 8
    assert len(results) == len(api.requests)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_failures_between_successes_are_results(loop_clock: LoopClock, status: int) -> None:
    """Every second request fails for reasons of its own, as many alike as would end a
    run without answers between; the rest have theirs.
    """
    failing = MANY_ALIKE + 4

    def reply(number: int) -> httpx2.Response:
        return bad(status, "own_fault") if number % 2 else good(number)

    results = play(loop_clock, Api(SECONDS, reply), bodies(2 * failing), concurrency=4)

    assert sum(result.ok for result in results) == failing
    assert len(results) == 2 * failing


def test_a_misspelled_model_among_good_ones_is_found(loop_clock: LoopClock) -> None:
    """Successes of one model prove nothing about the name of another."""

    def mixed() -> Iterator[dict[str, Any]]:
        for number, body in enumerate(bodies(MANY)):
            yield body | {"model": "gpt-4oo"} if number % 2 else body

    class Names(Api):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = await super().handle_async_request(request)
            return bad(404, "model_not_found") if b"gpt-4oo" in request.content else answer

    api = Names(SECONDS)
    results = ended_by(loop_clock, api, mixed(), NotFoundError, concurrency=4)

    assert len(api.requests) < 2 * FEW + 12
    assert any(result.ok for result in results)


@pytest.mark.parametrize("away", [unreachable, gateway])
def test_a_server_that_comes_back_is_waited_for(
    loop_clock: LoopClock, away: Callable[[], httpx2.Response]
) -> None:
    """A restart in the middle costs its time and, at most, the few failures that show
    that a gateway's errors are no single request's.
    """
    api = Flaky(40, 120, away)
    results = play(loop_clock, api, bodies(80), concurrency=8)
    failed = [result for result in results if not result.ok]

    assert len(results) == 80
    assert len(failed) < (1 if away is unreachable else FEW + 8)
    assert api.times[-1] - (api.since or 0.0) == pytest.approx(120 + 15, abs=20)


def test_a_run_of_one_slot_waits_as_well(loop_clock: LoopClock) -> None:
    """The only request in flight is the one that looks whether the server is back."""
    results = play(loop_clock, Flaky(3, 60, unreachable), bodies(10), concurrency=1)

    assert [result.ok for result in results] == [True] * 10


def test_a_server_that_stays_away_ends_the_run(loop_clock: LoopClock) -> None:
    """The wait has a bound: ten minutes, or what the caller says."""
    for patience, seconds in ((None, 600.0), (30.0, 30.0)):
        api, clock = Flaky(10, 1e6, unreachable), loop_clock()
        results: list[Result] = []

        async def main(
            api: Api = api,
            clock: Any = clock,
            patience: float | None = patience,
            results: list[Result] = results,
        ) -> None:
            async with client_of(api) as client:
                async for result in ratelimit.run(
                    bodies(MANY), client, RateLimiter(clock=clock), patience=patience
                ):
                    results.append(result)  # noqa: PERF401  # kept

        with pytest.raises(APIConnectionError):
            clock.run(main)

        assert clock.now() - (api.since or 0.0) == pytest.approx(seconds, abs=5)
        assert all(result.ok for result in results)


def test_an_address_that_never_answered_ends_the_run_at_once(loop_clock: LoopClock) -> None:
    """Before the first answer the address is more likely wrong than the server away;
    a user with better knowledge gives a patience.
    """
    clock, api = loop_clock(), Flaky(0, 20, unreachable)

    async def main(patience: float | None) -> list[Result]:
        async with client_of(api) as client:
            requests = bodies(3)
            limiter = RateLimiter(clock=clock)
            return [
                result
                async for result in ratelimit.run(requests, client, limiter, patience=patience)
            ]

    with pytest.raises(APIConnectionError):
        clock.run(main, None)
    assert api.refused <= 3
    api.since = None
    assert len(clock.run(main, 60.0)) == 3


def test_a_request_that_breaks_its_server_holds_up_nothing_else(loop_clock: LoopClock) -> None:
    """The requests take turns in looking whether the server is back."""

    class Poisoned(Flaky):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if b"Say 41." in request.content:
                return gateway()
            return await super().handle_async_request(request)

    results = play(loop_clock, Poisoned(40, 30, gateway), bodies(80), concurrency=8)

    assert len(results) == 80
    assert sum(result.ok for result in results) > 80 - FEW - 8


def test_stopping_ends_the_wait_for_a_server(loop_clock: LoopClock) -> None:
    """Ctrl-C in an outage does not wait for its end."""
    clock, api = loop_clock(), Flaky(5, 1e6, unreachable)

    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        async with (
            client_of(api) as client,
            aclosing(Batch(bodies(50), client, limiter)) as batch,
            anyio.create_task_group() as group,
        ):

            async def stop() -> None:
                await anyio.sleep(30)
                assert batch.outage is not None
                batch.stop()

            group.start_soon(stop)
            results = [result async for result in batch]
        family = limiter.statistics().families["*"]

        assert all(result.ok for result in results)
        assert (family.waiting, family.in_flight) == (0, 0)

    clock.run(main)

    assert clock.now() < 60


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "content_filter", "message": "no"}},
        [{"error": {"code": 400, "message": "no"}}],
        {"object": "error", "message": "no", "code": 400},
        {"error": "no"},
        {"id": "resp_1", "status": "failed", "error": {"code": "image_parse_error"}},
        {"choices": [{"error": {"code": 400, "message": "no"}, "message": {"content": ""}}]},
    ],
    ids=["OpenAI", "Gemini", "vLLM", "text", "Response", "OpenRouter"],
)
def test_an_error_inside_a_success_is_a_failure(loop_clock: LoopClock, body: Any) -> None:
    """HTTP 200 is no answer when its body is an error, in whatever form."""

    def reply(number: int) -> httpx2.Response:
        return httpx2.Response(200, json=body) if number == 1 else good(number)

    results = play(loop_clock, Api(SECONDS, reply), bodies(3), concurrency=1)

    assert [result.ok for result in results] == [True, False, True]
    assert results[1].reason.startswith("HTTP 200")


@pytest.mark.parametrize("error", [None, {}, "", []])
def test_an_empty_error_is_none(loop_clock: LoopClock, error: Any) -> None:
    """Responses carry ``"error": null`` beside their answer."""
    api = Api(SECONDS, lambda _: httpx2.Response(200, json=ANSWER | {"error": error}))

    assert [result.ok for result in play(loop_clock, api, bodies(1))] == [True]


def test_a_refusal_inside_a_success_is_sent_again(loop_clock: LoopClock) -> None:
    """The SDK takes it for an answer, so the run repeats it as often as the
    SDK would.
    """
    refusal = {"error": {"code": "rate_limit_exceeded", "message": "Try again in 1s."}}

    def reply(number: int) -> httpx2.Response:
        return httpx2.Response(200, json=refusal) if number < 2 else good(number)

    api = Api(SECONDS, reply)
    (result,) = play(loop_clock, api, bodies(1), retries=2)

    assert result.ok
    assert len(api.requests) == 3


def test_a_used_up_account_inside_a_success_ends_the_run(loop_clock: LoopClock) -> None:
    """It would befall every further request."""
    spent = {"error": {"code": "insufficient_quota", "message": OUT_OF_CREDIT}}
    api = Api(SECONDS, lambda _: httpx2.Response(200, json=spent))
    results = ended_by(loop_clock, api, bodies(MANY), LimiterError)

    assert len(api.requests) < FIRST_SLOTS
    assert results == []
