"""Every unusable argument has one clear error or one defined behaviour.

Owns the four doors, and what is handed in at them. Must never wait in real time.
"""

from __future__ import annotations

import asyncio
import warnings
from contextvars import copy_context
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import (
    InvalidArgument,
    Limit,
    Limits,
    RateLimiter,
    RequestTooLarge,
    WaitTimeout,
    WouldBlock,
)
from ratelimit.testing import ThreadClock, VirtualClock
from tests.payments import waiter

HUGE = 10**5_000


def limiter(**options: Any) -> RateLimiter:
    """1,000 tokens and 10 requests a minute, on a clock that stands still."""
    options.setdefault("limits", Limits(Limit("requests", 10), Limit("tokens", 1_000)))
    return RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)


def untouched(of: RateLimiter) -> bool:
    """Nothing was taken, nobody waits, nothing is in flight."""
    family = of.statistics().families["*"]
    return (*family.levels.values(), family.in_flight, family.waiting, family.admitted) == (
        10,
        1_000,
        0,
        0,
        0,
    )


DOORS: list[Any] = [
    pytest.param(
        lambda held, *args, **kwargs: held.acquire_nowait(*args, **kwargs), id="acquire_nowait"
    ),
    pytest.param(
        lambda held, *args, **kwargs: held.acquire_sync(*args, **kwargs), id="acquire_sync"
    ),
    pytest.param(
        lambda held, *args, **kwargs: VirtualClock().run(lambda: held.acquire(*args, **kwargs)),
        id="acquire",
    ),
    pytest.param(
        lambda held, *args, **kwargs: copy_context().run(held.reserve(*args, **kwargs).__enter__),
        id="reserve",
    ),
]
every_door = pytest.mark.parametrize("door", DOORS)


@pytest.mark.parametrize(
    "options",
    [
        *({"rpm": value} for value in (0, -1, nan, inf, True, "five", 1e16)),
        {"tpm": 0},
        {"rpd": nan},
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"limits": {}},
        {"limits": 5},
        {"limits": "500 rpm"},
        {"limits": {"gpt-4o": 500}},
        {"limits": {5: Limits(rpm=1)}},
        {"limits": {"gpt-4o": Limits(rpm=1)}, "rpm": 5},
        {"limits": Limits(rpm=1), "rpm": 5},
        *({"burst_share": value} for value in (0, 2, -0.5, nan, True, "all")),
        *({"arrival_slack": value} for value in (-1, nan, inf, "2", None)),
        *({"accounting": value} for value in ("", "repay", None, 5)),
        *({"output": value} for value in ("min", -1, nan, 1.5, True)),
        *({"priorities": value} for value in ({"x": -1}, {"x": nan}, {"x": "soon"}, 5, {5: 1})),
        {"clock": 5},
        pytest.param({"clock": object()}, id="{'clock': object()}"),
    ],
    ids=str,
)
def test_a_limiter_says_what_is_wrong_when_it_is_made(options: Any) -> None:
    """Not at the first call."""
    with pytest.raises(InvalidArgument):
        RateLimiter(**options)


@every_door
@pytest.mark.parametrize(
    "tokens", [-1, nan, inf, 1e16, pytest.param(HUGE, id="huge"), True, "5", "", [], {}, b"1", 1j]
)
def test_unusable_costs_are_refused_at_every_door(door: Any, tokens: Any) -> None:
    """Negative, NaN, infinite, huge and foreign amounts of tokens take nothing."""
    held = limiter()
    with pytest.raises(InvalidArgument, match="tokens="):
        door(held, tokens=tokens)

    assert untouched(held)


@every_door
@pytest.mark.parametrize(
    "cost", [{"tokens": -1}, {"tokens": None}, {"tokens": nan}, 5, "tokens", [1], {5: 1}]
)
def test_a_cost_is_a_mapping_of_amounts(door: Any, cost: Any) -> None:
    """Anything else is refused."""
    held = limiter()
    with pytest.raises(InvalidArgument, match="cost"):
        door(held, cost=cost)

    assert untouched(held)


