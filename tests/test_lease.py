"""What a call holds, and every way in which that ends."""

from __future__ import annotations

import copy
import gc
import pickle
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import (
    InvalidArgument,
    Lease,
    Limit,
    Limits,
    RateLimiter,
    RequestTooLarge,
    WaitTimeout,
)
from ratelimit.testing import ThreadClock, VirtualClock
from tests.interruptions import interruptions

USAGE = {"usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}}
TEXT = (
    "Rate limit reached for gpt-4o in organization o on tokens per min (TPM): Limit "
    "1000, Used {used}, Requested 100. Please try again in 6s."
)


class Refused(Exception):
    """A 429 as an SDK raises it."""

    def __init__(self, message: str = "", headers: Any = None) -> None:
        super().__init__(message)
        self.status_code = 429
        self.body = (
            {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
            if message
            else None
        )
        self.response = type("Response", (), {"status_code": 429, "headers": headers or {}})()


def limiter(**options: Any) -> RateLimiter:
    """1,000 tokens and 10 requests a minute, on a clock that stands still."""
    options.setdefault("limits", Limits(Limit("requests", 10), Limit("tokens", 1_000)))
    return RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)


def left(of: RateLimiter) -> tuple[float, float]:
    """Requests and tokens that are left."""
    levels = of.statistics().families["*"].levels
    return round(levels["requests/60s"], 6), round(levels["tokens/60s"], 6)


def in_flight(of: RateLimiter) -> int:
    """Calls between admission and settlement."""
    return of.statistics().families["*"].in_flight


@pytest.mark.parametrize(
    ("end", "requests", "tokens"),
    [
        (lambda lease: lease.settle(tokens=100), 9, 900),
        (lambda lease: lease.settle(40), 9, 960),
        (lambda lease: lease.settle(USAGE), 9, 960),
        (lambda lease: lease.settle(USAGE["usage"]), 9, 960),
        (lambda lease: lease.settle(tokens=5_000), 9, -4_000),
        (lambda lease: lease.settle(tokens=0), 9, 1_000),
        (lambda lease: lease.settle(tokens=40, requests=0), 10, 960),
        (lambda lease: lease.close(), 9, 900),
        (lambda lease: lease.cancel(), 10, 1_000),
        (lambda lease: lease.fail(ConnectionRefusedError()), 10, 1_000),
        (lambda lease: lease.fail(WaitTimeout("an inner limiter")), 10, 1_000),
        (lambda lease: lease.fail(ValueError()), 9, 900),
        (lambda lease: lease.fail(TimeoutError()), 9, 900),
        (lambda lease: lease.fail(KeyboardInterrupt()), 9, 900),
        (lambda lease: lease.fail(Refused()), pytest.approx(1 - 10 / 60, abs=1e-5), 900),
        (lambda lease: lease.fail(Refused(TEXT.format(used=950))), 9, 50),
        (lambda lease: lease.fail(Refused(TEXT.format(used=1000))), 9, 0),
        (
            lambda lease: lease.fail(
                ExceptionGroup("", [ConnectionRefusedError(), ConnectionRefusedError()])
            ),
            10,
            1_000,
        ),
    ],
)
def test_each_end_leaves_what_is_known(end: Any, requests: float, tokens: float) -> None:
    """Usage replaces the reserve both ways, nothing sent gives all back, a 429 shows
    the level or leaves one request after its pause, anything else keeps the reserve.
    """
    held = limiter()
    lease = held.acquire_nowait(tokens=100)
    assert left(held) == (9, 900)
    assert in_flight(held) == 1
    end(lease)
    assert left(held) == (requests, tokens)
    assert in_flight(held) == 0


BODIES: list[dict[str, Any]] = [
    {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]},
    {"model": "gpt-4o", "input": "Hello"},
]


@pytest.mark.parametrize("accounting", ["reconcile", "refund", "never_refund", "charge"])
@pytest.mark.parametrize("answered", [12_000, 900_000_000])
@pytest.mark.parametrize("body", BODIES, ids=["chat", "Responses"])
@pytest.mark.parametrize("dimension", ["tokens", "output_tokens"])
def test_long_answers_refuse_no_later_call(
    accounting: Any, answered: int, body: dict[str, Any], dimension: str
) -> None:
    """A length that was learned is an expectation: a call goes from a full bucket."""
    clock = VirtualClock()
    limits = Limits(Limit(dimension, 10_000))
    held = RateLimiter(limits=limits, accounting=accounting, clock=clock)
    usage = {"prompt_tokens": 8, "completion_tokens": answered, "total_tokens": 8 + answered}

    async def main() -> None:
        for _ in range(20):
            (await held.acquire(body)).settle(usage)

    clock.run(main)

    assert held.statistics().families["*"].admitted == 20


@pytest.mark.parametrize("output", [None, "learned", 20_000])
def test_only_a_bound_that_the_body_asks_for_refuses_a_call(output: Any) -> None:
    """What the server may debit for it is more than its limit."""
    held = RateLimiter(tpm=10_000, accounting="refund", output=output, clock=ThreadClock())

    assert held.acquire_nowait(BODIES[0]).cost["tokens"] <= 10_000
    with pytest.raises(RequestTooLarge):
        held.acquire_nowait(BODIES[0] | {"max_tokens": 11_000})


