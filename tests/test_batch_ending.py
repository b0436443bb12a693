"""How a run of `ratelimit.run` ends: by an error that befalls all, by being closed,
cancelled, forgotten or stopped.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from openai import AuthenticationError, RateLimitError

import ratelimit
from ratelimit import RateLimiter
from ratelimit.batch import Result
from ratelimit.batch.asking import Asker
from ratelimit.batch.running import Batch
from ratelimit.testing.clocks import TrioClock, VirtualClock

if TYPE_CHECKING:
    LoopClock = type[VirtualClock | TrioClock]
from tests.batch_api import Api, Reply, bad, bodies, client_of, good

pytestmark = pytest.mark.usefixtures("vocabulary")


def refused(_: int) -> httpx2.Response:
    """The key is refused."""
    return bad(401, "invalid_api_key")


def broke(_: int) -> httpx2.Response:
    """The account is used up."""
    return bad(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    )


@pytest.mark.parametrize(
    ("reply", "error"),
    [(refused, AuthenticationError), (broke, RateLimitError)],
)
def test_what_would_befall_every_request_ends_the_run(
    loop_clock: LoopClock, let_go: list[int], reply: Reply, error: type[Exception]
) -> None:
    """A refused key is not tried a thousand times; what was sent before is still
    answered and handed over, then the error is raised.
    """
    api = Api(reply=lambda number: reply(number) if number == 12 else good(number))
    clock = loop_clock()
    results: list[Result] = []

    async def main() -> None:
        async with client_of(api) as client:
            async for result in ratelimit.run(
                bodies(1_000), client, RateLimiter(clock=clock), concurrency=10
            ):
                results.append(result)  # noqa: PERF401  # what came before the error is kept

    with pytest.raises(error):
        clock.run(main)

    assert len(results) == len(api.requests) - 1
    assert 13 <= len(api.requests) <= let_go[0] < 1_000
    assert all(result.ok for result in results)


def test_an_error_of_the_requests_is_raised_after_what_was_sent(loop_clock: LoopClock) -> None:
    """The caller's own source may break: its error is raised after every result that
    was paid for.
    """

    def source() -> Iterator[Any]:
        yield from bodies(3)
        raise ZeroDivisionError

    clock, results = loop_clock(), []

    async def main() -> None:
        async with client_of(Api()) as client:
            async for result in ratelimit.run(source(), client, RateLimiter(clock=clock)):
                results.append(result)  # noqa: PERF401

    with pytest.raises(ZeroDivisionError):
        clock.run(main)

    assert len(results) == 3


def living() -> int:
    """How many tasks the running loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests the limits had let go at each moment at which a run was asked
    to end, softly or at once.
    """
    seen: list[int] = []
    for kind, name in ((Asker, "stop"), (Batch, "cancel")):
        real = getattr(kind, name)

        def noting(run: Any, real: Callable[[Any], None] = real) -> None:
            seen.append(run._limiter.statistics().families["*"].admitted)
            real(run)

        monkeypatch.setattr(kind, name, noting)
    return seen


def left_behind(api: Api, limiter: RateLimiter, before: int) -> None:
    """Fail if anything is."""
    family = limiter.statistics().families["*"]

    assert (family.waiting, family.in_flight) == (0, 0)
    assert api.running == 0
    assert living() == before


def test_closing_early_leaves_nothing_behind(loop_clock: LoopClock, let_go: list[int]) -> None:
    """A loop that has seen enough: no task, no call, no lease, no place in the line
    stays, and nothing more is sent.
    """
    api, clock = Api(), loop_clock()

    async def main() -> None:
        limiter = RateLimiter(rpm=5, clock=clock)
        async with client_of(api) as client:
            before = living()
            async with aclosing(ratelimit.run(bodies(100), client, limiter)) as results:
                async for _ in results:
                    break
            left_behind(api, limiter, before)
            never = ratelimit.run(bodies(100), client, limiter)
            await never.aclose()
            left_behind(api, limiter, before)

    clock.run(main)

    assert 1 <= len(api.requests) <= let_go[0] < 100


def test_a_forgotten_generator_leaves_nothing_behind() -> None:
    """On asyncio not even `aclose` is needed: the loop closes a generator that is
    collected.
    """
    api, clock = Api(), VirtualClock()

    async def main() -> None:
        limiter = RateLimiter(rpm=5, clock=clock)
        async with client_of(api) as client:
            before = living()
            async for _ in ratelimit.run(bodies(100), client, limiter):
                break
            gc.collect()
            for _ in range(20):  # the loop closes it in a task of its own
                await anyio.lowlevel.checkpoint()
            left_behind(api, limiter, before)

    clock.run(main)


def test_cancelling_who_iterates_leaves_nothing_behind(loop_clock: LoopClock) -> None:
    """A timeout around the loop ends the run with it."""
    api, clock = Api(), loop_clock()

    async def main() -> None:
        limiter = RateLimiter(rpm=5, clock=clock)
        async with client_of(api) as client:
            before = living()
            with anyio.move_on_after(2.5):
                async with aclosing(ratelimit.run(bodies(100), client, limiter)) as results:
                    async for _ in results:
                        pass
            assert clock.now() == pytest.approx(2.5, abs=0.1)
            left_behind(api, limiter, before)

    clock.run(main)


def test_stopping_finishes_what_was_sent(loop_clock: LoopClock, let_go: list[int]) -> None:
    """A stop drops calls that wait for the limits, and waits for the answers that are
    paid already.
    """
    api, clock = Api(seconds=20), loop_clock()
    results: list[Result] = []
    in_flight = waiting = 0

    async def main() -> None:
        nonlocal in_flight, waiting
        # the eleventh would have to wait for hours
        limiter = RateLimiter(rpm=8, rpd=10, clock=clock)
        async with client_of(api) as client:
            batch = Batch(bodies(100), client, limiter)
            async with aclosing(batch):
                async for result in batch:
                    results.append(result)
                    # sent as soon as the first was answered; until its answer the
                    # refill has let others go
                    if len(results) == 2:
                        family = limiter.statistics().families["*"]
                        in_flight, waiting = family.in_flight, family.waiting
                        batch.stop()

    clock.run(main)

    assert in_flight > 0
    assert waiting > 0
    assert all(result.ok for result in results)
    assert len(results) == len(api.requests) <= let_go[0]
    assert clock.now() == pytest.approx(api.times[-1] + api.seconds)


@pytest.mark.parametrize("end", [Batch.stop, Batch.cancel], ids=["softly", "at once"])
def test_what_was_just_being_let_go_is_not_sent_after_the_end(
    loop_clock: LoopClock, end: Callable[[Batch], None]
) -> None:
    """The next in line may be awake already when the run ends, out of reach of a
    cancellation: it goes home, and its share comes back.
    """
    api, clock = Api(), loop_clock()

    async def main() -> None:
        limiter = RateLimiter(rpm=1, arrival_slack=0, clock=clock)
        held = await limiter.acquire()
        async with (
            client_of(api) as client,
            aclosing(Batch(bodies(10), client, limiter)) as batch,
            anyio.create_task_group() as group,
        ):
            group.start_soon(anext, batch, None)
            await anyio.sleep(1)  # now all ten wait
            held.cancel()
            end(batch)
        family = limiter.statistics().families["*"]
        assert (family.waiting, family.in_flight, family.levels["requests/60s"]) == (0, 0, 1)

    clock.run(main)

    assert api.requests == []


def test_nothing_is_taken_after_the_end(loop_clock: LoopClock) -> None:
    """A result frees a slot as it is handed over; after a stop the source still holds
    all that comes after.
    """
    clock = loop_clock()
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for body in bodies(10):
            taken += 1
            yield body

    async def main() -> int:
        async with (
            client_of(Api()) as client,
            aclosing(Batch(source(), client, RateLimiter(clock=clock), concurrency=1)) as batch,
        ):
            async for _ in batch:
                if not batch._asker.stopped:
                    before = taken
                    batch.stop()
        return before

    assert clock.run(main) == taken < 10