@every_door
@pytest.mark.parametrize(
    "request_",
    [5, "hi", [], [("model", "x")], object(), b"{}", nan],
    ids=lambda value: type(value).__name__,
)
def test_a_request_is_a_mapping(door: Any, request_: Any) -> None:
    """The error says at once what it should be."""
    held = limiter()
    with pytest.raises(InvalidArgument, match="a request is a mapping"):
        door(held, request_)

    assert untouched(held)


@every_door
@pytest.mark.parametrize("timeout", [-1, nan, inf, "soon", True, 1e300])
def test_a_timeout_is_a_number_of_seconds(door: Any, timeout: Any) -> None:
    """None waits without end; anything else that is no amount is refused."""
    held = limiter()
    with pytest.raises(InvalidArgument, match="timeout="):
        door(held, tokens=1, timeout=timeout)

    assert untouched(held)


@every_door
@pytest.mark.parametrize("priority", ["urgent", ""])
def test_an_unknown_priority_is_answered_by_the_known_names(door: Any, priority: str) -> None:
    """The error lists every name that would do."""
    held = limiter()
    with pytest.raises(
        InvalidArgument, match=rf"^priority= is .*interactive, normal, batch, .*not {priority!r}"
    ):
        door(held, tokens=1, priority=priority)

    assert untouched(held)


@every_door
@pytest.mark.parametrize("priority", [None, -1, nan, True, b"batch"])
def test_a_priority_that_is_no_name_is_a_patience(door: Any, priority: Any) -> None:
    """Anything but a name has to be an amount of seconds."""
    held = limiter()
    with pytest.raises(InvalidArgument, match=r"^priority=, the patience in seconds, "):
        door(held, tokens=1, priority=priority)

    assert untouched(held)


@every_door
@pytest.mark.parametrize("busy", [False, True])
def test_a_cost_above_the_limit_is_refused_at_once_also_behind_waiters(
    door: Any, busy: bool
) -> None:
    """It can never go, so it does not wait; the message says what to do."""
    held = limiter()
    one = waiter(tokens=500)
    if busy:
        held._engine.family("").admission.queue.join(one)
    with pytest.raises(
        RequestTooLarge,
        match=r"needs 1,001 tokens, the limit is 1,000 tokens/min: it can never be admitted",
    ):
        door(held, tokens=1_001)
    with pytest.raises(RequestTooLarge, match="never"):
        door(held, tokens=1_001, timeout=5)
    if busy:
        held._engine.family("").admission.queue.leave(one)
    assert untouched(held)


@every_door
def test_a_cost_of_nothing_passes_and_keeps_its_turn(door: Any) -> None:
    """Zero tokens and zero requests are admitted and counted as a call, and pay
    nothing.
    """
    held = limiter()
    lease = door(held, tokens=0, requests=0)
    family = held.statistics().families["*"]

    assert list(family.levels.values()) == [10, 1_000]
    assert family.in_flight == 1
    lease.settle(tokens=0)

    assert held.statistics().families["*"].in_flight == 0


@every_door
def test_body_and_cost_together_are_a_mistake(door: Any) -> None:
    """Only one of them can count; the model alone names the family."""
    held = limiter()
    with pytest.raises(InvalidArgument, match="not both"):
        door(held, {"model": "gpt-4o"}, tokens=5)
    with pytest.raises(InvalidArgument, match="not both"):
        door(held, tokens=5, messages=[])
    door(held, tokens=5, model="gpt-4o").close()


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = [
    "model",
    "messages",
    "max_tokens",
    "n",
    "tools",
    "input",
    "prompt",
    "stream",
    "stream_options",
    "response_format",
    "best_of",
]