@pytest.mark.parametrize("named", ["previous_response_id", "conversation"])
@pytest.mark.parametrize("limited", ["tokens", "input_tokens"])
def test_a_bill_that_cannot_be_closes_no_conversation(named: str, limited: str) -> None:
    """What the server keeps is not known then, and the next turn goes."""
    held = RateLimiter(limits=Limits(Limit(limited, 10_000)), clock=VirtualClock())
    asked: dict[str, Any] = {"model": "gpt-4o", "input": "Hello", "max_output_tokens": 50}
    usage = {"input_tokens": 999_999, "output_tokens": 9, "total_tokens": 1_000_008}
    first = asked if named == "previous_response_id" else asked | {named: "conv_1"}
    held.acquire_nowait(first).settle({"id": "resp_1", "usage": usage})
    later = asked | {named: "resp_1" if named == "previous_response_id" else "conv_1"}

    assert held.estimate(later).prompt_tokens < 10_000


@pytest.mark.parametrize("accounting", ["never_refund", "charge"])
def test_where_the_server_never_refunds_the_reserve_stays(accounting: Any) -> None:
    """Only what was not sent comes back."""
    held = limiter(accounting=accounting)
    held.acquire_nowait(tokens=100).settle(USAGE)
    assert left(held) == (9, 900)
    held.acquire_nowait(tokens=100).cancel()
    assert left(held) == (9, 900)
    assert in_flight(held) == 0


@given(
    figures=st.lists(
        st.sampled_from(["close", "cancel", "fail", "unsent"]) | st.integers(0, 3_000),
        min_size=1,
        max_size=6,
    )
)
def test_of_many_figures_the_newest_counts_and_the_call_ends_once(figures: Any) -> None:
    """Settled twice, closed in between, cancelled after: the bucket has paid the last
    figure, and one slot is free.
    """
    held = limiter()
    lease = held.acquire_nowait(tokens=100)
    other = held.acquire_nowait(tokens=1)
    expected, requests, ended = 100, 1, False
    for figure in figures:
        if isinstance(figure, int):
            lease.settle(tokens=figure)
            expected, ended = figure, True
        elif figure == "cancel":
            lease.cancel()
            expected, requests, ended = 0, 0, True
        else:
            if figure == "close":
                lease.close()
            else:
                lease.fail(ConnectionRefusedError() if figure == "unsent" else ValueError())
            if figure == "unsent" and not ended:
                expected, requests = 0, 0
            ended = True
    assert left(held) == (9 - requests, 999 - expected)
    assert lease.cost["tokens"] == expected
    assert in_flight(held) == 1
    other.close()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        WaitTimeout("of another"),
        Refused(),
        Refused(TEXT.format(used=0)),
        ValueError(),
    ],
)
def test_an_error_after_the_settlement_is_not_this_calls(error: Exception) -> None:
    """Whoever settled and then fails at something else has still used what was settled;
    the server refused nothing of it.
    """
    held = limiter()

    def work() -> None:
        with held.reserve(tokens=100) as lease:
            lease.settle(USAGE)
            raise error

    with pytest.raises(type(error)):
        work()
    assert left(held) == (9, 960)
    assert held.statistics().refused == 0


@pytest.mark.parametrize("error", [ConnectionRefusedError(), WaitTimeout("of another")])
def test_a_connection_that_fails_after_the_headers_was_another_one(error: Exception) -> None:
    """An answer that has shown its headers was paid, whatever fails after them."""
    held = limiter()
    lease = held.acquire_nowait(tokens=100)
    lease.observe({})
    lease.fail(error)

    assert left(held) == (9, 900)


def test_one_refusal_is_counted_once() -> None:
    """Heard by its headers first and by its exception afterwards, a 429 is one 429."""
    held = limiter()

    def work() -> None:
        with held.reserve(tokens=100) as lease:
            lease.observe({"retry-after": "7"}, status=429)
            raise Refused("", {"retry-after": "7"})

    with pytest.raises(Refused):
        work()
    assert held.statistics().refused == 1
    assert held.statistics().families["*"].closed_for == pytest.approx(7, abs=0.01)


def test_a_refusal_is_shown_and_closes_the_line_once_for_everybody() -> None:
    """After a 429 nobody goes before the named moment, also who would fit."""
    held = limiter()
    clock = held._engine.clock
    lease = held.acquire_nowait(tokens=1)
    lease.fail(Refused(TEXT.format(used=100)))
    assert held.statistics().refused == 1
    assert held.statistics().families["*"].closed_for == pytest.approx(6, abs=0.01)
    held.acquire_sync(tokens=1)
    assert clock.now() == pytest.approx(6, abs=0.01)


GARBAGE: list[Any] = [
    *(
        nan,
        inf,
        -1,
        -0.001,
        1e16,
        10**18,
        True,
        False,
        "many",
        [],
        {},
        object(),
        b"\xff",
        "",
        None,
        pytest.param(10**5_000, id="huge"),
    ),
    *({"usage": None}, {"usage": {"total_tokens": "x"}}, "{broken", 5j),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda value: str(type(value).__name__))
