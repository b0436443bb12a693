"""The first promise: in any window of time no more is admitted than the burst and what
the limit refills in it.

The judges share no arithmetic with the limiter: sums over every window, a bucket that
keeps a level, and aiolimiter.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limits, RateLimiter
from ratelimit.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Event, Play, Player

pytestmark = pytest.mark.no_cover  # long simulations, which coverage would make twice as long

TOKENS, PER = 100.0, 10.0
CLOSE = 1e-6
SLACK = 2.0


def scripts(
    *,
    most: float = TOKENS,
    ends: Sequence[str] = ("settle", "close", "cancel", "unsent", "error", "drop"),
) -> st.SearchStrategy[Any]:
    """Scripts of calls of any size, patience, time-out, cancellation and end, that come
    in bursts and alone.
    """
    call = st.fixed_dictionaries(
        {
            "at": st.sampled_from([0.0, 0.0, 1.0, 5.0]) | st.floats(0, 40, allow_subnormal=False),
            "tokens": st.sampled_from([0.0, 1.0, 60.0, most])
            | st.floats(0, most, allow_subnormal=False),
            "patience": st.sampled_from([0.0, 0.0, 3.0, 20.0]),
            "timeout": st.sampled_from([None, None, 0.0, 5.0, 30.0]),
            "cancel": st.sampled_from([None, None, None, 0.0, 2.5, 11.0]),
            "hold": st.sampled_from([0.0, 0.5, 4.0, 25.0]),
            "end": st.sampled_from(ends),
            "used": st.sampled_from([0.0, 10.0, 100.0, 350.0]),
        }
    )
    return st.lists(call, min_size=1, max_size=14)


def limits(burst: float) -> Limits:
    """Tokens and requests per ten seconds."""
    return Limits(Limit("tokens", TOKENS, PER, burst=burst), Limit("requests", 6, PER))


def admitted_too_much(
    log: Sequence[Event], unit: str, burst: float, rate: float
) -> list[tuple[float, float, float]]:
    """All windows from one admission to another in which more came together than may;
    one call alone may exceed a burst.
    """
    found = []
    for first, opening in enumerate(log):
        if not opening.admission:
            continue
        total = 0.0
        for event in log[first:]:
            total += getattr(event, unit)
            room = max(burst, getattr(event, unit)) + rate * (event.time - opening.time)
            if event.admission and getattr(event, unit) and total > room + CLOSE:
                found.append((opening.time, event.time, total))
    return found


class LevelBucket:
    """A bucket as one would write it down first: a level, and when it was looked at."""

    def __init__(self, burst: float, rate: float) -> None:
        self.level = self.burst = burst
        self.rate = rate
        self.seen = 0.0

    def at(self, time: float) -> float:
        self.level = min(self.burst, self.level + (time - self.seen) * self.rate)
        self.seen = time
        return self.level

    def fits(self, amount: float, time: float) -> bool:
        return self.at(time) + CLOSE >= min(amount, self.burst) or not amount

    def pay(self, amount: float, time: float) -> None:
        self.level = min(self.burst, self.at(time) - amount)


def replayed(play: Play, unit: str, burst: float, rate: float) -> LevelBucket:
    """Replay what happened; fail at the first admission that a level does not allow."""
    bucket = LevelBucket(burst, rate)
    for event in play.log:
        amount = getattr(event, unit)
        if event.admission:
            assert bucket.fits(amount, event.time), (
                f"{amount} {unit} at {event.time} with a level of {bucket.level}"
            )
        bucket.pay(amount, event.time)
    return bucket


@pytest.mark.parametrize("burst", [TOKENS, 40.0])
@settings(max_examples=40)
@given(script=scripts())
def test_no_window_admits_more_than_the_burst_and_the_refill(
    player: Player, burst: float, script: Any
) -> None:
    """Whatever arrives, is cancelled, given back or debited late: every window holds,
    for tokens and for requests.
    """
    play = player(script, limits=limits(burst))

    assert not admitted_too_much(play.log, "tokens", burst, TOKENS / PER)
    assert not admitted_too_much(play.log, "requests", 6, 6 / PER)


@settings(max_examples=40)
@given(script=scripts())
def test_a_bucket_with_a_level_agrees_at_every_admission_and_in_the_end(
    player: Player, script: Any
) -> None:
    """A level that is kept beside the limiter allows each admission and ends where the
    limiter's own does: nothing leaked, nothing was free.
    """
    play = player(script, limits=limits(TOKENS))
    if player.kind == "threads":
        # between threads the order of two events at one moment is not known, and a full
        # bucket forgets what is given
        return

    tokens = replayed(play, "tokens", TOKENS, TOKENS / PER)
    requests = replayed(play, "requests", 6, 6 / PER)
    now = play.clock.now()
    levels = play.limiter.statistics().families["*"].levels
    assert levels["tokens/10s"] == pytest.approx(tokens.at(now), abs=1e-4)
    assert levels["requests/10s"] == pytest.approx(requests.at(now), abs=1e-4)


@pytest.mark.parametrize("burst", [TOKENS, 40.0])
@settings(max_examples=40)
@given(script=scripts(ends=["close"]))
def test_each_call_goes_at_the_first_moment_it_fits(
    player: Player, burst: float, script: Any
) -> None:
    """Without refunds every admission is known beforehand: in order of arrival, each as
    soon as both buckets can pay.
    """
    gaps = [
        call | {"at": index * 0.01 + call["at"], "patience": 0.0, "timeout": None, "cancel": None}
        for index, call in enumerate(script)
    ]
    play = player(gaps, limits=limits(burst))

    tokens, requests = LevelBucket(burst, TOKENS / PER), LevelBucket(6, 6 / PER)
    clock = 0.0
    for call in sorted(play.calls, key=lambda call: call.serial):
        clock = max(clock, call.arrived)
        for bucket, amount in ((tokens, call.tokens), (requests, 1)):
            lack = min(amount, bucket.burst) - bucket.at(clock)
            if amount and lack > 0:
                clock += lack / bucket.rate
        assert call.admitted == pytest.approx(clock, abs=1e-4)
        tokens.pay(call.tokens, clock)
        requests.pay(1, clock)


@settings(max_examples=40)
@given(script=scripts(ends=["close"]))
def test_aiolimiter_lets_every_admission_pass(script: Any) -> None:
    """An aiolimiter that sees the admissions at their moments has room for each: the
    judge in other people's words.
    """
    clock = VirtualClock()
    limiter = RateLimiter(limits=limits(TOKENS), arrival_slack=0, clock=clock)
    refused: list[tuple[float, float]] = []

    async def main() -> None:
        tokens, requests = AsyncLimiter(TOKENS, PER), AsyncLimiter(6, PER)

        async def one(call: Any) -> None:
            await asyncio.sleep(call["at"])
            await limiter.acquire(tokens=call["tokens"], priority=call["patience"])
            amount = call["tokens"] * (1 - 1e-9)  # its level is a sum of floats
            if not tokens.has_capacity(amount) or not requests.has_capacity(1 - 1e-9):
                refused.append((clock.now(), amount))
            await tokens.acquire(min(amount, TOKENS))
            await requests.acquire(1 - 1e-9)

        async with asyncio.TaskGroup() as group:
            for call in script:
                group.create_task(one(call))

    clock.run(main)
    assert not refused


@settings(max_examples=40)
@given(script=scripts(most=300.0), delays=st.lists(st.floats(0, SLACK), min_size=14, max_size=14))
def test_a_server_never_refuses_what_arrives_within_the_slack(
    player: Player, script: Any, delays: list[float]
) -> None:
    """Requests that reach the server up to `slack` late, in whatever order, find room
    in a bucket that was full at the start.
    """
    script = [
        call | {"end": "close", "tokens": call["tokens"] / 3, "cancel": None} for call in script
    ]
    play = player(script, limits=limits(TOKENS), arrival_slack=SLACK)
    late = sorted(
        (event.time + delay, event.requests, event.tokens)
        for event, delay in zip(admissions(play), delays, strict=False)
    )

    tokens, requests = LevelBucket(TOKENS, TOKENS / PER), LevelBucket(6, 6 / PER)
    for arrival, request, amount in late:
        assert tokens.fits(amount, arrival)
        assert requests.fits(request, arrival)
        tokens.pay(amount, arrival)
        requests.pay(request, arrival)


def admissions(play: Play) -> list[Event]:
    """Admissions, as they happened."""
    return [event for event in play.log if event.admission]


@settings(max_examples=40)
@given(script=scripts(most=TOKENS))
def test_a_call_above_the_burst_goes_alone_out_of_a_full_bucket(
    player: Player, script: Any
) -> None:
    """Within the limit but above the burst: admitted when the bucket is full, all of it
    paid, nobody else before the debt is refilled.
    """
    play = player([{"at": 0.0, "tokens": 90.0}, *script], limits=limits(30.0))

    oversize = [event for event in play.log if event.admission and event.tokens > 30]
    assert oversize
    if player.kind != "threads":
        replayed(play, "tokens", 30.0, TOKENS / PER)