@given(body=st.dictionaries(st.sampled_from(NAMES), ANY, max_size=6))
def test_whatever_a_body_holds_the_call_is_admitted_or_too_large(body: Any) -> None:
    """Estimating never breaks the user's call: messages that are None or a text, counts
    that are texts, anything.
    """
    held = limiter(limits=Limits(Limit("requests", 1_000_000), Limit("tokens", 1e12)))
    try:
        lease = held.acquire_nowait(body)
    except RequestTooLarge:
        return

    assert all(amount >= 0 for amount in lease.cost.values())
    lease.close()


@pytest.mark.parametrize(
    "messages", [None, "hi", 5, [None], [[]], {}, [{"role": None, "content": {"a": 1}}]]
)
def test_messages_that_are_none_or_a_text_are_guessed_at(messages: Any) -> None:
    """Each costs one request and some tokens."""
    held = limiter()
    held.acquire_nowait(model="gpt-4o", messages=messages, max_tokens=10).close()
    requests, tokens = held.statistics().families["*"].levels.values()

    assert requests == 9
    assert 0 < 1_000 - tokens < 300


def test_a_reservation_is_entered_once_at_a_time() -> None:
    """Entered twice, or left without having been entered, it says so; one after the
    other is fine.
    """
    held = limiter()
    reservation = held.reserve(tokens=1)
    with reservation, pytest.raises(InvalidArgument, match="in use"):
        reservation.__enter__()
    with pytest.raises(InvalidArgument, match="without having been entered"):
        reservation.__exit__(None, None, None)
    with reservation:
        pass

    assert held.statistics().families["*"].admitted == held.statistics().families["*"].ended == 2


def test_without_capacity_now_there_is_an_error_that_says_when() -> None:
    """`acquire_nowait` never waits; its error names the seconds, or that others wait or
    are in flight.
    """
    held = limiter(limits=Limits(Limit("tokens", 1_000), concurrency=2))
    first = held.acquire_nowait(tokens=900)
    with pytest.raises(WouldBlock, match=r"try again in 24\.000 s") as caught:
        held.acquire_nowait(tokens=500)
    assert caught.value.retry_after == pytest.approx(24)
    last = held.acquire_nowait(tokens=0)
    with pytest.raises(WouldBlock, match="others wait or are in flight") as full:
        held.acquire_nowait(tokens=0)
    assert full.value.retry_after is None
    first.close()
    last.close()


def test_a_timeout_of_zero_goes_now_or_never() -> None:
    """What fits goes, what would wait raises without waiting."""
    held = limiter()
    held.acquire_sync(tokens=900, timeout=0)
    with pytest.raises(WaitTimeout) as caught:
        held.acquire_sync(tokens=200, timeout=0)
    assert caught.value.retry_after == pytest.approx(6)
    assert held._engine.clock.now() == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_call_without_any_argument_costs_one_request_at_every_door(busy: bool) -> None:
    """Whether it has to wait or not: nothing is known of it, so it pays no tokens."""
    clock = VirtualClock()
    held = RateLimiter(
        limits=Limits(Limit("requests", 10, 10), Limit("tokens", 1_000, 1e9)),
        arrival_slack=0,
        clock=clock,
    )

    async def main() -> None:
        if busy:
            await held.acquire(tokens=0, requests=10)
        await held.acquire()
        async with held.reserve():
            pass

    clock.run(main)

    assert round(held.statistics().families["*"].levels["tokens/1e+09s"]) == 1_000


def test_an_unknown_model_passes_with_one_warning() -> None:
    """Limits by model that do not name a model cannot hold it; one warning says so."""
    held = RateLimiter(limits={"gpt-4o": Limits(rpm=1)}, clock=ThreadClock())
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(6):
            held.acquire_nowait(tokens=1, model="o3").close()

    assert [str(warning.message).partition(":")[0] for warning in given] == [
        "no limit is given for model 'o3'"
    ]


def test_a_limiter_of_a_closed_loop_works_in_the_next_one() -> None:
    """No state is bound to a loop."""
    held = RateLimiter(concurrency=1)

    async def main() -> None:
        async with held.reserve(tokens=1):
            pass

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    asyncio.run(main())

    assert held.statistics().families["*"].ended == 3
