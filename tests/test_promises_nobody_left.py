"""The second promise: no lost wake-up, no waiter left behind, no lease leaked.

A waiter that leaves the queue costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, RateLimiter, WaitTimeout
from ratelimit.testing.clocks import TrioClock

if TYPE_CHECKING:
    from tests.conftest import LoopClock, Player

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

CALL = st.fixed_dictionaries(
    {
        "at": st.sampled_from([0.0, 0.0, 1.0, 5.0]) | st.floats(0, 30, allow_subnormal=False),
        "tokens": st.sampled_from([0.0, 1.0, 60.0, 100.0]),
        "patience": st.sampled_from([0.0, 0.0, 3.0, 20.0]),
        "timeout": st.sampled_from([None, None, 0.0, 5.0, 30.0]),
        "cancel": st.sampled_from([None, None, 0.0, 2.5, 11.0]),
        "hold": st.sampled_from([0.0, 0.5, 4.0, 25.0]),
        "end": st.sampled_from(["settle", "close", "cancel", "unsent", "error", "drop"]),
        "used": st.sampled_from([0.0, 10.0, 350.0]),
    }
)
SCRIPT = st.lists(CALL, min_size=1, max_size=14)
LIMITS = Limits(Limit("tokens", 100, 10), Limit("requests", 6, 10))


@pytest.mark.parametrize("concurrency", [None, 1, 3])
@settings(max_examples=40)
@given(script=SCRIPT)
def test_every_call_ends_and_nothing_stays_behind(
    player: Player, concurrency: int | None, script: Any
) -> None:
    """Each call is admitted, cancelled or timed out; in the end nothing is left."""
    play = player(script, limits=LIMITS, concurrency=concurrency)

    family = play.limiter.statistics().families["*"]
    assert {call.outcome for call in play.calls} <= {"admitted", "cancelled", "timeout"}
    assert (family.waiting, family.in_flight, family.next_in) == (0, 0, None)
    assert family.admitted == family.ended == len(play.admitted)


@settings(max_examples=40)
@given(script=SCRIPT)
def test_never_more_in_flight_than_allowed(player: Player, script: Any) -> None:
    """With a cap of two no third call is in flight, and a free slot is used at once."""
    script = [
        call | {"timeout": None, "cancel": None, "end": "close", "tokens": 1.0, "patience": 0.0}
        for call in script
    ]
    play = player(script, concurrency=2)

    flights = [(call.admitted or 0.0, call.settled or 0.0) for call in play.calls]
    for begun, _ in flights:
        assert sum(other <= begun < end for other, end in flights) <= 2
    free = sorted({0.0, *(call.arrived for call in play.calls), *(end for _, end in flights)})
    assert all(
        any(begun == pytest.approx(moment, abs=1e-5) for moment in free) for begun, _ in flights
    )


@settings(max_examples=40)
@given(script=SCRIPT)
def test_a_timeout_comes_in_time_and_costs_nothing(player: Player, script: Any) -> None:
    """It is raised at the deadline at the latest; only admitted calls are debited.

    No call is admitted after its deadline.
    """
    play = player([call | {"end": "close"} for call in script], limits=LIMITS)

    for call in play.calls:
        if call.outcome == "timeout":
            bounds = [
                bound
                for bound in (call.call.get("timeout"), call.call.get("cancel"))
                if bound is not None
            ]
            assert (call.gone or 0.0) - call.arrived <= max(bounds) + 1e-5
        elif call.outcome == "admitted" and call.call.get("timeout") is not None:
            assert (call.admitted or 0.0) - call.arrived <= (call.call["timeout"] or 0.0) + 1e-5
    assert sum(event.tokens for event in play.log) == sum(call.tokens for call in play.admitted)


def test_cancelled_heads_pass_the_turn_on(loop_clock: LoopClock) -> None:
    """When head after head is cancelled, the next one goes as soon as the bucket
    allows.
    """
    clock = loop_clock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)
    admitted: list[float] = []

    async def doomed(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await limiter.acquire(tokens=100)
            raise AssertionError("admitted too early")

    async def survivor() -> None:
        await limiter.acquire(tokens=5)
        admitted.append(clock.now())

    async def main() -> None:
        await limiter.acquire(tokens=100)
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(doomed, 1 + number * 0.1)
                await anyio.lowlevel.checkpoint()
            group.start_soon(survivor)

    clock.run(main)
    assert admitted == [pytest.approx(2.9, abs=1e-5)]
    assert limiter.statistics().families["*"].levels["tokens/10s"] == pytest.approx(24, abs=1e-3)


def test_a_refund_lets_the_head_go(player: Player) -> None:
    """A head that would wait for long goes at the moment of another call's refund."""
    play = player(
        [
            {"at": 0, "tokens": 100, "hold": 2, "end": "settle", "used": 10},
            {"at": 0.5, "tokens": 80},
            {"at": 0.6, "tokens": 10},
        ],
        limits=Limits(Limit("tokens", 100, 100)),
    )

    assert [call.admitted for call in play.calls] == [
        0,
        pytest.approx(2, abs=1e-5),
        pytest.approx(2, abs=1e-5),
    ]