def test_settling_with_garbage_is_one_clear_error_that_changes_nothing(garbage: Any) -> None:
    """Then the reserve stays, the call is still in flight, and a right figure settles
    it.
    """
    held = limiter()
    lease = held.acquire_nowait(tokens=100)
    with pytest.raises(InvalidArgument, match=r"settle"):
        lease.settle(garbage)
    if not isinstance(garbage, (dict, list, bytes, str)) and garbage is not None:
        with pytest.raises(InvalidArgument, match=r"settle\(tokens="):
            lease.settle(tokens=garbage)
    assert left(held) == (9, 900)
    assert in_flight(held) == 1
    lease.settle(tokens=1)
    assert left(held) == (9, 999)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit-tokens": "\x00"},
        {"retry-after": "-5"},
        {"retry-after": "nan"},
        {"a": None},
        None,
        5,
        [],
    ],
)
@pytest.mark.parametrize("status", [200, 429, 500, -1])
@pytest.mark.parametrize("body", [None, b"\xff\xfe", "{", {"error": 5}, object()])
def test_garbage_headers_and_bodies_break_nothing(headers: Any, status: int, body: Any) -> None:
    """Whatever a server sends, observing it raises nothing and hangs nobody."""
    held = limiter()
    lease = held.acquire_nowait(tokens=100)
    lease.observe(headers, status=status, body=body)
    lease.close()
    held.acquire_sync(tokens=1)
    assert held._engine.clock.now() <= 60
    assert in_flight(held) == 1 or held.statistics().refused == (status == 429)


def test_a_forgotten_lease_ends_by_itself_and_keeps_its_reserve() -> None:
    """Also one that is part of a circle, which only the garbage collector finds."""
    held = limiter(concurrency=1)
    lease = held.acquire_nowait(tokens=100)
    circle: dict[str, Any] = {"lease": lease}
    circle["self"] = circle
    del lease, circle
    gc.collect()
    assert in_flight(held) == 0
    assert left(held) == (9, 900)


@pytest.mark.parametrize("end", ["settle", "close", "cancel"])
def test_two_ends_at_once_are_booked_as_one(end: str) -> None:
    """A call that a signal handler or another thread settles while it ends is ended
    once, and what it holds is what is debited.
    """
    lim = RateLimiter(
        limits=Limits(Limit("tokens", 1_000, 1e9), concurrency=1),
        arrival_slack=0,
        clock=ThreadClock(),
    )
    moments = 0
    leases: list[Lease] = []

    def act() -> None:
        lease = lim.acquire_nowait(tokens=700)
        leases.append(lease)
        {"settle": lambda: lease.settle(tokens=300), "close": lease.close, "cancel": lease.cancel}[
            end
        ]()

    def settle_too() -> None:
        if leases:
            leases[-1].settle(tokens=500)

    for _ in interruptions(act, settle_too):
        moments += 1
        if not leases:
            continue
        family = lim.statistics().families["*"]
        assert family.in_flight == 0
        assert 1_000 - family.levels["tokens/1e+09s"] == pytest.approx(leases[-1].cost["tokens"])
        leases.pop().settle(tokens=0)

    assert moments > 20


def test_a_lease_may_be_settled_by_any_thread() -> None:
    """The waiting thread hears of it at once."""
    held = limiter(concurrency=1)
    lease = held.acquire_nowait(tokens=100)
    assert isinstance(held._engine.clock, ThreadClock)
    held._engine.clock.run(
        lambda: held.acquire_sync(tokens=1).close(), lambda: lease.settle(tokens=3)
    )
    assert left(held) == (8, 996)


def test_a_lease_shows_itself() -> None:
    """Its cost and whether it is over."""
    lease = limiter().acquire_nowait(tokens=1_200 - 300)
    assert repr(lease) == "<Lease requests=1, tokens=900, in flight>"
    lease.settle(tokens=7)
    assert repr(lease) == "<Lease requests=1, tokens=7, ended>"


def test_what_holds_a_call_is_copied_as_itself_and_pickled_by_nobody() -> None:
    """A copy would settle the same call once more, and another process cannot."""
    held = limiter()
    lease, reservation = held.acquire_nowait(tokens=1), held.reserve(tokens=1)

    assert copy.deepcopy({"a": [lease]})["a"][0] is lease
    assert copy.copy(lease) is lease
    with copy.deepcopy(reservation), reservation:
        assert in_flight(held) == 3
    for thing in (lease, reservation):
        with pytest.raises(InvalidArgument, match="cannot be pickled"):
            pickle.dumps(thing)


def test_one_error_that_refuses_several_calls_counts_for_each() -> None:
    """A program may raise the same object again; a call after it was refused anew."""
    clock = ThreadClock()
    held = RateLimiter(rpm=600, clock=clock)
    error = Refused()
    for count in range(1, 4):
        with pytest.raises(Refused), held.reserve(tokens=1):
            raise error
        assert held.statistics().refused == count
        clock.sleep(100)
