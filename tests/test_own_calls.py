"""A task that waits for calls which it has in flight itself is warned once."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anyio
import pytest

from ratelimit import Lease, LimiterWarning, RateLimiter, WaitTimeout
from ratelimit.testing import ThreadClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock

OWN = "calls that this same task has in flight"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_task_that_holds_every_slot_is_warned_and_goes_on(
    loop_clock: LoopClock, concurrency: int
) -> None:
    """Nobody knows who ends calls by hand: another task does, so it still waits."""
    clock = loop_clock()
    limiter = RateLimiter(rpm=6_000, concurrency=concurrency, clock=clock)

    async def main() -> None:
        held = [await limiter.acquire(tokens=1) for _ in range(concurrency)]

        async def end() -> None:
            await anyio.sleep(100)
            held[0].settle(tokens=1)
            await anyio.sleep(100)
            held[-1].settle(tokens=1)

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            with pytest.warns(LimiterWarning, match=OWN) as seen:
                held[0] = await limiter.acquire(tokens=1)
            assert [warning.filename for warning in seen] == [__file__]
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # once a limiter is enough
                held.append(await limiter.acquire(tokens=1))
        for lease in held:
            lease.close()

    clock.run(main)
    assert limiter.statistics().in_flight == 0


def test_a_thread_that_holds_every_slot_is_warned() -> None:
    """The same without an event loop, where another thread ends the call."""
    clock = ThreadClock()
    limiter = RateLimiter(rpm=6_000, concurrency=1, clock=clock)
    seen: list[warnings.WarningMessage] = []
    leases: list[Lease] = []

    def wait() -> None:
        leases.append(limiter.acquire_sync(tokens=1))
        with warnings.catch_warnings(record=True, category=LimiterWarning) as caught:
            warnings.simplefilter("always")
            limiter.acquire_sync(tokens=1).close()
        seen.extend(caught)

    def end() -> None:
        clock.sleep(100)
        leases[0].close()

    clock.run(wait, end)
    assert [OWN in str(one.message) and one.filename == __file__ for one in seen] == [True]


def test_whoever_waits_for_the_calls_of_others_is_not_warned(loop_clock: LoopClock) -> None:
    """Nor who bounds the wait, nor who hands calls over: these go on by themselves."""
    clock = loop_clock()
    limiter = RateLimiter(rpm=6_000, concurrency=2, clock=clock)

    async def call(seconds: float) -> None:
        async with limiter.reserve(tokens=1):
            await anyio.sleep(seconds)

    async def end_later(lease: Lease) -> None:
        await anyio.sleep(30)
        lease.close()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call, 2)
            lease = await limiter.acquire(tokens=1)
            await anyio.sleep(1)
            handed = await limiter.acquire(tokens=1)  # waits for the other task's
            group.start_soon(end_later, handed)
            other = await limiter.acquire(tokens=1)
            with pytest.raises(WaitTimeout):
                await limiter.acquire(tokens=1, timeout=3)
            lease.close()
            other.close()

    clock.run(main)
    assert limiter.statistics().in_flight == 0