def test_a_late_debit_delays_the_head(player: Player) -> None:
    """A head waits longer where another call used more than it reserved."""
    play = player(
        [
            {"at": 0, "tokens": 100, "hold": 5, "end": "settle", "used": 200},
            {"at": 1, "tokens": 80},
        ],
        limits=Limits(Limit("tokens", 100, 10)),
    )

    assert play.calls[1].admitted == pytest.approx(18, abs=1e-5)


def test_a_wait_that_is_certainly_too_long_is_refused_at_once(player: Player) -> None:
    """Where no call gives anything back, a timeout below the wait raises without
    waiting.
    """
    play = player(
        [
            {"at": 0, "tokens": 100},
            {"at": 1, "tokens": 80},
            {"at": 2, "tokens": 50, "timeout": 9.9},
            {"at": 3, "tokens": 50, "timeout": 10.1},
        ],
        limits=Limits(Limit("tokens", 100, 10)),
        accounting="never_refund",
    )

    assert [call.outcome for call in play.calls] == ["admitted", "admitted", "timeout", "admitted"]
    assert play.calls[2].gone == pytest.approx(2, abs=1e-5)
    assert play.calls[3].admitted == pytest.approx(13, abs=1e-5)


def test_a_wait_that_a_refund_may_shorten_is_not_refused_before_its_deadline(
    player: Player,
) -> None:
    """Waiters in front and calls in flight may give back: then only time decides."""
    play = player(
        [
            {"at": 0, "tokens": 100, "hold": 4, "end": "settle", "used": 0},
            {"at": 1, "tokens": 80, "hold": 1, "end": "settle", "used": 10},
            {"at": 2, "tokens": 50, "timeout": 4.0},
            {"at": 3, "tokens": 100, "timeout": 1.5},
        ],
        limits=Limits(Limit("tokens", 100, 100)),
    )

    assert [call.outcome for call in play.calls] == ["admitted"] * 3 + ["timeout"]
    assert play.calls[2].admitted == pytest.approx(5, abs=1e-4)
    assert play.calls[3].gone == pytest.approx(4.5, abs=1e-4)


def test_no_call_is_admitted_after_its_deadline(loop_clock: LoopClock) -> None:
    """Also where the event loop was blocked beyond it and there is capacity by then."""
    clock = loop_clock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)
    outcomes: list[str] = []

    async def late() -> None:
        try:
            await limiter.acquire(tokens=100, timeout=4)
        except WaitTimeout:
            outcomes.append("timeout")
        else:
            outcomes.append("admitted")

    async def main() -> None:
        lease = await limiter.acquire(tokens=100)
        async with anyio.create_task_group() as group:
            group.start_soon(late)
            await anyio.sleep(3.5)
            lease.settle(tokens=0)  # wakes the head, whose task runs after this one
            (clock.trio if isinstance(clock, TrioClock) else clock).jump(2.0)

    clock.run(main)
    assert outcomes == ["timeout"]
    assert limiter.statistics().families["*"].admitted == 1


def test_the_predicted_wait_of_an_oversize_call_is_the_real_one(player: Player) -> None:
    """A call above the burst goes when the bucket is full; a timeout just above that
    does not raise.
    """
    play = player(
        [
            {"at": 0, "tokens": 10},
            {"at": 0.1, "tokens": 90, "timeout": 1.5},
            {"at": 1, "tokens": 90, "timeout": 10.5},
        ],
        limits=Limits(Limit("tokens", 100, 10, burst=10)),
    )

    assert [call.outcome for call in play.calls] == ["admitted"] * 3
    assert play.calls[1].admitted == pytest.approx(1, abs=1e-5)
    assert play.calls[2].admitted == pytest.approx(10, abs=1e-5)


def test_the_predicted_wait_is_in_the_error(loop_clock: LoopClock) -> None:
    """`WaitTimeout.retry_after` is the wait in seconds, and nothing was taken."""
    clock = loop_clock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)

    async def main() -> float | None:
        await limiter.acquire(tokens=100)
        with pytest.raises(WaitTimeout) as told:
            await limiter.acquire(tokens=50, timeout=3)
        return told.value.retry_after

    assert clock.run(main) == pytest.approx(5)
    assert clock.now() == 0
    assert limiter.statistics().families["*"].admitted == 1


def test_a_late_error_tells_what_is_left_of_the_wait(loop_clock: LoopClock) -> None:
    """Also where a call in flight may give back, so that nothing was sure before."""
    clock = loop_clock()
    limiter = RateLimiter(limits=Limits(Limit("tokens", 100, 10)), arrival_slack=0, clock=clock)

    async def main() -> float | None:
        flying = await limiter.acquire(tokens=100)
        with pytest.raises(WaitTimeout, match=r"2\.0 s at the earliest") as told:
            await limiter.acquire(tokens=50, timeout=3)
        flying.close()
        return told.value.retry_after

    assert clock.run(main) == pytest.approx(2)
